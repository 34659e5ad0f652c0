"""The cells of a study: training runs with their tests, the files that exist, and the commands for the missing ones."""
import shlex
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from iqa_data.datasets import dataset_name, named_source, names_of, require, sets_of
from iqa_results.curves import read_scalars
from iqa_runtime.errors import UserError
from iqa_scoring.options import TEST
from iqa_studies.jobs import Job
from iqa_studies.outcome import Outcome
from iqa_studies.steps import Step, is_finished
from iqa_studies.study import KEEP
from iqa_studies.study_data import Other
from iqa_training.naming import result_name

if TYPE_CHECKING:
    from iqa_studies.choosing import Choice
    from iqa_studies.study_groups import Grouping


@dataclass(frozen=True)
class Cell:
    """A training run of a setting, and its tests on other data sets, by name.

    Attributes:
        tested: whether it has a test part.
        options: those of main.py, by name.
        log: TensorBoard folder of the run.
        output: file of the output of its commands; None: they are shown alone.
        flags: options of main.py by which it records what is kept.
        curves: the CSV files that its curves are exported to, and the tag of each.
        stage: how many trainings come before it.
    """

    setting: str
    split: str
    seed: int
    trained_on: str
    training: Step
    tests: Mapping[str, Step]
    tested: bool
    options: Mapping
    log: Path
    output: Path | None = None
    flags: tuple[str, ...] = ()
    curves: Mapping[Path, str] = field(default_factory=dict)
    stage: int = 0

    @property
    def results(self) -> dict[str, Path]:
        """Return the files of the run's own results, by data set."""
        names, makes = names_of(self.options['dataset']), self.training.makes
        return {name: makes.with_name(f'{result_name(makes.stem, names, name, "test")}.json')
                for name in names if self.tested}

    def outcomes(self) -> list[Outcome]:
        """Return the outcomes whose results exist."""
        tests = {data: step.makes for data, step in self.tests.items()}
        return [Outcome(self.setting, self.split, self.seed, self.trained_on, data, result, self.log,
                        self.training.checkpoint)
                for data, result in {**self.results, **tests}.items() if result.exists()]

    def result(self, data: str | None = None) -> Path | None:
        """Return the results of the test on a data set (None: the one trained on); None if they are not there."""
        step = self.training if data in (None, self.trained_on) else self.tests.get(data)
        return step.makes if step and step.makes.exists() else None

    def job(self) -> Job | None:
        """Return the job that makes the missing files; None if nothing is missing."""
        tests = [step for step in self.tests.values() if not step.makes.exists()]
        unrecorded = not self.is_recorded()
        lacks = unrecorded or not all(result.exists() for result in self.results.values())
        if not lacks and not tests:
            return None
        finished = is_finished(self.training.checkpoint)
        commands = [step.command() for step in tests]
        if lacks or not finished:  # what was not recorded is trained again
            how = ['--resume', 'auto'] if not finished else ['--again'] if unrecorded else ['--evaluate']
            commands.insert(0, [*self.training.command(), *self.flags, *how])
        lock = Path(f'{self.training.checkpoint}.lock')  # a study that was killed may have left a run that ends soon
        return Job(commands, self.output, lock if self.output else None)

    def missing(self) -> list[str]:
        """Return the commands, as they are typed, that make the missing results."""
        tests = [step for step in self.tests.values() if not step.makes.exists()]
        return [self.trained_by()] * (self.result() is None) + [shlex.join(['python', *step.words]) for step in tests]

    def trained_by(self) -> str:
        """Return the command, as it is typed, that trains the run."""
        return shlex.join(['python', *self.training.words, *self.flags])

    def joined(self, other: 'Cell') -> 'Cell':
        """Return the cell with the tests, flags and curves of another cell of the same run."""
        flags = [flag for flag in KEEP.values() if flag in (*self.flags, *other.flags)]
        return replace(self, tests={**self.tests, **other.tests}, flags=tuple(flags),
                       curves={**self.curves, **other.curves})

    def is_recorded(self) -> bool:
        """Return whether everything that is kept was recorded from the beginning, in the log or as CSV files."""
        if self.curves and self.has_log():
            scalars = read_scalars(self.log)  # one that begins later is of a run that was resumed with other flags
            return all(tag in scalars and scalars[tag][0][1] == 1 for tag in self.curves.values()) and self.has_bhat()
        return all(path.is_file() for path in self.curves) and self.has_bhat()

    def has_log(self) -> bool:
        """Return whether the log holds curves."""
        return any(self.log.glob('*tfevents*'))

    def has_bhat(self) -> bool:
        """Return whether bhat.csv exists and begins with the first iteration; True if it is not kept."""
        if KEEP['bhat'] not in self.flags:
            return True
        with suppress(OSError), open(self.log / 'bhat.csv', encoding='utf-8') as file:
            return any(line.startswith('1,') for line in (file.readline(), file.readline()))
        return False


