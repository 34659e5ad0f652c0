"""Figure 7: predicted quality against MOS for the three losses on KonIQ-10k and CLIVE, with the line of equality.

Read from results/*.csv beside their results/*.json, or from the .npy files of the original package. Those are pickles:
no code in them is run, for they are read by an unpickler that knows numpy's arrays and numbers alone.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_runtime.options import Add, Command, group
from results_in_the_paper import sources


@group('predictions', 'the predictions that are drawn')
def drawn(add: Add) -> None:
    add('--result_dir', metavar='DIR', help='folder of the results (NAME.json and NAME.csv)')
    add('--npy_dir', metavar='DIR', help="folder of the authors' .npy files (default: results, or else npy/)")


FIGURE7 = Command(__doc__, [drawn, sources.figure])

if __name__ == '__main__':
    FIGURE7.begin()  # --help and mistakes end here, before torch and matplotlib are imported

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from iqa_results import figures
from iqa_results.charts import BLUE, DASHED, INK
from iqa_results.read import Predictions, read_predictions
from iqa_runtime.errors import UserError, command
from iqa_studies.cells import Cell
from IQAperformance import CRITERIA

DATA_SETS = ('KonIQ-10k', 'CLIVE')


@figures.styled
def draw(predictions: Mapping[str, Mapping[str, Predictions]]) -> Figure:
    """Draw a row of panels per data set from {data set: {loss as shown: predictions}}."""
    columns = max(map(len, predictions.values()))
    figure = figures.new_figure(figures.PAGE, 2.35 * len(predictions) + .1)
    axes = figure.subplots(len(predictions), columns, squeeze=False)
    for row, (data, models) in zip(axes, predictions.items(), strict=True):
        values = np.concatenate([np.concatenate([model.mos, model.pq]) for model in models.values()])
        margin = .04 * np.ptp(values)
        limits = (values.min() - margin, values.max() + margin)
        for ax, (loss, model) in zip(row, models.items(), strict=False):
            _panel(ax, model, limits)
            ax.set(title=f'{loss}, {data}', xlabel='MOS')
        row[0].set_ylabel('predicted quality')
        for ax in row[len(models):]:
            ax.set_axis_off()
    return figure


def _panel(ax: Axes, model: Predictions, limits: tuple[float, float]) -> None:
    ax.plot(limits, limits, color=INK, linewidth=.7, linestyle=DASHED)
    lines = [f'{name} {CRITERIA[name](model.pq, model.mos):.3f}' for name in ('SROCC', 'PLCC', 'RMSE')]
    # thousands of points: as pixels inside the PDF, so that it stays small and fast to open
    ax.scatter(model.mos, model.pq, s=2.5, color=BLUE, alpha=.35, linewidths=0, rasterized=True,
               label='\n'.join(lines))
    ax.legend(loc='upper left', handlelength=0, handletextpad=0, markerscale=0)
    ax.set(xlim=limits, ylim=limits, aspect='equal')


def _from_npy(npy_dir: str | Path) -> dict[str, dict[str, Predictions]]:
    return {data: {loss: read_predictions(Path(npy_dir) / f'{data}-{loss}.npy') for loss in sources.LOSSES}
            for data in DATA_SETS}


def from_cells(cells: Sequence[Cell]) -> dict[str, dict[str, Predictions]]:
    """Return {data set: {loss: predictions}} of the runs of Figure 7; UserError if a result is not there."""
    found = {}
    for cell in cells:
        for data in (cell.trained_on, *cell.tests):
            result = cell.result(data)
            if result is None:
                raise UserError(f'no result of {cell.setting} on {data}; make it with: {" && ".join(cell.missing())}')
            found.setdefault(data, {})[cell.setting] = read_predictions(result.with_suffix('.csv'))
    return found


def predictions(result_dir: str | None, npy_dir: str | None) -> dict[str, dict[str, Predictions]]:
    """Return the predictions, from the folder that is named, or else from the first place that has them all."""
    if npy_dir:
        return _from_npy(npy_dir)
    cells = sources.planned('figure7', None, sources.results(result_dir))[1].cells
    if result_dir or all(cell.result(data) for cell in cells for data in DATA_SETS):
        return from_cells(cells)
    folders = sources.authors('npy')
    for folder in folders:
        if all((folder / f'{data}-{loss}.npy').is_file() for data in DATA_SETS for loss in sources.LOSSES):
            print(f'Predictions of {folder}')
            return _from_npy(folder)
    commands = ' && '.join(sources.missing_of(sources.planned('figure7')[1])[:2])
    raise sources.missing('the predictions of figure7 are', [*sources.own('results'), *folders], commands, 'npy/',
                          '--npy_dir')


@command
def main(argv: list[str] | None = None) -> None:
    """Read the predictions, draw and save."""
    args = FIGURE7.parse(argv)
    figures.save(draw(predictions(args.result_dir, args.npy_dir)), args.out_dir, 'figure7')


if __name__ == '__main__':
    main()
