"""Is Norm-in-Norm better than MAE and MSE beyond chance? Paired t-tests on PLCC over ten splits of CLIVE, ResNet-18."""
import math
import sys
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import iqa_runtime  # noqa: F401 (it names missing packages)

import numpy as np

from iqa_results.read import metrics_of
from iqa_results.table_formats import render
from iqa_runtime.errors import UserError, command
from iqa_runtime.options import Add, Command, group
from iqa_studies.cells import Cell
from results_in_the_paper import sources

SPLITS = 10


def plcc_of(cells: Sequence[Cell]) -> dict[str, dict[int, float]]:
    """Return {loss: {split: PLCC on the test part}} of the runs that are there and whose PLCC is a number."""
    found = {loss: {} for loss in sources.LOSSES}
    for cell in cells:
        value = metrics_of(cell.result()).get('PLCC', math.nan) if cell.result() else math.nan
        if math.isfinite(value):
            found[cell.setting][int(cell.split)] = value
    return found


def paired(a: Mapping[int, float], b: Mapping[int, float]) -> tuple[float, float, int]:
    """Return t, its two-sided p, and the number of splits of a paired t-test between two losses' {split: PLCC}.

    Only splits that both have count; t and p are nan for fewer than two of them. A difference that is the same in
    all splits gives an infinite t (nan if it is zero).
    """
    splits = sorted(set(a) & set(b))
    x, y = (np.array([values[split] for split in splits], float) for values in (a, b))
    if len(splits) < 2:
        return math.nan, math.nan, len(splits)
    if np.ptp(x - y) == 0:
        same = x[0] == y[0]
        return (math.nan if same else math.copysign(math.inf, x[0] - y[0])), (math.nan if same else 0.), len(splits)
    from scipy import stats  # slow to import
    t, p = stats.ttest_rel(x, y)
    return float(t), float(p), len(splits)


def draw(plcc: Mapping[str, Mapping[int, float]], style: str = 'text') -> str:
    """Return the two tables, values and tests, from {loss: {split: PLCC}}."""
    splits = sorted({split for values in plcc.values() for split in values})
    rows = [[loss, *(f'{values[split]:.4f}' if split in values else '-' for split in splits),
             *((f'{np.mean(list(values.values())):.4f}', f'{np.std(list(values.values()), ddof=1):.4f}')
               if len(values) > 1 else ('-', '-'))] for loss, values in plcc.items()]
    tests = []
    for b, a in combinations(plcc, 2):
        t, p, n = paired(plcc[a], plcc[b])
        tests.append([f'{a} - {b}', str(n), f'{t:.3f}', f'{p:.3g}'])
    return '\n'.join([render(['PLCC', *map(str, splits), 'mean', 'std'], rows, style),
                      render(['losses', 'splits', 't', 'p (two-sided)'], tests, style)])


@group('tests', 'the results that are compared')
def compared(add: Add) -> None:
    sources.add_results(add)
    sources.add_format(add)


T_TEST = Command(__doc__, [compared])


@command
def main(argv: list[str] | None = None) -> None:
    """Read the results of the 30 runs, print values and tests, and the commands of those that are missing."""
    args = T_TEST.parse(argv)
    cells = sources.planned('t-test', None, sources.results(args.result_dir))[1].cells
    plcc = plcc_of(cells)
    missing = [cell.trained_by() for cell in cells if int(cell.split) not in plcc[cell.setting]]
    if not any(plcc.values()):
        looked_in = args.result_dir or sources.named('results')
        raise UserError(f'{looked_in}: no result of the 30 runs; the first is made by: {missing[0]}')
    print(draw(plcc, args.format))
    if missing:
        print('Runs that are missing, or whose PLCC is not a number:', *missing, sep='\n  ')
    print("The paper's values are not known to us.")


if __name__ == '__main__':
    main()
