"""Log a run: its scalars, to loggers and in memory for the state; its options and its split."""
import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

from iqa_runtime.distributed import is_main
from iqa_runtime.files import locked, replacing, write_text, writing
from iqa_runtime.split_file import write_split
from iqa_training.loggers import LOGGERS, open_loggers


@contextmanager
def _thread_errors_once() -> Iterator[None]:
    """Do not print OSErrors of threads in the context: TensorBoard's writer raises its own again in the next call."""
    before = threading.excepthook

    def hook(arguments) -> None:
        if not isinstance(arguments.exc_value, OSError):
            before(arguments)

    threading.excepthook = hook
    try:
        yield
    finally:
        threading.excepthook = before


class Log:
    """Keeps the scalars of a run in `history`, tag -> [step, value, time] of each, and sends them to loggers.

    Args:
        folder: folder of the log, named after the run; only the first process writes to it.
        loggers: names in LOGGERS.
    """

    def __init__(self, folder: Path, loggers: Sequence[str] = ('tensorboard',)):
        self.folder, self.history, self.names, self.loggers = folder, {}, tuple(loggers), []

    @property
    def title(self) -> str:
        """Return the names of the loggers, as on the screen."""
        return ' and '.join(LOGGERS[name].title for name in self.names)

    @contextmanager
    def open(self, options: dict, split: dict[str, list[str]]) -> Iterator[None]:
        """Write options.json and split.csv; within the context, write scalars as they come.

        An existing log is rewritten from `history`, so that no step appears twice. Raises UserError if another process
        is writing to the log.
        """
        if not is_main():
            yield
            return
        with locked(self.folder / '.lock'), _thread_errors_once():
            with writing(self.folder):
                self._begin(options, split)
            try:
                yield
            finally:
                for logger in self.loggers:
                    with suppress(OSError):  # a failed write has been reported before
                        logger.close()

    def _begin(self, options: dict, split: dict[str, list[str]]) -> None:
        write_text(self.folder / 'options.json', json.dumps(options, indent=2) + '\n')
        write_split(self.folder / 'split.csv', split)
        self.loggers = open_loggers(self.names, self.folder, self.folder.name, options)
        for tag, rows in self.history.items():
            for step, value, seconds in rows:
                self._write(tag, value, int(step), seconds)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Log a scalar."""
        now = time.time()
        self.history.setdefault(tag, []).append([step, value, now])
        with writing(self.folder):
            self._write(tag, value, step, now)

    def _write(self, tag: str, value: float, step: int, seconds: float) -> None:
        for logger in self.loggers:
            logger.write(tag, value, step, seconds)

    def values(self, tag: str, last: int = 0) -> list[float]:
        """Return the values of a tag, all or the `last` ones."""
        return [value for _, value, _ in self.history[tag][-last:]]

    def flush(self) -> None:
        """Hand the logged scalars to the operating system."""
        with writing(self.folder):
            for logger in self.loggers:
                logger.flush()

    def write_bhat(self, epoch_length: int) -> None:
        """Write bhat.csv, the norm of each head's centred predictions in each iteration, if it was logged."""
        tags = [tag for tag in self.history if tag.startswith('train/bhat')]
        if not tags or not self.loggers:
            return
        iterations = [int(step) for step, _, _ in self.history[tags[0]]]
        columns = {tag.removeprefix('train/'): self.values(tag) for tag in tags}
        table = pd.DataFrame({'iteration': iterations, 'epoch': [(i - 1) // epoch_length + 1 for i in iterations],
                              **columns})
        with replacing(self.folder / 'bhat.csv') as temporary:
            table.to_csv(temporary, index=False)
