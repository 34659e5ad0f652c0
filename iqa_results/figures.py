"""Draw figures in one style: learning curves and mean ranks; save them as PDF and PNG.

Figures are drawn at their size on the page, COLUMN or PAGE inches wide, so that 7 points stay 7 points.
"""
from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from iqa_results.charts import AXES, DASHES, INK, SERIES, VERMILION
from iqa_results.curves import Curve, last_epoch
from iqa_runtime.files import replacing

COLUMN, PAGE = 3.33, 7.0  # inches: a column and the width of the text of the paper's format
STYLE = {
    **AXES, 'font.family': 'sans-serif', 'font.size': 7, 'axes.titlesize': 7.5, 'axes.labelsize': 7,
    'legend.fontsize': 6.5, 'xtick.labelsize': 6.5, 'ytick.labelsize': 6.5, 'axes.linewidth': .6,
    'lines.linewidth': 1.1, 'lines.markersize': 3, 'xtick.major.width': .6, 'ytick.major.width': .6,
    'xtick.major.size': 2.5, 'ytick.major.size': 2.5, 'xtick.direction': 'in', 'ytick.direction': 'in',
    'legend.handlelength': 2.2, 'grid.linewidth': .4, 'axes.titlepad': 4, 'hatch.linewidth': .5, 'pdf.fonttype': 42,
    'ps.fonttype': 42, 'savefig.dpi': 300,
}
styled = matplotlib.rc_context(STYLE)  # decorates the functions that draw

LEGEND_MARK, LEGEND_LETTER, LEGEND_LINE = .45, .053, .14  # inches: line and gaps of an entry, a letter, a row
VALUE_STYLES = [{'color': colour, 'linestyle': dash} for colour, dash in zip(SERIES, DASHES, strict=False)]
# ticks of the axis of a correlation, the most useful first: then tenths, then hundredths
TICKS = (.9, .95, .8, .5, 0, .98, .99, .93, .85, *(k / 100 for step in (10, 5, 1) for k in range(-90, 100, step)))
LEAST_SPAN = .3  # of the axis of a correlation, in Fisher's z


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, which lays itself out, has no window and shares no state."""
    return Figure(figsize=(width, height), layout='constrained')


def draw_curves(ax: Axes, curves: Mapping[str, Curve], styles: Mapping[str, dict], last: float,
                alike: bool = True) -> None:
    """Draw labelled curves over epochs, up to `last`.

    A curve that diverged ends in a cross. So does one that ends before `last`, if all should be `alike` in length.
    """
    for label, curve in curves.items():
        line, = ax.plot(curve.epochs, curve.values, label=label, **styles[label])
        colour = line.get_color()
        if curve.band is not None:
            ax.fill_between(curve.epochs, *curve.band, color=colour, alpha=.15, linewidth=0)
        if not len(curve.epochs):
            ax.annotate(f'{label} diverged at once', (.97, .03), xycoords='axes fraction', ha='right', color=colour)
        elif curve.diverged or (alike and curve.epochs[-1] < last):
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
    """Scale the y axes of panels alike by Fisher's z, which keeps .90 and .93 apart on an axis that reaches .30."""
    data = [line.get_ydata() for ax in axes for line in ax.lines if line.get_transform() == ax.transData]
    data += [path.vertices[:, 1] for ax in axes for band in ax.collections for path in band.get_paths()]
    z = _fisher_z(np.concatenate([np.asarray(one, float) for one in data] if any(map(len, data)) else [[.8, .9]]))
    margin = max(.08 * np.ptp(z), (LEAST_SPAN - np.ptp(z)) / 2)
    low, high = z.min() - margin, z.max() + margin
    ticks = []
    for tick in TICKS:
        place = _fisher_z(tick)
        if low <= place <= high and all(abs(place - _fisher_z(other)) > (high - low) / 9 for other in ticks):
            ticks.append(tick)
    for ax in axes:
        ax.set_yscale('function', functions=(_fisher_z, np.tanh))
        ax.set_yticks(ticks)
        ax.yaxis.set_major_formatter('{x:g}')
        ax.minorticks_off()
        ax.set_ylim(np.tanh(low), np.tanh(high))