@dataclass
class Plan:
    """The runs of a study.

    Attributes:
        cells: the training runs, with their tests.
        choices: the values of `choose` that are tried for each setting, with their results.
        splits: (data set, label) -> sizes and hash of the split, in words.
        left_out: what cannot be trained or tested, and why.
        others: others' predictions.
        images: data set -> folder of its images.
        groupings: the kinds of groups in which the tested images are evaluated.
        first, last: steps before all trainings, and after them by stage.
    """

    cells: list[Cell] = field(default_factory=list)
    choices: list['Choice'] = field(default_factory=list)
    splits: dict[tuple[str, str], str] = field(default_factory=dict)
    left_out: list[str] = field(default_factory=list)
    others: list[Other] = field(default_factory=list)
    images: dict[str, Path] = field(default_factory=dict)
    groupings: list['Grouping'] = field(default_factory=list)
    first: list[Step] = field(default_factory=list)
    last: list[list[Step]] = field(default_factory=list)

    def outcomes(self, folder: Path) -> list[Outcome]:
        """Return all outcomes whose results exist, and others' predictions, which are written into the folder."""
        return [outcome for cell in self.cells for outcome in cell.outcomes()] + [
            other.outcome(folder) for other in self.others]

    def trainings(self, trials: bool = False) -> list[Cell]:
        """Return the training runs, each once, with the tests and records of its cells; `trials`: trials too."""
        found: dict[Path, Cell] = {}
        for cell in (*(self.trials() if trials else ()), *self.cells):
            known = found.get(cell.training.checkpoint)
            found[cell.training.checkpoint] = known.joined(cell) if known else cell
        return list(found.values())

    def trials(self) -> list[Cell]:
        """Return the runs by which values are chosen."""
        return [cell for choice in self.choices for cell in choice.trials.values()]

    def with_data(self) -> 'Plan':
        """Return the plan without tests on missing data sets; UserError if a data set to train on is missing."""
        cells = []
        for cell in self.cells:
            if cell.job():
                check_there(cell.options)
            lacking = {name: why for name, step in cell.tests.items() if not step.makes.exists()
                       and (why := why_not_there(TEST.parse(step.words[1:]).values))}
            self.left_out += [f'the test on {name}: {why}' for name, why in lacking.items()]
            cells.append(replace(cell, tests={name: step for name, step in cell.tests.items() if name not in lacking}))
        return replace(self, cells=cells, left_out=list(dict.fromkeys(self.left_out)))

    def count(self) -> int:
        """Return the number of runs."""
        return len(self.trainings(trials=True)) + len(self.first) + sum(map(len, self.last))

    def stages(self) -> list[list[Job]]:
        """Return the missing runs by stage, each once; a stage begins when the one before is done."""
        cells = self.trainings()
        stages = [[cell.job() for cell in cells if cell.stage == stage]
                  for stage in sorted({cell.stage for cell in cells})]
        first, *last = [[Job([step.command()]) for step in steps if not step.makes.exists()]
                        for steps in (self.first, *self.last)]
        return [left for stage in (first, *stages, *last) if (left := [job for job in stage if job])]

    def trying(self) -> list[Job]:
        """Return the missing runs by which values are chosen, which come before all stages."""
        jobs = {cell.training.checkpoint: cell.job() for cell in self.trials()}
        return [job for job in jobs.values() if job]

    def jobs(self) -> list[Job]:
        """Return all missing runs that are known."""
        return self.trying() + [job for stage in self.stages() for job in stage]


def check_there(options: Mapping) -> None:
    """Raise UserError if the data set that options name is missing; the demo data set is drawn by the run."""
    if options['dataset'] != 'demo' or options['data_info']:
        for name in sets_of(options['dataset']):
            require(named_source(name, options['im_dir'], options['data_info'], options['ref_dir']), dataset_name(name))


def why_not_there(options: Mapping) -> str:
    """Return why a data set cannot be tested, '' if it can."""
    try:
        check_there(options)
    except UserError as error:
        return str(error)
    return ''


def folders(folder: Path) -> dict[str, str]:
    """Return the options that name the folders of the runs."""
    return {'checkpoint_dir': str(folder / 'checkpoints'), 'result_dir': str(folder / 'results'),
            'log_dir': str(folder / 'runs')}
