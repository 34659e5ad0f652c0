"""Draw figures: their style and colours, reading a curve, drawing curves, saving as PDF and PNG, the options.

Figures are drawn at the size they have on the page: COLUMN or PAGE inches wide, so that 7 points stay 7 points.
"""
import argparse
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from iqa_data.images import opened
from iqa_runtime.errors import UserError
from iqa_runtime.files import check_outputs, replacing
from iqa_runtime.tables import Table
from results_in_the_paper.driver import places
from results_in_the_paper.driver.figure_runs import FigureRun, figure_runs
from results_in_the_paper.driver.settings import PAPER

COLUMN, PAGE = 3.33, 7.0  # inches: a column and the width of the text of the paper's format
STYLE = {
    'font.family': 'sans-serif', 'font.size': 7, 'axes.titlesize': 7.5, 'axes.labelsize': 7, 'legend.fontsize': 6.5,
    'xtick.labelsize': 6.5, 'ytick.labelsize': 6.5, 'axes.linewidth': .6, 'lines.linewidth': 1.1,
    'lines.markersize': 3, 'xtick.major.width': .6, 'ytick.major.width': .6, 'xtick.major.size': 2.5,
    'ytick.major.size': 2.5, 'xtick.direction': 'in', 'ytick.direction': 'in', 'legend.frameon': False,
    'legend.handlelength': 2.2, 'axes.grid': True, 'grid.color': '.9', 'grid.linewidth': .4, 'axes.axisbelow': True,
    'axes.titlepad': 4, 'hatch.linewidth': .5, 'pdf.fonttype': 42, 'ps.fonttype': 42, 'savefig.dpi': 300,
}
styled = matplotlib.rc_context(STYLE)  # decorates the functions that draw

# Colours that colour-blind readers tell apart (Okabe and Ito), with a dash pattern for print in grey.
LOSS_STYLES = {'mae': {'color': '#0072B2', 'linestyle': (0, (4, 1.5))},
               'mse': {'color': '#D55E00', 'linestyle': (0, (1.2, 1.2))},
               'norm-in-norm': {'color': '#000000', 'linestyle': '-'}}
VALUE_STYLES = [{'color': '#0072B2', 'linestyle': '-'}, {'color': '#E69F00', 'linestyle': (0, (4, 1.5))},
                {'color': '#009E73', 'linestyle': (0, (1.2, 1.2))},
                {'color': '#CC79A7', 'linestyle': (0, (4, 1.2, 1, 1.2))}]
# of a correlation's axis: the ones wanted most first
TICKS = (.9, .95, .8, .5, 0, .98, .99, .93, .7, .85, .97, .6, .3, -.3, -.6, -.9, .96, .94, .92, .91, .87, .83)
DIRECTIONS = {'SROCC': 1, 'PLCC': 1, 'RMSE': -1}  # 1: larger is better
HEADER = ['Wall time', 'Step', 'Value']


class Curve(NamedTuple):
    """A criterion over epochs: both (n,), n >= 0, all finite. `diverged`: the value after the last one was not."""

    epochs: np.ndarray
    values: np.ndarray
    diverged: bool = False


Curves = dict[tuple[str, str], Curve]  # (part, metric) -> curve


def read_curve(path: str | Path, command: str = '') -> Curve:
    """Read a curve in TensorBoard's download format (Wall time,Step,Value), up to its first NaN or infinity.

    UserError: no such file (with the `command` that makes it), no rows, other columns, text for a number, or
    epochs that do not increase.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} not found' + (f'; this makes it: {command}' if command else ''))
    table = Table.read(path)
    table.needs(*HEADER)
    if not table.rows:
        raise UserError(f'{path}: a header without rows; a curve needs at least one epoch')
    steps, values = table.numbers('Step'), table.numbers('Value', finite=False)
    falls = np.flatnonzero(np.diff(steps) <= 0)
    if len(falls):
        i = falls[0] + 1
        raise UserError(f'{path} row {table.rows[i]}: step {steps[i]:g} after {steps[i - 1]:g}; steps must increase')
    return as_curve(steps, values)


def as_curve(steps: np.ndarray, values: np.ndarray) -> Curve:
    """Return the curve of values (n,) at increasing epochs (n,), up to the first that is NaN or infinite."""
    bad = ~np.isfinite(values)
    end = int(np.argmax(bad)) if bad.any() else len(values)
    return Curve(steps[:end], values[:end], bool(bad.any()))


def read_run(run: FigureRun, csv_dir: str | Path, part: str, metric: str) -> Curve:
    """Read one curve of a figure's run; if it is missing, the error names the training command."""
    return read_curve(run.path(csv_dir, part, metric), run.command())


def first_reaching(curve: Curve, target: float, metric: str) -> float | None:
    """Return the first epoch at which `curve` is at least as good as `target`, or None."""
    good = (curve.values - target) * DIRECTIONS[metric] >= 0
    return float(curve.epochs[np.argmax(good)]) if good.any() else None


