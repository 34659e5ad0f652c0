"""Systems beside LinearityIQA as targets of the driver: the commands of each, stage by stage, and published numbers.

A row of targets.SYSTEMS names a function of a `Setting` that returns a `System`. To add one, write a module like
svd_cnniqa.py, and its row:

    def my_system(setting: Setting) -> System:
        first = setting.train('my_pretraining')
        second = setting.train('my_system', '--pretrained', str(first.checkpoint))
        return System([[first], [second]], lambda: [setting.row('my_system', 'SROCC', .9, second)])

The steps of a stage do not need one another and run side by side; a stage begins when all of the one before is done. A
step that has left its file is not run again, and a training run that was stopped goes on. What is published stands in
the rows, beside what our steps left, as for the figures of the paper.
"""
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from iqa_runtime.errors import UserError
from iqa_runtime.option_types import look_up
from iqa_runtime.options import words_of
from iqa_scoring.results import metrics_of
from iqa_training.options import TRAIN
from iqa_training.steps import Step, training
from results_in_the_paper.driver.paper import TOLERANCE
from results_in_the_paper.driver.targets import SYSTEMS
from results_in_the_paper.driver.verdicts import Row, interval


@dataclass(frozen=True)
class System:
    """The way to reproduce a system: `stages` of steps; `rows()` returns the rows of its table."""

    stages: Sequence[Sequence[Step]]
    rows: Callable[[], list[Row]]

    def missing(self) -> list[list[Step]]:
        """Return the steps that are not done, by stage, each once."""
        stages, seen = [], set()
        for stage in self.stages:
            steps = [step for step in dict.fromkeys(stage) if step not in seen and not step.makes.exists()]
            seen.update(steps)
            stages.append(steps)
        return stages


@dataclass(frozen=True)
class Setting:
    """The user's choices for a system.

    Attributes:
        given: options of main.py that hold for all training runs, instead of the recipes'.
        splits: how many splits are trained, of a system that has several.
        models: which networks are trained, of a system that has several; None: all.
        sizes: the sizes of images that are trained, of a system that has several; none: its own.
        held_out: an info file of images to test all networks on.
        predict: a folder of images to score with all networks.
    """

    given: dict
    splits: int = 1
    models: Sequence[str] | None = None
    sizes: tuple[int, ...] = ()
    held_out: str | None = None
    predict: str | None = None

    def train(self, recipe: str, *words: str) -> Step:
        """Return the step that trains with a recipe, the user's options, and further words of main.py, which win.

        Raises UserError if the user gave an option that is among those words.
        """
        for name in sorted(set(vars(TRAIN.parser.parse_args(words))) & set(self.given)):
            raise UserError(f'--{name}: the system chooses it by itself; leave the option out')
        return training(('--recipe', recipe, *words_of(self.given), *words))

    def row(self, label: str, metric: str, known: float | None, step: Step, setting: str = '',
            tolerance: float = TOLERANCE) -> Row:
        """Return the row of a published number, beside that of a training run.

        `setting` says why the number is not judged, '' if it is.
        """
        ours = metrics_of(step.makes).get(metric)
        bounds = None if ours is None else interval(step.makes.with_suffix('.csv'), metric)
        return Row(label, metric, known, ours, bounds, setting, tolerance)


def system_of(name: str, setting: Setting) -> System:
    """Return a system of targets.SYSTEMS."""
    return look_up(SYSTEMS[name])(setting)
