"""Read the curves of the paper's figures, and the colours of the losses."""
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from iqa_runtime.files import check_outputs
from iqa_runtime.options import Options
from iqa_training.curves import Curve, as_curve, best, read_curve
from iqa_training.figures import files
from results_in_the_paper.driver import places
from results_in_the_paper.driver.figure_runs import FigureRun, figure_runs

LOSS_STYLES = {'mae': {'color': '#0072B2', 'linestyle': (0, (4, 1.5))},
               'mse': {'color': '#D55E00', 'linestyle': (0, (1.2, 1.2))},
               'norm-in-norm': {'color': '#000000', 'linestyle': '-'}}
Curves = dict[tuple[str, str], Curve]  # (part, metric) -> curve


def read_run(run: FigureRun, csv_dir: str | Path, part: str, metric: str) -> Curve:
    """Read one curve of a figure's run; if it is missing, the error names the training command."""
    return read_curve(run.path(csv_dir, part, metric), run.command())


def print_best(curves: Mapping[str, Mapping[str, Curve]]) -> None:
    """Print the best value of each curve of {criterion: {label: curve}}."""
    for metric, panel in curves.items():
        print(f'best {metric}: ' + ', '.join(f'{label} {best(curve, metric):.3f}' for label, curve in panel.items()))


def read_figure(figure: str, args: Options) -> dict[tuple, Curves]:
    """Read all curves of a figure: {key of the run: {(part, metric): curve}}.

    From --csv_dir, or else from the first place that has them all: results/csv and runs/, which main.py and
    export_csv.py write, and the csv/ that the authors published.
    """
    runs = figure_runs(figure, {'dataset': args.dataset})
    if args.csv_dir:
        return _from_files(runs, args.csv_dir, files(args.out_dir, figure))
    written, published = places.own('results/csv'), places.published('csv')
    for folders, logs in ((written, None), ((), places.logs_of), (published, None)):
        for folder in folders:
            if all(run.is_in(folder) for run in runs):
                print(f'Curves of {folder}')
                return _from_files(runs, folder, files(args.out_dir, figure))
        found = logs(runs) if logs else None
        if found:
            print('Curves of the logs in runs/')
            return {run.key: _of_scalars(run, found[run.key]) for run in runs}
    lacking = next((run for run in runs if not any(run.is_in(folder) for folder in [*written, *published])), runs[0])
    raise places.missing(f'{lacking.path("", lacking.parts[0], lacking.metrics[0])}, a curve of {figure}, is', [
        *written, *places.own('runs'), *published], lacking.command(), 'csv/', '--csv_dir')


def _from_files(runs: Sequence[FigureRun], folder: str | Path, outputs: Sequence[Path]) -> dict[tuple, Curves]:
    check_outputs({'--out_dir': outputs}, {'--csv_dir': [
        run.path(folder, part, metric) for run in runs for part in run.parts for metric in run.metrics]})
    return {run.key: {(part, metric): read_run(run, folder, part, metric)
                      for part in run.parts for metric in run.metrics} for run in runs}


def _of_scalars(run: FigureRun, scalars: places.Scalars) -> Curves:
    curves = {}
    for part in run.parts:
        for metric in run.metrics:
            rows = np.array(scalars[run.tag(part, metric)], float)
            curves[part, metric] = as_curve(rows[:, 1], rows[:, 2])
    return curves