def best(curve: Curve, metric: str) -> float:
    """Return the best value of a curve; nan if it has none."""
    return float((np.max if DIRECTIONS[metric] > 0 else np.min)(curve.values)) if len(curve.values) else math.nan


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of so many inches that lays itself out; no window, no state shared with others."""
    return Figure(figsize=(width, height), layout='constrained')


def draw_curves(ax: Axes, curves: Mapping[str, Curve], styles: Mapping[str, dict], last: float) -> None:
    """Draw labelled curves over epochs; one that ends before `last` gets a cross where it ends, and a word why."""
    for label, curve in curves.items():
        line, = ax.plot(curve.epochs, curve.values, label=label, **styles[label])
        colour = line.get_color()
        if not len(curve.epochs):
            ax.annotate(f'{label} diverged at once', (.97, .03), xycoords='axes fraction', ha='right', color=colour)
        elif curve.diverged or curve.epochs[-1] < last:
            ax.plot(curve.epochs[-1], curve.values[-1], 'x', color=colour, markersize=4.5, markeredgewidth=1.2)
            ax.annotate('diverged' if curve.diverged else 'stopped', (curve.epochs[-1], curve.values[-1]), color=colour,
                        xytext=(5, -2), textcoords='offset points')
        elif len(curve.epochs) == 1:
            ax.plot(curve.epochs, curve.values, 'o', color=colour)
    ax.set_xlim(*((0, last) if last > 1 else (0, 2)))
    ax.xaxis.get_major_locator().set_params(integer=True)


def _fisher_z(r: np.ndarray) -> np.ndarray:
    return np.arctanh(np.clip(r, -.9999, .9999))


def spread_correlations(axes: Sequence[Axes]) -> None:
    """Scale the y axis of panels alike by Fisher's z, so that .90 and .93 do not fall together beside .30."""
    data = [line.get_ydata() for ax in axes for line in ax.lines if line.get_transform() == ax.transData]
    z = _fisher_z(np.concatenate([*map(np.asarray, data), [.8, .9]]).astype(float))
    margin = .08 * np.ptp(z)
    low, high = z.min() - margin, z.max() + margin
    ticks = []
    for tick in TICKS:
        place = _fisher_z(tick)
        if low <= place <= high and all(abs(place - _fisher_z(other)) > (high - low) / 11 for other in ticks):
            ticks.append(tick)
    for ax in axes:
        ax.set_yscale('function', functions=(_fisher_z, np.tanh))
        ax.set_yticks(ticks)
        ax.yaxis.set_major_formatter('{x:g}')
        ax.minorticks_off()
        ax.set_ylim(np.tanh(low), np.tanh(high))


def last_epoch(*groups: Mapping[str, Curve]) -> float:
    """Return the last epoch of the longest curve."""
    return max((curve.epochs[-1] for curves in groups for curve in curves.values() if len(curve.epochs)), default=1)


@styled
def draw_panels(panels: Mapping[str, Mapping[str, Curve]], styles: Mapping[str, dict], width: float, height: float,
                share: bool = False) -> Figure:
    """Draw a row of panels of correlations over epochs from {title: {label: curve}}, with one legend above them.

    `share`: one y axis for all panels.
    """
    figure = new_figure(width, height)
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=share)[0]
    last = last_epoch(*panels.values())
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        draw_curves(ax, curves, styles, last)
        ax.set(title=title, xlabel='epoch')
    for group in ([axes] if share else [[ax] for ax in axes]):
        spread_correlations(group)
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside upper center', ncols=len(styles))
    return figure


def files(out_dir: str | Path, *names: str) -> list[Path]:
    """Return the files that figures of these names are written to."""
    return [Path(out_dir, f'{name}.{kind}') for name in names for kind in ('pdf', 'png')]


@styled
def save(figure: Figure, out_dir: str | Path, name: str) -> list[Path]:
    """Write `figure` as NAME.pdf (TrueType fonts) and NAME.png into `out_dir`; return and print the two paths."""
    paths = files(out_dir, name)
    figure.draw_without_rendering()  # lays the figure out, once for both files
    figure.set_layout_engine('none')
    for path in paths:
        # a fixed date, so that the same data give the same file
        metadata = {'CreationDate': None} if path.suffix == '.pdf' else {}
        with replacing(path) as temporary:
            figure.savefig(temporary, format=path.suffix[1:], metadata=metadata)
            if path.suffix == '.png':  # 128 colours draw the same, in a third of the bytes
                with opened(temporary) as image:
                    small = image.convert('RGB').quantize(128, dither=Image.Dither.NONE)
                small.save(temporary, format='png', optimize=True, dpi=image.info.get('dpi'))
        print(path)
    return paths


def print_best(curves: Mapping[str, Mapping[str, Curve]]) -> None:
    """Print the best value of each curve of {criterion: {label: curve}}."""
    for metric, panel in curves.items():
        print(f'best {metric}: ' + ', '.join(f'{label} {best(curve, metric):.3f}' for label, curve in panel.items()))


def parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options that every figure has."""
    result = argparse.ArgumentParser(description=description, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    result.add_argument('--out_dir', default=places.out_dir(), help='folder for the PDF and the PNG')
    return result


def curve_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser for the figures that are drawn from curves."""
    result = parser(description)
    result.add_argument('--csv_dir', help='folder of the curves as CSV files, that of export_csv.py or of the authors '
                                          '(default: where they are: results/csv, runs/, csv/)')
    result.add_argument('--dataset', default=PAPER['dataset'], help='data set of the runs')
    return result


def read_figure(figure: str, args: argparse.Namespace) -> dict[tuple, Curves]:
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
