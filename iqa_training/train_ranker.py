"""Train the ranker of --loss_type macs: a network that computes ranks of numbers, which then have a gradient.

    python iqa_training/train_ranker.py                                        -> checkpoints/asna_ranker.pth
    python iqa_training/train_ranker.py --rows 240000 -e 1 -bs 256             750 steps: minutes on a CPU
    python iqa_training/train_ranker.py --ranker_size 32 --ranker ranker32.pth for batches of 32

The defaults are those of the published ranker of ASNA. At the end, Spearman's correlation computed through the ranker
is compared with the true one, in a table on the screen and in RESULT_DIR, with a figure beside it.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path[0] = str(Path(__file__).resolve().parents[1])

from iqa_runtime.errors import command
from iqa_runtime.option_types import count, number, positive
from iqa_runtime.options import Command, group, machine_folders

SIZE = number(int, 2, 1024)


@group('ranker', 'the ranker and its training')
def ranker(add) -> None:
    add('--ranker', metavar='FILE', help='file of the ranker (default: CHECKPOINT_DIR/asna_ranker.pth)')
    add('--ranker_size', type=SIZE, default=16, help='numbers ranked at once; a batch is cut into groups of this size')
    add('--rows', type=number(int, 10, 10 ** 8), default=2_000_000,
        help='sets of numbers, half of them normal, half uniform; a fifth is for validation')
    add('-e', '--epochs', type=count, default=100, help='epochs')
    add('-bs', '--batch_size', type=count, default=1024, help='sets of numbers in a batch')
    add('-lr', '--learning_rate', type=positive, default=1e-3, help='learning rate')
    add('--decay_every', type=count, default=30, help='epochs between decays of the learning rate to a tenth')
    add('--seed', type=number(int, 0, 2 ** 32 - 1), default=42, help='seed of the numbers, the weights and the order')
    add('--resume', action='store_true', help='resume a stopped training from its state, if any')


TRAIN_RANKER = Command(__doc__, [ranker, machine_folders])

if __name__ == '__main__':
    TRAIN_RANKER.begin()  # --help and mistakes end here, before torch is imported

import numpy as np

from iqa_networks.ranker import load_ranker
from iqa_results.charts import Scatter, png
from iqa_runtime.distributed import device_of
from iqa_runtime.files import check_outputs, locked, replacing, write_text
from iqa_runtime.process import signals_wait
from iqa_training.ranking import NAME, RankerPlan, Training, correlations

COLUMNS = ('pairs of sets', 'mean error', 'correlation')


@command
def main(argv: list[str] | None = None) -> dict[str, tuple[float, float]]:
    """Train the ranker and test it; return the rows of the table: pairs of sets -> mean error, correlation."""
    args = TRAIN_RANKER.parse(argv)
    file, device = Path(args.ranker or Path(args.checkpoint_dir, f'{NAME}.pth')), device_of(args.device)
    plan = RankerPlan(args.ranker_size, args.rows, args.epochs, args.batch_size, args.learning_rate, args.decay_every,
                      args.seed)
    name = file.name.removesuffix('.pth')
    results, figure = (Path(args.result_dir, f'{name}.{kind}') for kind in ('csv', 'png'))
    check_outputs({'--ranker' if args.ranker else '--checkpoint_dir': file, '--result_dir': [results, figure]})
    with locked(f'{file}.lock'), signals_wait('Stopping after this step') as stop:
        training = Training(plan, file, device)
        if args.resume:
            training.resume()
        training.run(stop, args.pbar)
    print(f'Mean absolute error of the validation ranks: {min(training.errors):.3f}, of epoch '
          f'{int(np.argmin(training.errors)) + 1} of {plan.epochs}\nRanker: {file}')
    found = correlations(load_ranker(file).to(device))
    rows = {name: (float(np.abs(true - surrogate).mean()), float(np.corrcoef(true, surrogate)[0, 1]))
            for name, (true, surrogate) in found.items()}
    print(table(rows), end='')
    write_text(results, csv(rows))
    draw(found, figure)
    print(f'Table and figure: {results}, {figure}')
    return rows


def table(rows: dict[str, tuple[float, float]]) -> str:
    """Return the rows as text: the mean error of the surrogate correlation, and its correlation with Spearman's."""
    lines = [f'{COLUMNS[0]:28}{COLUMNS[1]:>12}{COLUMNS[2]:>14}']
    lines += [f'{name:28}{error:12.4f}{correlation:14.4f}' for name, (error, correlation) in rows.items()]
    return '\n'.join(lines) + '\n'


def csv(rows: dict[str, tuple[float, float]]) -> str:
    """Return the rows as a CSV file."""
    lines = [','.join(COLUMNS), *(f'"{name}",{error!r},{correlation!r}' for name, (error, correlation) in rows.items())]
    return '\n'.join(lines) + '\n'


def draw(found: dict[str, tuple[np.ndarray, np.ndarray]], file: Path) -> None:
    """Draw the surrogate correlations over the true ones."""
    plots = [Scatter(true, surrogate, name, "Spearman's correlation", 'through the ranker')
             for name, (true, surrogate) in found.items()]
    with replacing(file) as temporary:
        temporary.write_bytes(png(plots, 4, 4.2))


if __name__ == '__main__':
    main()