@styled
def draw_panels(panels: Mapping[str, Mapping[str, Curve]], styles: Mapping[str, dict], width: float, height: float,
                share: bool = False, alike: bool = True, label: str = '') -> Figure:
    """Draw a row of panels of correlations over epochs from {title: {label: curve}}, with one legend above them.

    `share`: one y axis for all panels. `alike`: see draw_curves. `label`: that of the y axis. `height`: in inches, of
    which a legend takes two lines; more lines make the figure higher.
    """
    longest = max(map(len, styles), default=0)
    columns = min(4, max(1, int(width / (LEGEND_MARK + LEGEND_LETTER * longest))), max(1, len(styles)))
    figure = new_figure(width, height + LEGEND_LINE * max(0, -(-len(styles) // columns) - 2))
    axes = figure.subplots(1, len(panels), squeeze=False, sharey=share)[0]
    last = last_epoch(*panels.values())
    for ax, (title, curves) in zip(axes, panels.items(), strict=True):
        draw_curves(ax, curves, styles, last, alike)
        ax.set(title=title, xlabel='epoch')
    axes[0].set_ylabel(label)
    for group in ([axes] if share else [[ax] for ax in axes]):
        spread_correlations(group)
    figure.legend(*axes[0].get_legend_handles_labels(), loc='outside upper center', ncols=columns)
    return figure


@styled
def draw_critical_difference(labels: Sequence[str], ranks: np.ndarray, critical: float) -> Figure:
    """Draw mean ranks, 1 the best, on a line; bars join those that are less than `critical` apart (Demsar 2006)."""
    order, k = np.argsort(ranks), len(ranks)
    half = (k + 1) // 2
    figure = new_figure(PAGE, .6 + .21 * half)
    ax = figure.add_subplot()
    ax.set(xlim=(.5, k + .5), xticks=range(1, k + 1, 1 + k // 15), yticks=[])
    ax.spines[['left', 'right', 'bottom']].set_visible(False)
    ax.spines.top.set_position(('data', 0))
    ax.xaxis.set_ticks_position('top')
    ax.grid(False)
    level = -.25
    ends = [max(place for place in range(k) if ranks[order[place]] - ranks[i] < critical) for i in order]
    for start, end in enumerate(ends):
        if end > start and (start == 0 or end > ends[start - 1]):
            ax.plot(ranks[order[[start, end]]] + [-.03, .03], [level, level], color=VERMILION, linewidth=2.2)
            level -= .22
    for place, i in enumerate(order):
        left = place < half
        depth, end = level - .4 - (place if left else k - 1 - place), .75 if left else k + .25
        ax.plot([ranks[i], ranks[i], end], [0, depth, depth], color=INK, linewidth=.6)
        word = f'{labels[i]}  {ranks[i]:.2f} ' if left else f' {labels[i]}  {ranks[i]:.2f}'
        ax.text(end, depth, word, va='center', ha='right' if left else 'left')
    ax.set_ylim(level - half, 1.6)
    ax.plot([1, 1 + critical], [1.2, 1.2], '|-', color=INK, markersize=4)
    ax.text(1 + critical, 1.2, f'  critical difference {critical:.2f}', va='center')
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
        with replacing(path) as temporary:
            if path.suffix == '.pdf':
                figure.savefig(temporary, format='pdf', metadata={'CreationDate': None})  # the same data, the same file
            else:
                small = _pixels(figure).quantize(128, dither=Image.Dither.NONE)  # looks the same, a third of the bytes
                small.save(temporary, format='png', optimize=True, dpi=(figure.dpi, figure.dpi))
    print(*paths, sep=', ')
    return paths


def _pixels(figure: Figure) -> Image.Image:
    """Draw a figure as an image, with the pixels per inch of files."""
    figure.set_dpi(STYLE['savefig.dpi'])
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return Image.fromarray(np.asarray(canvas.buffer_rgba())).convert('RGB')
