"""Figure 1: SROCC, PLCC and RMSE on the training, validation and test part over epochs, for three losses.

The dashed line is what Norm-in-Norm reaches in its first epoch, the dots are where the other losses first reach it.
The axes of SROCC and PLCC are spread by Fisher's z, so that the end of training can be read as well as its start.
"""
import sys
from collections.abc import Mapping
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import iqa_runtime  # noqa: F401 (it names missing packages)

from matplotlib.figure import Figure

from iqa_results import figures
from iqa_results.charts import DASHED, GREY
from iqa_results.curves import Curve, direction, first_reaching, last_epoch
from iqa_runtime.errors import command
from iqa_runtime.options import Command
from results_in_the_paper import sources

PART_NAMES = {'train': 'training', 'val': 'validation', 'test': 'test'}
METRICS = ('SROCC', 'PLCC', 'RMSE')
REFERENCE = 'Norm-in-Norm'


def epochs_to_reach(curves: Mapping[str, Curve], metric: str) -> dict[str, float | None]:
    """Return the epoch at which each other loss first reaches the value of Norm-in-Norm's first epoch, or None."""
    if not len(curves[REFERENCE].values):
        return {loss: None for loss in curves if loss != REFERENCE}
    target = curves[REFERENCE].values[0]
    return {loss: first_reaching(curve, target, metric) for loss, curve in curves.items() if loss != REFERENCE}


@figures.styled
def draw(curves: Mapping[str, Mapping[tuple[str, str], Curve]]) -> Figure:
    """Draw the 3 x 3 panels from {loss: {(part, metric): curve}}."""
    figure = figures.new_figure(figures.PAGE, 5.2)
    axes = figure.subplots(len(METRICS), len(PART_NAMES), sharex=True)
    last = last_epoch(*curves.values())
    for i, metric in enumerate(METRICS):
        for j, part in enumerate(PART_NAMES):
            ax = axes[i, j]
            _panel(ax, {loss: curves[loss][part, metric] for loss in curves}, metric, last)
            ax.set(title=f'{PART_NAMES[part]} {metric}', xlabel='epoch' if i == len(METRICS) - 1 else '')
            if direction(metric) > 0:
                figures.spread_correlations([ax])
    for ax, metric in zip(axes[:, 0], METRICS, strict=True):
        ax.set_ylabel(metric)
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc='outside upper center', ncols=len(labels))
    return figure


def _panel(ax, curves: Mapping[str, Curve], metric: str, last: float) -> None:
    figures.draw_curves(ax, curves, sources.LOSS_STYLES, last)
    if len(curves[REFERENCE].values):
        ax.axhline(curves[REFERENCE].values[0], color=GREY, linewidth=.7, linestyle=DASHED,
                   label='Norm-in-Norm after its first epoch')
    reached = {loss: epoch for loss, epoch in epochs_to_reach(curves, metric).items() if epoch is not None}
    for i, (loss, epoch) in enumerate(sorted(reached.items(), key=lambda item: item[1])):
        colour = sources.LOSS_STYLES[loss]['color']
        value = curves[loss].values[curves[loss].epochs == epoch][0]
        ax.plot(epoch, value, 'o', color=colour, markersize=3.5, zorder=5)
        ax.axvline(epoch, color=colour, linewidth=.5, zorder=.9)
        # the earlier epoch's number stands left of its line, the later one's right, where the panel is empty
        height = .03 if direction(metric) > 0 else .9
        ax.annotate(f'{epoch:g}', (epoch, height), xycoords=('data', 'axes fraction'), color=colour,
                    textcoords='offset points', xytext=(6 * i - 3, 0), ha='right' if i == 0 else 'left',
                    bbox={'facecolor': 'white', 'edgecolor': 'none', 'alpha': .8, 'pad': .5})


FIGURE1 = Command(__doc__, [sources.figure, sources.curves])


@command
def main(argv: list[str] | None = None) -> None:
    """Read the curves, draw, save, and print the epochs."""
    args = FIGURE1.parse(argv)
    curves = sources.read_figure('figure1', args)
    figures.save(draw(curves), args.out_dir, 'figure1')
    print('The epoch at which each loss first reaches what Norm-in-Norm has after its first:')
    for metric in METRICS:
        for part in PART_NAMES:
            reached = epochs_to_reach({loss: curves[loss][part, metric] for loss in curves}, metric)
            words = (f'{loss} {"never" if epoch is None else f"{epoch:g}"}'
                     for loss, epoch in reached.items())
            print(f'{PART_NAMES[part]:>10} {metric:<5} {", ".join(words)}')


if __name__ == '__main__':
    main()
