"""What splits, settings and a rule for outliers each add to the agreement with MOS, with intervals over the images.

The validation images of the folds are, together, all images, each predicted by networks that have not seen it: these
out-of-fold predictions show what settings and the rule for outliers add. What folds add can only be seen on images that
all networks predict: the other data sets of the study.
"""
from collections.abc import Callable, Sequence

import numpy as np

from iqa_results.read import read_predictions
from iqa_runtime.errors import UserError
from iqa_scoring.ensemble import JoinedPredictions
from iqa_studies.cells import Cell, Plan
from iqa_studies.published import RESAMPLES, Comparison, comparisons
from iqa_studies.study import Study
from IQAperformance import CRITERIA
from IQAperformance import interval as bootstrap

SHOWN = ('SROCC', 'PLCC')
Level = tuple[str, list[np.ndarray]]  # its name, and predictions of images, (N,) each: its value is the mean of theirs


def numbers(study: Study, plan: Plan) -> list[Comparison]:
    """Return all that is held beside published numbers, and what an ensemble adds."""
    return comparisons(study, plan) + (gains(plan, study.ensemble['how']) if 'how' in study.ensemble else [])


def gains(plan: Plan, how: str = 'iqr') -> list[Comparison]:
    """Return the rows of out-of-fold predictions, and of each other data set that all networks are tested on."""
    tests = dict.fromkeys(name for cell in plan.cells for name in cell.tests)
    return [*out_of_fold(plan.cells, how), *(row for name in tests for row in held_out(plan.cells, name, how))]


def out_of_fold(cells: Sequence[Cell], how: str) -> list[Comparison]:
    """Return what settings and the rule add, on all images, each predicted by networks that have not seen it."""
    if not all(cell.result() for cell in cells):
        return []
    joined = {setting: _joined([cell for cell in cells if cell.setting == setting])
              for setting in dict.fromkeys(cell.setting for cell in cells)}
    names, mos, _ = next(iter(joined.values()))
    columns = [values[[found.index(name) for name in names]] for found, _, values in joined.values()]
    return rows('out of fold', [('one setting', columns), *_together(names, columns, how)], mos)


def held_out(cells: Sequence[Cell], data: str, how: str) -> list[Comparison]:
    """Return what splits, settings and the rule add, on images that no network was trained on."""
    if not all(cell.result(data) for cell in cells):
        return []
    found = [read_predictions(cell.result(data).with_suffix('.csv')) for cell in cells]
    columns = [one.pq for one in found]
    of_settings = [np.mean([one for one, cell in zip(columns, cells, strict=True) if cell.setting == setting], 0)
                   for setting in dict.fromkeys(cell.setting for cell in cells)]
    levels = [('one network', columns), ('splits averaged', of_settings), *_together(found[0].names, columns, how)]
    return rows(f'held out ({data})', levels, found[0].mos)


def _joined(cells: Sequence[Cell]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return names, MOS and predictions of the validation images of all folds."""
    parts = [read_predictions(cell.result().with_suffix('.csv')) for cell in cells]
    names = [name for part in parts for name in part.names]
    if len(set(names)) < len(names):
        raise UserError('an image is in the validation part of two folds: the runs are of different data')
    return names, np.concatenate([part.mos for part in parts]), np.concatenate([part.pq for part in parts])


def _together(names: Sequence[str], columns: Sequence[np.ndarray], how: str) -> list[Level]:
    """Return the last two levels: the mean of all predictions of each image, and that by a rule."""
    all_of_them = JoinedPredictions(list(names), [], np.stack(columns, 1))
    last = {'iqr': 'without outliers', 'median': 'median'}.get(how, how)
    return [('settings averaged', [all_of_them.combined('mean')]), (last, [all_of_them.combined(how)])]


def rows(label: str, levels: Sequence[Level], mos: np.ndarray) -> list[Comparison]:
    """Return the value of each level, and its gain over the level before, with bootstrap intervals over the images."""
    table = []
    for name in SHOWN:
        before = None
        for level, columns in levels:
            table.append(measured(f'{label}, {level}', name, mean_of(name, len(columns)), *columns, mos))
            if before is not None:
                gain = gain_of(name, len(before))
                table.append(measured(f'{label}, {level}, adds', name, gain, *before, *columns, mos))
            before = columns
    return table


def measured(label: str, name: str, criterion: Callable[..., np.ndarray], *arrays: np.ndarray) -> Comparison:
    """Return the row of a criterion of arrays, (N,) each, with its bootstrap interval."""
    return Comparison(label, label, name, name, '', None, float(criterion(*arrays, axis=-1)),
               bootstrap(criterion, *arrays, count=RESAMPLES))


def mean_of(name: str, count: int) -> Callable[..., np.ndarray]:
    """Return the criterion that is the mean agreement of `count` predictions with MOS, which comes last."""
    def criterion(*arrays: np.ndarray, axis: int = -1) -> np.ndarray:
        *columns, mos = arrays
        return np.mean([CRITERIA[name](column, mos, axis=axis) for column in columns[:count]], 0)
    return criterion


def gain_of(name: str, before: int) -> Callable[..., np.ndarray]:
    """Return the criterion that is the mean agreement of all predictions but the first `before`, less that of these."""
    def criterion(*arrays: np.ndarray, axis: int = -1) -> np.ndarray:
        *columns, mos = arrays
        after = mean_of(name, len(columns) - before)(*columns[before:], mos, axis=axis)
        return after - mean_of(name, before)(*columns[:before], mos, axis=axis)
    return criterion
