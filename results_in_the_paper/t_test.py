"""Is Norm-in-Norm better than MAE and MSE beyond chance? Paired t-tests on PLCC over ten splits of CLIVE, ResNet-18."""
import math
import sys
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path

import numpy as np

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_runtime.errors import UserError, command
from iqa_runtime.options import Add, Command, group
from iqa_runtime.table_formats import render
from iqa_scoring.results import Result
from results_in_the_paper.driver import places
from results_in_the_paper.driver.options import add_format, add_results
from results_in_the_paper.driver.settings import LOSS_NAMES, PAPER, find
from results_in_the_paper.driver.settings import command as training_command

SPLITS = range(10)


def run_options(loss: str, split: int, base: Mapping | None = None) -> dict:
    """Return the options that train one of the 30 runs."""
    return {**PAPER, 'dataset': 'CLIVE', 'architecture': 'resnet18', **(base or {}), 'loss_type': loss, 'exp_id': split}


def read_plcc(results: list[Result], base: Mapping | None = None) -> dict[str, dict[int, float]]:
    """Return {loss: {split: PLCC on the test part}} of the runs that are there and whose PLCC is a number."""
    plcc = {loss: {} for loss in LOSS_NAMES}
    for loss in LOSS_NAMES:
        for split in SPLITS:
            options = run_options(loss, split, base)
            result = find(results, options, options['dataset'])
            value = result.metrics.get('PLCC', math.nan) if result else math.nan
            if math.isfinite(value):
                plcc[loss][split] = value
    return plcc


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
    rows = [[LOSS_NAMES[loss], *(f'{values[split]:.4f}' if split in values else '-' for split in splits),
             *((f'{np.mean(list(values.values())):.4f}', f'{np.std(list(values.values()), ddof=1):.4f}')
               if len(values) > 1 else ('-', '-'))] for loss, values in plcc.items()]
    tests = []
    for b, a in combinations(plcc, 2):
        t, p, n = paired(plcc[a], plcc[b])
        tests.append([f'{LOSS_NAMES[a]} - {LOSS_NAMES[b]}', str(n), f'{t:.3f}', f'{p:.3g}'])
    return '\n'.join([render(['PLCC', *map(str, splits), 'mean', 'std'], rows, style),
                      render(['losses', 'splits', 't', 'p (two-sided)'], tests, style)])


@group('tests', 'the results that are compared')
def compared(add: Add) -> None:
    add_results(add)
    add_format(add)


T_TEST = Command(__doc__, [compared])


@command
def main(argv: list[str] | None = None) -> None:
    """Read the results of the 30 runs, print values and tests, and the commands of those that are missing."""
    args = T_TEST.parse(argv)
    results = places.results(args.result_dir)
    plcc = read_plcc(results)
    missing = [training_command(run_options(loss, split)) for loss in LOSS_NAMES for split in SPLITS
               if split not in plcc[loss]]
    if not any(plcc.values()):
        looked_in = args.result_dir or places.named('results')
        raise UserError(f'{looked_in}: none of the 30 runs is there; the first is made by: {missing[0]}')
    print(draw(plcc, args.format))
    if missing:
        print('Runs that are missing, or whose PLCC is not a number:', *missing, sep='\n  ')
    print("The paper's values are not known to us.")


if __name__ == '__main__':
    main()
