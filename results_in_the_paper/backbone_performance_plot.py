"""Figure 6: PLCC on KonIQ-10k's test part and SROCC on CLIVE by backbone and loss, the paper's bars beside ours.

Plain bars are ours, read from results/*.json; hatched bars are the paper's. What is missing is left out and named.
"""
import math
import sys
from collections.abc import Sequence
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    import iqa_runtime  # noqa: F401 (it names missing packages)

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from iqa_results import figures
from iqa_results.charts import INK
from iqa_runtime.errors import command
from iqa_runtime.options import Command, group
from iqa_studies.published import Comparison, comparisons
from results_in_the_paper import sources

WIDTH = .14  # of a bar; backbones are 1 apart


@figures.styled
def draw(bars: Sequence[Comparison]) -> Figure:
    """Draw one panel per data set from the numbers of Figure 6, whose settings are `backbone, loss`."""
    panels = {}
    for row in bars:
        panels.setdefault((row.data, row.criterion), []).append(row)
    figure = figures.new_figure(figures.PAGE, 1.9 * len(panels) + .3)
    axes = figure.subplots(len(panels), 1, squeeze=False)[:, 0]
    for ax, ((data, metric), panel) in zip(axes, panels.items(), strict=True):
        _panel(ax, panel)
        ax.set(ylabel=f'{metric} on {data}')
    handles = [Patch(facecolor=colour, edgecolor=INK, linewidth=.5, label=loss)
               for loss, colour in sources.LOSS_FILLS.items()]
    handles.append(Patch(facecolor='white', edgecolor=INK, linewidth=.5, hatch='/////', label="the paper's"))
    figure.legend(handles=handles, loc='outside upper center', ncols=len(handles))
    return figure


def _panel(ax: Axes, panel: Sequence[Comparison]) -> None:
    backbones = list(dict.fromkeys(row.setting.split(', ')[0] for row in panel))
    heights = []
    for row in panel:
        backbone, loss = row.setting.split(', ')
        place = backbones.index(backbone) + 2 * WIDTH * (list(sources.LOSS_FILLS).index(loss) - 1)
        for shift, value, hatch in ((-.5, row.ours, ''), (.5, row.known, '/////')):
            if value is None or not math.isfinite(value):
                continue
            heights.append(value)
            x = place + shift * WIDTH
            ax.bar(x, value, WIDTH, color=sources.LOSS_FILLS[loss], edgecolor=INK, linewidth=.5, hatch=hatch)
            ax.annotate(f'{value:.3f}'.replace('0.', '.', 1), (x, value), xytext=(0, 1.5), textcoords='offset points',
                        ha='center', va='bottom', fontsize=6, rotation=90)
    if heights:
        low, high = min(heights), max(heights)
        room = max(high - low, .02)
        ax.set_ylim(low - .25 * room, high + .35 * room)  # bars do not begin at 0: the labels carry the values
    ax.set_xticks(range(len(backbones)), backbones)
    ax.tick_params(axis='x', length=0)
    ax.grid(visible=False, axis='x')


FIGURE6 = Command(__doc__, [sources.figure, group('results', 'the results that are drawn')(sources.add_results)])


@command
def main(argv: list[str] | None = None) -> None:
    """Read the results, draw, save, and name missing results."""
    args = FIGURE6.parse(argv)
    study, plan = sources.planned('figure6', None, sources.results(args.result_dir))
    figures.save(draw(comparisons(study, plan)), args.out_dir, 'figure6')
    if lines := sources.missing_of(plan):
        print('Bars of ours that are missing are made by:', *lines, sep='\n  ')


if __name__ == '__main__':
    main()
