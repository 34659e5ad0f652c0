"""Hold the numbers of a study beside published ones: a row each, with a bootstrap interval and a verdict."""
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from statistics import mean, stdev
from typing import NamedTuple

import numpy as np

from iqa_results.curves import Curve, as_curve, best, read_curve, read_scalars
from iqa_results.read import metrics_of, read_predictions
from iqa_runtime.errors import UserError
from iqa_runtime.files import sha256
from iqa_studies.cells import Cell, Plan
from iqa_studies.study import ENSEMBLE, Measure, Study
from IQAperformance import CRITERIA
from IQAperformance import interval as bootstrap

HEADER = ('cell', 'published', 'ours', 'difference', '95 % interval', 'verdict')
UNKNOWN = 'not known'
RESAMPLES = 2000


class Comparison(NamedTuple):
    """One number: the published one, ours and the interval of ours, each None if there is none.

    `label` names the study, setting and split, `measure` the evaluation and `data` the data set; `why_not` says why it
    is not judged, "" if it is; `tolerance` is the largest difference of a PASS.
    """

    label: str
    setting: str
    measure: str
    criterion: str
    data: str
    known: float | None
    ours: float | None
    interval: tuple[float, float] | None = None
    why_not: str = ''
    tolerance: float = .003

    def words(self) -> list[str]:
        """Return the row of the table."""
        return [f'{self.label} {self.measure}', *triple(self.known, self.ours),
                '[{:.3f}, {:.3f}]'.format(*self.interval) if self.interval else '-', self.verdict()]

    def verdict(self) -> str:
        """Return PASS if ours, rounded as the published number, is within the tolerance of it; or why it is not judged.

        The tolerance is of correlations: an error is shown, not judged.
        """
        if self.ours is None:
            return 'no result'
        if self.known is None:
            return UNKNOWN
        if self.why_not:
            return self.why_not
        if not CRITERIA[self.criterion].correlation:
            return 'not judged'
        return 'PASS' if round(abs(round(self.ours, 3) - self.known), 3) <= self.tolerance else 'FAIL'


def triple(known: float | None, ours: float | None) -> list[str]:
    """Return the published number, ours and the difference as words; '-' for a number that is not there (yet)."""
    both = known is not None and ours is not None and math.isfinite(ours)
    return [UNKNOWN if known is None else f'{known:.3f}', '-' if ours is None else f'{ours:.3f}',
            f'{ours - known:+.3f}' if both else '-']


def comparisons(study: Study, plan: Plan) -> list[Comparison]:
    """Return the rows of all published numbers, setting by setting."""
    found = []
    for label, numbers in study.published.items():
        for measure, known in numbers.items():
            found += of_ensemble(study, plan, measure, known) if label == ENSEMBLE else of_setting(
                study, [cell for cell in plan.cells if cell.setting == label], measure, known)
    return found


def comparison_of(study: Study, label: str, measure: Measure, known: float | None, data: str, ours: float | None,
           interval: tuple[float, float] | None = None, why_not: str = '') -> Comparison:
    """Return the row of a number of a setting, or of a setting and a split."""
    return Comparison(f'{study.name}, {label}', label, measure.words, measure.criterion, measure.data or data, known,
                      ours, interval, why_not or reason(study), study.tolerance)


def of_setting(study: Study, cells: Sequence[Cell], measure: Measure, known: float | None) -> Iterator[Comparison]:
    """Yield the row of each split, of which the first is judged, and with several the mean of those that are there."""
    by_split: dict[str, list[float]] = {}
    for cell in cells:
        value, interval = measured(cell, measure)
        by_split.setdefault(cell.split, []).append(value)
        if not measure.how.startswith('mean') and len(by_split[cell.split]) == 1:
            label = f'{cell.setting}, split {cell.split}' if len(study.splits) > 1 else cell.setting
            first = len(by_split) == 1
            yield comparison_of(study, label, measure, known if first else None, cell.trained_on, value, interval
                         )._replace(setting=cell.setting)
    values = [mean(some) for some in by_split.values() if None not in some]
    if measure.how.startswith('mean') or len(values) > 1:
        whole = len(values) == len(by_split)
        label = f'{cells[0].setting}, mean of {len(values)} splits' + (
            f', std {stdev(values):.3f},' if len(values) > 1 else ',')
        ours = mean(values) if values and (whole or not measure.how) else None
        yield comparison_of(study, label if not measure.how else cells[0].setting, measure,
                            known if measure.how else None, cells[0].trained_on, ours)


def of_ensemble(study: Study, plan: Plan, measure: Measure, known: float | None) -> Iterator[Comparison]:
    """Yield the row of all networks together."""
    step = plan.last[0][0]
    ours = metrics_of(step.makes).get(measure.criterion)
    yield comparison_of(study, ENSEMBLE, measure, known, '', ours, None if ours is None else
                 interval_of(step.makes.with_suffix('.csv'), measure.criterion))


def measured(cell: Cell, measure: Measure) -> tuple[float | None, tuple[float, float] | None]:
    """Return the number of a run and its interval, None if there is none. The best of a curve has no predictions."""
    if measure.how == 'best val ':
        curve = curve_of(cell, 'val', measure.criterion)
        return (best(curve, measure.criterion) if curve else None), None
    result = cell.result(measure.data)
    value = metrics_of(result).get(measure.criterion) if result else None
    return value, None if value is None else interval_of(result.with_suffix('.csv'), measure.criterion)


def curve_of(cell: Cell, part: str, criterion: str) -> Curve | None:
    """Return a curve of a run, from its log or else from its CSV file; None if there is none."""
    tag = f'{part}/{cell.trained_on}/{criterion}'
    with suppress(UserError):
        rows = np.array(read_scalars(cell.log).get(tag, []), float)
        if len(rows):
            return as_curve(rows[:, 1], rows[:, 2])
    with suppress(UserError):
        files = [file for file, of in cell.curves.items() if of == tag and file.is_file()]
        return read_curve(files[0]) if files and cell.result() else None
    return None


@cache
def interval_of(path: Path, criterion: str) -> tuple[float, float] | None:
    """Return the 95 % bootstrap interval over the images of a file of predictions; None if it cannot be read."""
    try:
        predictions = read_predictions(path)
    except UserError:
        return None
    return bootstrap(CRITERIA[criterion], predictions.pq, predictions.mos, count=RESAMPLES)


def reason(study: Study) -> str:
    """Return why the numbers are not judged; '' if they are, as if all starts from the published file."""
    if not study.judged_from or not study.start:
        return study.not_judged
    try:
        digest = sha256(study.start).hex()
    except OSError as error:
        raise UserError(f'--pretrained {study.start}: {error.strerror}') from None
    return '' if digest.startswith(study.judged_from) else study.not_judged
