"""A step of many runs: a command of the project, and the file that it leaves when it is done."""
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.errors import UserError
from iqa_runtime.files import ROOT
from iqa_training.naming import checkpoint_file, name_of
from iqa_training.options import TRAIN


@dataclass(frozen=True)
class Step:
    """A command: the script and its words, and the file that it leaves when it is done.

    `checkpoint` is that of a training run, whose file is its results.
    """

    words: tuple[str, ...]
    makes: Path
    checkpoint: Path | None = None

    def command(self) -> list[str]:
        """Return the words of the command."""
        return ['python', script(self.words[0]), *self.words[1:]]


def script(name: str) -> str:
    """Return the path of a script of the project. Commands run where the driver does, as their relative paths mean."""
    return name if Path.cwd() == ROOT else str(ROOT / name)


def training(words: Sequence[str]) -> Step:
    """Return the step that trains with these words of main.py, or goes on where it was stopped."""
    options = TRAIN.parse(words)
    return Step(('main.py', *words, '--resume', 'auto'), Path(options.result_dir, f'{name_of(options)}.json'),
                checkpoint_file(options))


def is_finished(checkpoint: Path) -> bool:
    """Return whether a checkpoint is there and is that of a finished run; a damaged one is not."""
    try:
        return checkpoint.exists() and bool(load_checkpoint(checkpoint).get('finished'))
    except UserError:  # damaged: main.py says so
        return False
