"""The log of a run: its scalars, in TensorBoard's format and in memory for the state; its options and its split."""
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pandas as pd

from iqa_data.splits import write_split
from iqa_runtime.distributed import is_main
from iqa_runtime.files import locked, replacing, write_text, writing


@contextmanager
def _thread_errors_once() -> Iterator[None]:
    """Do not print a thread's OSError within the context: that of TensorBoard's writer is raised by the next call."""
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
    """The scalars of a run, tag -> [step, value, time] of each; only the first process writes them to `folder`."""

    def __init__(self, folder: Path):
        self.folder, self.history, self.writer = folder, {}, None

    @contextmanager
    def open(self, options: dict, split: dict[str, list[str]]) -> Iterator[None]:
        """Write options.json and split.csv, and the scalars as they come as long as the context lasts.

        A log that was there is written anew from `history`: no step is doubled. UserError if another process writes it.
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
                with suppress(OSError):  # what could not be written has been an error before
                    self.writer.close()

    def _begin(self, options: dict, split: dict[str, list[str]]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # slow to import
        for old in self.folder.glob('events.out.tfevents.*'):
            old.unlink()
        write_text(self.folder / 'options.json', json.dumps(options, indent=2) + '\n')
        write_split(self.folder / 'split.csv', split)
        self.writer = SummaryWriter(str(self.folder))
        for tag, rows in self.history.items():
            for step, value, seconds in rows:
                self.writer.add_scalar(tag, value, int(step), seconds)

    def scalar(self, tag: str, value: float, step: int) -> None:
        """Log a scalar."""
        now = time.time()
        self.history.setdefault(tag, []).append([step, value, now])
        if self.writer:
            with writing(self.folder):
                self.writer.add_scalar(tag, value, step, now)

    def values(self, tag: str, last: int = 0) -> list[float]:
        """Return the values of a tag, or the last ones."""
        return [value for _, value, _ in self.history[tag][-last:]]

    def flush(self) -> None:
        """Hand the logged scalars to the operating system."""
        if self.writer:
            with writing(self.folder):
                self.writer.flush()

    def write_bhat(self, epoch_length: int) -> None:
        """Write bhat.csv, the norm of the centred predictions of each head in each iteration, if it was logged."""
        tags = [tag for tag in self.history if tag.startswith('train/bhat')]
        if not tags or not self.writer:
            return
        iterations = [int(step) for step, _, _ in self.history[tags[0]]]
        columns = {tag.removeprefix('train/'): self.values(tag) for tag in tags}
        table = pd.DataFrame({'iteration': iterations, 'epoch': [(i - 1) // epoch_length + 1 for i in iterations],
                              **columns})
        with replacing(self.folder / 'bhat.csv') as temporary:
            table.to_csv(temporary, index=False)
