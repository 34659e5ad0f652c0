"""Find the files of the runs that the driver needs, and list the commands that make the missing ones."""
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from iqa_data.info import dataset_name
from iqa_runtime.errors import UserError
from iqa_scoring.results import Result, read_results
from iqa_training.naming import name_of
from iqa_training.options import TRAIN
from iqa_training.scalars import read_scalars
from iqa_training.steps import is_finished, script
from results_in_the_paper.driver.settings import PAPER, find, option_words
from results_in_the_paper.driver.targets import WantedRun
from results_in_the_paper.export_csv import export


@dataclass
class Shelf:
    """The folders in which runs are kept, and the options that they share.

    `base` is what is not as in the paper. `words` and `test_words` are further options of all commands of main.py and
    test_dataset.py; a result counts if its options have the values of `demanded`.
    """

    result_dir: Path
    log_dir: Path
    checkpoint_dir: Path
    base: dict = field(default_factory=dict)
    words: Sequence[str] = ()
    test_words: Sequence[str] = ()
    demanded: dict = field(default_factory=dict)
    results: list[Result] = field(default_factory=list)

    @property
    def csv_dir(self) -> Path:
        """Return the folder of the curves, where main.py writes them too."""
        return self.result_dir / 'csv'

    @property
    def figure_dir(self) -> Path:
        """Return the folder of figures and tables: figures, or figures-DATASET for other data sets than the paper's."""
        data = self.base.get('dataset', PAPER['dataset'])
        return self.result_dir / ('figures' if data == PAPER['dataset'] else f'figures-{dataset_name(data)}')

    def look(self) -> None:
        """Read all results."""
        self.results = [result for result in read_results(self.result_dir)
                        if all(result.options.get(name) == value for name, value in self.demanded.items())]

    def name(self, run: WantedRun) -> str:
        """Return the name of a run's files, that of its result if there is a result."""
        result = find(self.results, run.options, run.options['dataset'])
        return result.path.name.removesuffix('.json') if result else self._own_name(run)

    def log(self, run: WantedRun) -> Path | None:
        """Return the TensorBoard folder of a run, None if it has no log."""
        folder = self.log_dir / self.name(run)
        return folder if any(folder.glob('*tfevents*')) else None

    def holds(self, run: WantedRun) -> bool:
        """Return whether there is any file of a run, so that a CSV file of its name is its own."""
        return bool(find(self.results, run.options, run.options['dataset']) or self.log(run))

    def lacks(self, run: WantedRun) -> list[str]:
        """Name the missing parts: 'result', 'curves', 'b-hat', and the names of data sets that it is not tested on."""
        trained, log = bool(find(self.results, run.options, run.options['dataset'])), self.log(run)
        there = {'result': trained, 'curves': not run.curves or self._has_curves(run, log),
                 'b-hat': not run.bhat or bool(log and _has_bhat(log / 'bhat.csv')),
                 **{name: trained and bool(find(self.results, run.options, name)) for name in run.tested}}
        return [what for what in there if not there[what]]

    def _has_curves(self, run: WantedRun, log: Path | None) -> bool:
        if log:
            curves = read_scalars(log)  # one that begins later is of a run that was resumed with other flags
            return all(tag in curves and curves[tag][0][1] == 1 for tag in run.tags())
        return all(figure.path(self.csv_dir, part, metric).is_file()
                   for figure in run.curves for part in figure.parts for metric in figure.metrics)

    def commands(self, run: WantedRun) -> list[list[str]]:
        """Return the commands, as lists of words, that make the missing parts of a run, in order."""
        lacks = set(self.lacks(run))
        commands = [self._test(run, name) for name in run.tested if name in lacks]
        if not lacks & {'result', 'curves', 'b-hat'}:
            return commands
        words = ['--resume', 'auto']
        if is_finished(Path(self.checkpoint_dir, f'{self._own_name(run)}.pth')):
            words = [] if lacks & {'curves', 'b-hat'} else ['--evaluate']  # what was not recorded: train anew
        return [['python', script('main.py'), *self._training(run), *words], *commands]

    def _training(self, run: WantedRun) -> list[str]:
        return [*option_words(run.options), *run.flags(), *self.words]

    def _own_name(self, run: WantedRun) -> str:
        return name_of(TRAIN.parse(self._training(run)))

    def _test(self, run: WantedRun, data: str) -> list[str]:
        trained_on, name = run.options['dataset'], self.name(run)
        words = ['python', script('test_dataset.py'), *option_words({**run.options, 'dataset': data})]
        if name != self._own_name(run) or 'data_info' in self.demanded:  # not to be found by these options
            words += ['--trained_model_file', str(self.checkpoint_dir / f'{name}.pth')]
        elif trained_on != PAPER['dataset']:
            words += ['--trained_on', trained_on]
        return [*words, *self.test_words]

    def export(self, run: WantedRun) -> None:
        """Bring the curves of a run under the names that the figures read, as far as it went.

        UserError if there is none. A log counts before CSV files, which may be of another setting's run.
        """
        if log := self.log(run):
            export(log, self.csv_dir, self.base)
        elif self.lacks(run):
            raise UserError(f'{self.name(run)} left no curves')


def _has_bhat(path: Path) -> bool:
    """Return whether the file is there and begins with the first iteration, not with a later one as after --resume."""
    with suppress(OSError), open(path, encoding='utf-8') as file:
        return any(line.startswith('1,') for line in (file.readline(), file.readline()))
    return False
