"""The MANIQA ensemble: a network for each size and fold, and what folds, sizes and the rule for outliers each add.

The validation images of the folds are, together, all images, each predicted by networks that have not seen it: these
out-of-fold predictions show what sizes and the outlier rule add. What folds add can only be seen on other images, which
all networks predict: `--held_out` is an info file of such. `--predict` is a folder of images without scores, for which
the challenge's tables are written, one of each network and final.csv.
"""
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from iqa_data.info import dataset_name
from iqa_runtime.errors import UserError
from iqa_runtime.recipes import FOLDER
from iqa_scoring.ensemble import Predictions
from iqa_scoring.results import read_predictions
from IQAperformance import CRITERIA
from IQAperformance import interval as bootstrap
from results_in_the_paper.driver.systems import Setting, Step, System
from results_in_the_paper.driver.verdicts import RESAMPLES, Row

SIZES, FOLDS = (384, 448, 640), 5
METRICS = ('SROCC', 'PLCC')
Level = tuple[str, list[np.ndarray]]  # its name, and predictions of images, (N,) each: its value is the mean of theirs


def maniqa_ensemble(setting: Setting) -> System:
    """Return the runs of the ensemble, its predictions, and its table."""
    given, sizes = dict(setting.given), setting.sizes or SIZES
    folds = int(given.pop('folds', FOLDS))
    setting = replace(setting, given=given)
    runs = {(size, fold): train(setting, size, fold, folds) for size in sizes for fold in range(folds)}
    tests = {key: test(setting, run) for key, run in runs.items()} if setting.held_out else {}
    tables = {key: predict(setting, run, key) for key, run in runs.items()} if setting.predict else {}
    last = [ensemble(list(tables.values()))] if tables else []
    return System([list(runs.values()), [*tests.values(), *tables.values()], last],
                  lambda: [*of_models(setting, runs), *out_of_fold(runs), *held_out(tests)])


def train(setting: Setting, size: int, fold: int, folds: int) -> Step:
    """Return the training of a size and a fold, by the recipe of that size, or by the one of 384 at another size."""
    recipe, words = f'maniqa_{size}', ()
    if not Path(FOLDER, f'{recipe}.txt').exists():
        recipe, words = 'maniqa_384', ('--img_size', str(size), '-rs_h', str(size), '-rs_w', str(size))
    return setting.train(recipe, *words, '--folds', str(folds), '--fold', str(fold))


def test(setting: Setting, run: Step) -> Step:
    """Return the test of a network on the images that are held out; they lie where the training images do."""
    words = _passed_on(setting, 'im_dir', 'device', 'pbar', 'result_dir', 'num_workers')
    name = f'{run.checkpoint.stem}-on-{dataset_name(setting.held_out)}-all.json'
    return Step(('test_dataset.py', '--trained_model_file', str(run.checkpoint), '--dataset', setting.held_out,
                 '--part', 'all', *words), Path(setting.given.get('result_dir', 'results'), name))


def predict(setting: Setting, run: Step, key: tuple[int, int]) -> Step:
    """Return the prediction of the images without scores, SIZE_foldK.csv."""
    size, fold = key
    table = Path(setting.given.get('result_dir', 'results'), 'result_csv', f'{size}_fold{fold}.csv')
    words = _passed_on(setting, 'device', 'pbar', 'num_workers')
    return Step(('test_demo.py', '--trained_model_file', str(run.checkpoint), '--img', setting.predict, '--csv',
                 str(table), '--columns', 'challenge', *words), table)


def ensemble(tables: Sequence[Step]) -> Step:
    """Return the command that puts the challenge's tables together."""
    final = tables[0].makes.with_name('final.csv')
    return Step(('iqa_scoring/ensemble.py', *(str(step.makes) for step in tables), '--out', str(final)), final)


def _passed_on(setting: Setting, *names: str) -> tuple[str, ...]:
    words = []
    for name in names:
        value = setting.given.get(name)
        if isinstance(value, bool):
            words.append(f'--{name}' if value else f'--no-{name}')
        elif value is not None:
            words += [f'--{name}', str(value)]
    return tuple(words)


# The table

