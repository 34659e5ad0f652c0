"""Figure 7: predicted quality against MOS for the three losses on KonIQ-10k and CLIVE, with the line of equality.

Read from results/*.csv beside their results/*.json, or with --npy_dir from the .npy files of the original package.
"""
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_runtime.errors import UserError, command
from IQAperformance import CRITERIA
from results_in_the_paper.driver import plotting
from results_in_the_paper.driver.cells import cells
from results_in_the_paper.driver.results import Predictions, Result, find, read_predictions, read_results
from results_in_the_paper.driver.settings import LOSSES

DATA_SETS = ('KonIQ-10k', 'CLIVE')


@plotting.styled
def draw(predictions: Mapping[str, Mapping[str, Predictions]]) -> Figure:
    """Draw a row of panels per data set from {data set: {loss as shown: predictions}}."""
    columns = max(map(len, predictions.values()))
    figure = plotting.new_figure(plotting.PAGE, 2.35 * len(predictions) + .1)
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
    ax.plot(limits, limits, color='black', linewidth=.7, linestyle=(0, (4, 2)))
    lines = [f'{name} {CRITERIA[name](model.pq, model.mos):.3f}' for name in ('SROCC', 'PLCC', 'RMSE')]
    # thousands of points: as pixels inside the PDF, so that it stays small and fast to open
    ax.scatter(model.mos, model.pq, s=2.5, color='#0072B2', alpha=.35, linewidths=0, rasterized=True,
               label='\n'.join(lines))
    ax.legend(loc='upper left', handlelength=0, handletextpad=0, markerscale=0)
    ax.set(xlim=limits, ylim=limits, aspect='equal')


def _from_npy(npy_dir: str) -> dict[str, dict[str, Predictions]]:
    return {data: {loss: read_predictions(Path(npy_dir) / f'{data}-{loss}.npy') for loss in LOSSES.values()}
            for data in DATA_SETS}


def from_results(results: list[Result], base: Mapping | None = None) -> dict[str, dict[str, Predictions]]:
    """Return {data set: {loss: predictions}} of the runs of Figure 7; UserError where one is not there."""
    predictions = {}
    for cell in cells('figure7', base):
        data, loss = cell.labels
        result = find(results, cell.options, cell.tested)
        if result is None:
            raise UserError(f'no result of {loss} on {data}; this makes it: {" && ".join(cell.commands())}')
        predictions.setdefault(data, {})[loss] = read_predictions(result.path.with_suffix('.csv'))
    return predictions


@command
def main(argv: list[str] | None = None) -> None:
    """Read the predictions, draw and save."""
    parser = plotting.parser(__doc__.splitlines()[0])
    parser.add_argument('--result_dir', default='results', help='folder of the results (NAME.json and NAME.csv)')
    parser.add_argument('--npy_dir', help='folder of the .npy files of the original package, instead')
    args = parser.parse_args(argv)
    predictions = _from_npy(args.npy_dir) if args.npy_dir else from_results(read_results(args.result_dir))
    plotting.save(draw(predictions), args.out_dir, 'figure7')


if __name__ == '__main__':
    main()
