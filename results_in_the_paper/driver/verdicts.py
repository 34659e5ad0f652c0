"""Compare our numbers with the paper's: a row per cell, with its bootstrap interval over images and a verdict."""
import math
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from iqa_runtime.errors import UserError
from iqa_scoring.results import read_predictions
from iqa_training.curves import best
from IQAperformance import CRITERIA
from IQAperformance import interval as bootstrap
from results_in_the_paper import t_test
from results_in_the_paper.driver import paper, plotting
from results_in_the_paper.driver.cells import HEADERS, Cell, cells
from results_in_the_paper.driver.figure_runs import FigureRun, figure_runs
from results_in_the_paper.driver.settings import LOSS_NAMES, differences, find
from results_in_the_paper.driver.shelf import Shelf
from results_in_the_paper.driver.targets import FIGURE5, WantedRun

HEADER = ('cell', 'paper', 'ours', 'difference', '95 % interval', 'verdict')
RESAMPLES = 2000
# options of training that leave it the paper's: precision, the place of the info file
HARMLESS = {'opt_level', 'amp_backend', 'sync_bn', 'randomness', 'data_info'}


class Row(NamedTuple):
    """One number: the paper's, ours and the interval of ours, each None if there is none.

    `setting` says what is not as in the paper, '' if nothing is; `tolerance` is how far a PASS may be.
    """

    cell: str
    metric: str
    known: float | None
    ours: float | None
    interval: tuple[float, float] | None = None
    setting: str = ''
    tolerance: float = paper.TOLERANCE

    def words(self) -> list[str]:
        """Return the row of the table."""
        digits = 3
        missing = self.ours is None or not math.isfinite(self.ours)
        both = self.known is not None and not missing
        return [f'{self.cell} {self.metric}', paper.show(self.known, digits),
                '-' if self.ours is None else f'{self.ours:.{digits}f}',
                f'{self.ours - self.known:+.{digits}f}' if both else '-',
                '[{:.3f}, {:.3f}]'.format(*self.interval) if self.interval else '-', self.verdict()]

    def verdict(self) -> str:
        """Return PASS if ours, rounded as the published number, is within the tolerance of it; or why it is not judged.

        The tolerance is of correlations: an RMSE is shown, not judged.
        """
        if self.ours is None:
            return 'no result'
        if self.known is None:
            return paper.UNKNOWN
        if self.setting:
            return self.setting
        if self.metric == 'RMSE':
            return 'not judged'
        return 'PASS' if round(abs(round(self.ours, 3) - self.known), 3) <= self.tolerance else 'FAIL'


def rows(target: str, shelf: Shelf) -> list[Row]:
    """Return the rows of a target; figureA and image_size have none."""
    if target in HEADERS:
        return [_cell(target, *pair, shelf) for pair in zip(cells(target), cells(target, shelf.base), strict=True)]
    return list(_OTHERS[target](target, shelf)) if target in _OTHERS else []


def _cell(target: str, own: Cell, cell: Cell, shelf: Shelf) -> Row:
    result = find(shelf.results, cell.options, cell.tested)
    ours = result.metrics.get(cell.metric) if result else None
    return Row(f'{target}, {", ".join(cell.labels)}', cell.metric, own.paper, ours,
               interval(result.path.with_suffix('.csv'), cell.metric) if result else None,
               _setting(cell.options, own.options, shelf))


def _setting(options: dict, own: dict, shelf: Shelf) -> str:
    changed = {*differences(options, own), *shelf.demanded} - HARMLESS
    return ('other data' if 'dataset' in changed else 'other setting') if changed else ''


@cache
def interval(path: Path, metric: str) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval over the images of a file of predictions; None if it cannot be read."""
    try:
        predictions = read_predictions(path)
    except UserError:
        return None
    return bootstrap(CRITERIA[metric], predictions.pq, predictions.mos, count=RESAMPLES)


def _figure1(target: str, shelf: Shelf) -> Iterator[Row]:
    """Return the best epochs on the test part: Figure 1's runs are those of Figure 7 with other things recorded."""
    for own, cell in zip(cells('figure7'), cells('figure7', shelf.base), strict=True):
        if cell.tested == cell.options['dataset']:
            yield _cell(target, own, cell, shelf)


def _figure4(target: str, shelf: Shelf) -> Iterator[Row]:
    for own, run in zip(figure_runs(target), figure_runs(target, shelf.base), strict=True):
        for metric in run.metrics:
            yield _best(run, own, metric, run.key[0], None, shelf)


def _figure5(target: str, shelf: Shelf) -> Iterator[Row]:
    sweep = target.removeprefix('figure5_')
    for own, run in zip(figure_runs(target), figure_runs(target, shelf.base), strict=True):
        loss, value = run.key
        yield _best(run, own, 'PLCC', f'{LOSS_NAMES[loss]}, {sweep} {value}', paper.FIGURE5[sweep].get(run.key), shelf)


def _best(run: FigureRun, own: FigureRun, metric: str, label: str, known: float | None, shelf: Shelf) -> Row:
    """Return the best value of a curve on the validation part; its predictions are not kept, so it has no interval."""
    value = None
    if shelf.holds(WantedRun(run.options)):
        with suppress(UserError):
            value = best(plotting.read_run(run, shelf.csv_dir, 'val', metric), metric)
    setting = _setting(run.options, own.options, shelf)
    return Row(f'{run.figure}, {label}', f'best val {metric}', known, value, None, setting)


def _t_test(target: str, shelf: Shelf) -> Iterator[Row]:
    plcc = t_test.read_plcc(shelf.results, shelf.base)
    for loss, values in plcc.items():
        whole = len(values) == len(t_test.SPLITS)
        yield Row(f'{target}, {LOSS_NAMES[loss]}', 'mean PLCC', paper.T_TEST[loss],
                  sum(values.values()) / len(values) if whole else None)


_OTHERS = {'figure1': _figure1, 'figure4': _figure4, **dict.fromkeys(FIGURE5, _figure5), 't-test': _t_test}