def of_models(setting: Setting, runs: dict[tuple[int, int], Step]) -> list[Row]:
    """Return the agreement of each network on the images of its validation fold."""
    return [setting.row(f'{size}, fold {fold}, validation', metric, None, run)
            for (size, fold), run in runs.items() for metric in METRICS]


def out_of_fold(runs: dict[tuple[int, int], Step]) -> list[Row]:
    """Return the gain by sizes and outlier rule, on all images, each predicted by networks that have not seen it."""
    if not all(run.makes.exists() for run in runs.values()):
        return []
    sizes = dict.fromkeys(size for size, _ in runs)
    joined = {size: _joined([run for (of, _), run in runs.items() if of == size]) for size in sizes}
    names, mos, _ = joined[next(iter(sizes))]
    columns = [values[[found.index(name) for name in names]] for found, _, values in joined.values()]
    return rows('out of fold', [('one size', columns), *_together(names, columns)], mos)


def held_out(tests: dict[tuple[int, int], Step]) -> list[Row]:
    """Return the gain by folds, sizes and the outlier rule, on images that no network was trained on."""
    if not tests or not all(step.makes.exists() for step in tests.values()):
        return []
    found = {key: read_predictions(step.makes.with_suffix('.csv')) for key, step in tests.items()}
    first = next(iter(found.values()))
    columns = {key: one.pq for key, one in found.items()}
    of_sizes = [np.mean([values for (of, _), values in columns.items() if of == size], 0)
                for size in dict.fromkeys(size for size, _ in tests)]
    levels = [('one network', list(columns.values())), ('folds averaged', of_sizes),
              *_together(first.names, list(columns.values()))]
    return rows('held out', levels, first.mos)


def _joined(runs: Sequence[Step]) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Return names, MOS and predictions of the validation images of all folds."""
    parts = [read_predictions(run.makes.with_suffix('.csv')) for run in runs]
    names = [name for part in parts for name in part.names]
    if len(set(names)) < len(names):
        raise UserError('an image is in the validation part of two folds: the runs are of different data')
    return names, np.concatenate([part.mos for part in parts]), np.concatenate([part.pq for part in parts])


def _together(names: Sequence[str], columns: Sequence[np.ndarray]) -> list[Level]:
    """Return the last two levels: the mean of all predictions of each image, and that without outliers."""
    all_of_them = Predictions(list(names), [], np.stack(columns, 1))
    return [('sizes averaged', [all_of_them.combined('mean')]), ('without outliers', [all_of_them.combined('iqr')])]


def rows(label: str, levels: Sequence[Level], mos: np.ndarray) -> list[Row]:
    """Return the value of each level, and its gain over the level before, with bootstrap intervals over the images."""
    table = []
    for metric in METRICS:
        before = None
        for name, columns in levels:
            value, bounds = measured(mean_of(metric, len(columns)), *columns, mos)
            table.append(Row(f'{label}, {name}', metric, None, value, bounds))
            if before is not None:
                gain, bounds = measured(gain_of(metric, len(before)), *before, *columns, mos)
                table.append(Row(f'{label}, {name}, adds', metric, None, gain, bounds))
            before = columns
    return table


def measured(criterion: Callable[..., np.ndarray], *arrays: np.ndarray) -> tuple[float, tuple[float, float]]:
    """Return a criterion of arrays, (N,) each, and its bootstrap interval."""
    return float(criterion(*arrays, axis=-1)), bootstrap(criterion, *arrays, count=RESAMPLES)


def mean_of(metric: str, count: int) -> Callable[..., np.ndarray]:
    """Return the criterion that is the mean agreement of `count` predictions with MOS, which comes last."""
    def criterion(*arrays: np.ndarray, axis: int = -1) -> np.ndarray:
        *columns, mos = arrays
        return np.mean([CRITERIA[metric](column, mos, axis=axis) for column in columns[:count]], 0)
    return criterion


def gain_of(metric: str, before: int) -> Callable[..., np.ndarray]:
    """Return the criterion that is the mean agreement of all predictions but the first `before`, less that of these."""
    def criterion(*arrays: np.ndarray, axis: int = -1) -> np.ndarray:
        *columns, mos = arrays
        after = mean_of(metric, len(columns) - before)(*columns[before:], mos, axis=axis)
        return after - mean_of(metric, before)(*columns[:before], mos, axis=axis)
    return criterion
