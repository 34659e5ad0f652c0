"""Describe a step of many runs: a command of the project, and the file that it writes when it is done."""
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
    """A command: the script and its words, and the file that it writes when it is done.

    `checkpoint` is the checkpoint of a training run, for which `makes` is the file of its results.
    """

    words: tuple[str, ...]
    makes: Path
    checkpoint: Path | None = None

    def command(self) -> list[str]:
        """Return the words of the command."""
        return ['python', script(self.words[0]), *self.words[1:]]


def script(name: str) -> str:
    """Return the path of a script of the project, for a command that runs in the current folder."""
    return name if Path.cwd() == ROOT else str(ROOT / name)


def training(words: Sequence[str]) -> Step:
    """Return the step that trains with these words of main.py."""
    options = TRAIN.parse(words)
    return Step(('main.py', *words), Path(options.result_dir, f'{name_of(options)}.json'),
                checkpoint_file(options))


def is_finished(checkpoint: Path) -> bool:
    """Return whether a checkpoint exists and belongs to a finished run; False if it is damaged."""
    try:
        return checkpoint.exists() and bool(load_checkpoint(checkpoint).get('finished'))
    except UserError:  # damaged: main.py reports it
        return False
