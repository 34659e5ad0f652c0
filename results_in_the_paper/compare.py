"""Compare models by their predictions: SROCC, PLCC, KROCC, RMSE, outlier ratio with 95 % bootstrap intervals.

    python results_in_the_paper/compare.py results/A.csv results/B.csv          files of predictions on the same images
    python results_in_the_paper/compare.py A.csv B.csv --format latex --out comparison.tex

Each model is judged as saved, after a linear refit, and after logistic mappings with 4 and 5 parameters; each pair of
models by the paired bootstrap of the difference, and by Williams' and Steiger's tests for correlations that share the
MOS. A mapping is fitted once, on all images, and kept in the resamples: the intervals are over images, not over fits.
For SROCC the two tests are an approximation, as they suppose normally distributed scores.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_runtime.option_types import choice, number
from iqa_runtime.options import Add, Command, group
from results_in_the_paper.sources import add_format

HEADS = 'iqa_results.read:HEADS'


@group('comparison', 'the models, and how they are compared')
def comparison(add: Add) -> None:
    add('files', nargs='+', metavar='FILE', help='predictions: results/NAME.csv, or an .npy file of the original')
    add('--names', nargs='+', metavar='NAME', help='a name for each file')
    add('--head', type=choice(HEADS, 'head'), default='pq', help='pq: final score; pq1: level 6; pq2: level 7')
    add('--resamples', type=number(int, 100, 10 ** 7), default=2000, help='bootstrap resamples')
    add('--seed', type=number(int, 0, 2 ** 32 - 1), default=0, help='seed of the bootstrap')
    add_format(add)
    add('--out', metavar='FILE', help='file to write (default: the screen)')


COMPARE = Command(__doc__, [comparison])

if __name__ == '__main__':
    COMPARE.begin()  # --help and mistakes end here, before scipy and torch are imported

from collections.abc import Callable, Mapping, Sequence
from itertools import combinations

import numpy as np
from scipy.stats import rankdata

from iqa_results import statistics as st
from iqa_results.read import Predictions, read_predictions
from iqa_results.table_formats import render
from iqa_runtime.errors import UserError, command
from iqa_runtime.files import check_outputs, write_text
from iqa_runtime.names import without_suffix
from IQAperformance import CRITERIA, interval

OUTLIERS = 'outlier ratio'
BY_RANK = ('SROCC', 'KROCC')
Estimate = tuple[float, float, float]  # value, lower and upper end of its interval


def estimates(predictions: Predictions, count: int, seed: int = 0) -> dict[str, dict[str, Estimate] | str]:
    """Return {mapping: {criterion: (value, low, high)}}, or {mapping: why it could not be fitted}.

    `count`, `seed`: see IQAperformance.interval. The outlier ratio is left out if the std cannot be held against MOS.
    """
    x, y = predictions.pq, predictions.mos
    table, ranked = {}, {}
    for mapping in st.REGRESSIONS:
        try:
            z = st.mapped(mapping, x, y)
        except st.NoFitError as error:
            table[mapping] = str(error)
            continue
        ranks = rankdata(z).tobytes()  # a mapping that keeps the order keeps the rank correlations
        if ranks not in ranked:
            ranked[ranks] = {name: _estimate(CRITERIA[name], z, y, count=count, seed=seed) for name in BY_RANK}
        table[mapping] = {name: ranked[ranks].get(name) or _estimate(criterion, z, y, count=count, seed=seed)
                          for name, criterion in CRITERIA.items()}
        if not st.std_problem(y, predictions.std):
            table[mapping][OUTLIERS] = _estimate(st.outlier_ratio, z, y, predictions.std, count=count, seed=seed)
    return table


def _estimate(criterion: Callable, *arrays: np.ndarray, **bootstrap: int) -> Estimate:
    return float(criterion(*arrays)), *interval(criterion, *arrays, **bootstrap)


def difference(a: Predictions, b: Predictions, count: int, seed: int = 0) -> dict[str, dict]:
    """Return {criterion: {'difference': (a - b, low, high), 'williams': (t, p), 'steiger': (z, p)}} of two models.

    The tests are for SROCC and PLCC alone. The predictions must be of the same images in the same order.
    """
    table = {}
    for name, criterion in CRITERIA.items():
        def less(x: np.ndarray, z: np.ndarray, y: np.ndarray, axis: int = -1, criterion=criterion) -> np.ndarray:
            return criterion(x, y, axis) - criterion(z, y, axis)
        table[name] = {'difference': _estimate(less, a.pq, b.pq, a.mos, count=count, seed=seed)}
        if name in ('SROCC', 'PLCC'):
            table[name] |= st.dependent(criterion, a.pq, b.pq, a.mos)
    return table


def aligned(models: Mapping[str, Predictions]) -> dict[str, Predictions]:
    """Bring all models to the images and the order of the first; UserError if they are not of the same images.

    Files without names (.npy) are compared in their order; MOS that differ tell that it is not the same.
    """
    first_label, first = next(iter(models.items()))
    result = {}
    for label, model in models.items():
        if len(model.mos) != len(first.mos):
            raise UserError(f'{label} has {len(model.mos)} images, {first_label} has {len(first.mos)}; '
                            f'expected the same images')
        if model.names and first.names and model.names != first.names:
            place = {name: i for i, name in enumerate(model.names)}
            missing = [name for name in first.names if name not in place]
            if missing:
                raise UserError(f'{label} lacks {missing[0]!r} of {first_label} ({len(missing)} images in all)')
            order = [place[name] for name in first.names]
            model = Predictions(first.names, model.mos[order], model.std[order], model.pq[order])
        other = np.abs(model.mos - first.mos) > 1e-3 * (np.ptp(first.mos) or 1)
        if other.any():
            row = int(np.argmax(other))
            raise UserError(f'{label} and {first_label} differ in the MOS of image {row + 1} ({model.mos[row]:g}, '
                            f'{first.mos[row]:g}); expected the same images in the same order')
        result[label] = model
    return result


def _show(estimate: Estimate, digits: int = 4) -> str:
    value, low, high = estimate
    return f'{value:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]'


def model_rows(label: str, table: Mapping[str, dict | str], outliers: bool) -> list[list[str]]:
    """Return the rows of one model: label, mapping, then the criteria or why there are none."""
    names = [*CRITERIA, *([OUTLIERS] if outliers else [])]
    return [[label, mapping, *([values] + ['-'] * (len(names) - 1) if isinstance(values, str) else
                               [_show(values[name], 3 if name == 'RMSE' else 4) for name in names])]
            for mapping, values in table.items()]


def pair_rows(label: str, table: Mapping[str, dict]) -> list[list[str]]:
    """Return the rows of one pair: label, criterion, difference, Williams' t and p, Steiger's Z and p."""
    return [[label, name, _show(values['difference']),
             *(f'{x:.4g}' for test in ('williams', 'steiger') for x in values[test])] if 'williams' in values else
            [label, name, _show(values['difference']), '-', '-', '-', '-'] for name, values in table.items()]


def report(models: Mapping[str, Predictions], resamples: int = 2000, seed: int = 0, style: str = 'text') -> str:
    """Return the tables of all models and of all pairs of models in one of the formats."""
    models = aligned(models)
    first = next(iter(models.values()))
    problem = st.std_problem(first.mos, first.std)
    header = ['model', 'mapping', *CRITERIA, *([] if problem else [OUTLIERS])]
    rows = [row for label, model in models.items() for row in model_rows(label, estimates(model, resamples, seed),
                                                                          not problem)]
    parts = [render(header, rows, style)]
    if len(models) > 1:
        pairs = [row for (label_a, a), (label_b, b) in combinations(models.items(), 2)
                 for row in pair_rows(f'{label_a} - {label_b}', difference(a, b, resamples, seed))]
        header = ['models', 'criterion', 'difference', "Williams' t", 'p', "Steiger's Z", 'p']
        parts.append(render(header, pairs, style))
    if problem and style != 'csv':
        parts.append(f'No outlier ratio: {problem}.\n')
    return '\n'.join(parts)


def _labels(paths: Sequence[str], names: Sequence[str] | None) -> list[str]:
    labels = list(names or [without_suffix(Path(path).name, ('.csv', '.npy')) for path in paths])
    if len(labels) != len(paths):
        raise UserError(f'--names: {len(labels)} names for {len(paths)} files')
    if len(set(labels)) < len(labels):
        labels = list(paths) if len(set(paths)) == len(paths) else [f'{i}' for i in range(1, len(paths) + 1)]
    return labels


@command
def main(argv: list[str] | None = None) -> None:
    """Read the predictions, print the tables or write them to a file."""
    args = COMPARE.parse(argv)
    check_outputs({'--out': args.out}, {'files': args.files})
    models = {label: read_predictions(path, args.head)
              for label, path in zip(_labels(args.files, args.names), args.files, strict=True)}
    text = report(models, args.resamples, args.seed, args.format)
    if args.out:
        write_text(args.out, text)
    else:
        print(text, end='')


if __name__ == '__main__':
    main()
