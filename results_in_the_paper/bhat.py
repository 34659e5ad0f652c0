"""Figures A1 and A2: b-hat, the norm of the centred predictions in a batch, per iteration and averaged per epoch.

Read from the bhat.csv of a run with --log_bhat (iteration,epoch,bhat,bhat1,bhat2), or from a log of the original.

The original prints one `bhat = ...` line per head and iteration, without saying which, and a line with `@epoch: n`
after each epoch. There are three heads: only 3 lines an iteration make of the 2649 lines of an epoch the 883 batches
of 8 that 7058 training images give, and the last 3 lines of an epoch, a batch of 2 images, are half the usual norm.
The final score is first: its loss has ten times the weight of the others, and the first of the three positions grows
by far the largest (6.5 against 2.5 and 3.3 in the end), as in the original's recorded predictions the final score
spreads 2.4 times as wide as those of levels 6 and 7. It is also the order in which losses are summed and criteria
named: final, level 6, level 7. That the second position is level 6 rests on this order alone; the log cannot show it.
"""
import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import iqa_runtime  # noqa: F401 (it names missing packages)

import numpy as np
from matplotlib.figure import Figure

from iqa_results import figures
from iqa_results.charts import BLUE, DASHED, DOTTED, INK, SOLID, VERMILION
from iqa_runtime.errors import UserError, command
from iqa_runtime.files import check_outputs
from iqa_runtime.options import Add, Command, group
from iqa_runtime.tables import Table
from results_in_the_paper import sources

HEADS = {'bhat': 'final score', 'bhat1': 'level 6', 'bhat2': 'level 7'}
STYLES = {'bhat': {'color': INK, 'linestyle': SOLID}, 'bhat1': {'color': BLUE, 'linestyle': DASHED},
          'bhat2': {'color': VERMILION, 'linestyle': DOTTED}}
LINE = re.compile(r'bhat = (\S+)')
EPOCH_END = re.compile(r'@epoch: (\d+)')


class BhatLog(NamedTuple):
    """b-hat of each head, {column: (iterations,)}, and the epoch of each iteration, (iterations,), from 1."""

    heads: dict[str, np.ndarray]
    epochs: np.ndarray

    def means(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Return the epochs, and the average of each head over each epoch."""
        epochs, group = np.unique(self.epochs, return_inverse=True)
        counts = np.bincount(group)
        return epochs, {head: np.bincount(group, values) / counts for head, values in self.heads.items()}


def read_log(path: str | Path) -> BhatLog:
    """Read bhat.csv or a log of the original; UserError if there is no b-hat in it or the lines do not fit."""
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} not found; make it with: python main.py --resize --log_bhat')
    return _read_csv(path) if path.suffix.lower() == '.csv' else _read_original(path)


def find_log() -> Path:
    """Return the latest bhat.csv of a run, or else the authors' bhat.log; UserError if there is neither."""
    logs = sources.authors('bhat.log')
    found = sources.newest('bhat.csv') or next((path for path in logs if path.is_file()), None)
    if found is None:
        raise sources.missing('bhat.csv of a run is', [*sources.own('runs'), *logs],
                              'python main.py --resize --log_bhat', 'bhat.log', 'python bhat.py FILE')
    print(f'b-hat of {found}')
    return found


def _read_csv(path: Path) -> BhatLog:
    table = Table.read(path)
    table.needs('epoch', *HEADS)
    if not table.rows:
        raise UserError(f'{path}: no iterations in it')
    return BhatLog({head: table.numbers(head, finite=False) for head in HEADS}, table.numbers('epoch'))


def _read_original(path: Path) -> BhatLog:
    values, ends = [], []  # ends: (number of values so far, epoch)
    with open(path, encoding='utf-8', errors='replace') as file:
        for number, line in enumerate(file, 1):
            if match := LINE.search(line):
                try:
                    values.append(float(match[1]))
                except ValueError:
                    raise UserError(f'{path}, line {number}: expected a number, found {match[1]!r}') from None
            elif match := EPOCH_END.search(line):
                ends.append((len(values), int(match[1])))
    if not values or not ends:
        raise UserError(f'{path}: expected lines with `bhat = ...` and, after each epoch, one with `@epoch: ...`')
    sizes = np.diff([0, *(end for end, _ in ends)])
    if np.any(sizes % len(HEADS)) or not sizes.all():
        epoch, size = next((epoch, size) for (_, epoch), size in zip(ends, sizes, strict=True)
                           if size % len(HEADS) or not size)
        raise UserError(f'{path}: {size} b-hat in epoch {epoch}; expected {len(HEADS)} for each iteration')
    table = np.reshape(values[:ends[-1][0]], (-1, len(HEADS)))  # an unfinished last epoch is left out
    epochs = np.repeat([epoch for _, epoch in ends], sizes // len(HEADS))
    return BhatLog(dict(zip(HEADS, table.T, strict=True)), epochs.astype(float))


@figures.styled
def draw_iterations(log: BhatLog) -> Figure:
    """Draw Figure A1: b-hat per iteration, a panel per head."""
    figure = figures.new_figure(figures.PAGE, 1.9)
    axes = figure.subplots(1, len(HEADS))
    for ax, (head, name) in zip(axes, HEADS.items(), strict=True):
        values = log.heads[head]
        ax.plot(np.arange(1, len(values) + 1) / 1000, values, color=STYLES[head]['color'], linewidth=.3,
                rasterized=True)
        ax.set(title=name, xlabel='thousand iterations', xlim=(0, len(values) / 1000), ylim=(0, None))
    axes[0].set_ylabel(r'$\hat{b}$')
    return figure


@figures.styled
def draw_epochs(epochs: np.ndarray, means: Mapping[str, np.ndarray]) -> Figure:
    """Draw Figure A2: b-hat averaged over each epoch, the three heads in one panel."""
    figure = figures.new_figure(figures.COLUMN, 2.0)
    ax = figure.subplots()
    for head, name in HEADS.items():
        ax.plot(epochs, means[head], label=name, marker='' if len(epochs) > 1 else 'o', **STYLES[head])
    ax.set(xlabel='epoch', ylabel=r'average $\hat{b}$', xlim=(0, max(epochs[-1], 2)), ylim=(0, None))
    ax.xaxis.get_major_locator().set_params(integer=True)
    figure.legend(*ax.get_legend_handles_labels(), loc='outside upper center', ncols=len(HEADS))
    return figure


@group('log', 'the log that is read')
def logged(add: Add) -> None:
    add('log', nargs='?', metavar='LOG', help='bhat.csv of a run, or a log of the original package (default: the '
                                              'latest runs/*/bhat.csv, or else bhat.log)')


BHAT = Command(__doc__, [logged, sources.figure])


@command
def main(argv: list[str] | None = None) -> None:
    """Read the log, draw, save, and print its summary."""
    args = BHAT.parse(argv)
    path = args.log or find_log()
    check_outputs({'--out_dir': figures.files(args.out_dir, 'figureA1', 'figureA2')}, {'log': path})
    log = read_log(path)
    epochs, means = log.means()
    figures.save(draw_iterations(log), args.out_dir, 'figureA1')
    figures.save(draw_epochs(epochs, means), args.out_dir, 'figureA2')
    sizes = sorted(set(np.unique(log.epochs, return_counts=True)[1].tolist()))
    print(f'{len(log.epochs)} iterations, {len(epochs)} epochs of {" or ".join(map(str, sizes))}')
    print('Average in the last epoch: ' + ', '.join(f'{name} {means[head][-1]:.3f}' for head, name in HEADS.items()))


if __name__ == '__main__':
    main()
