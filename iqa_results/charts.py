"""Draw curves, scatter plots and histograms, as SVG for a page with a light and a dark theme, or as PNG.

A figure is drawn once, in the colours below. `svg` replaces them by CSS variables, whose values `THEME` sets.
"""
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:  # slow to import: the functions that draw import it
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, GREY, RULE = '#222222', '#777777', '#d8d8d8'
# the colours of Okabe and Ito, which colour-blind readers can distinguish; the first of SERIES differ most
BLUE, VERMILION, GREEN, PURPLE, SKY, ORANGE = SERIES = (
    '#0072b2', '#d55e00', '#009e73', '#cc79a7', '#56b4e9', '#e69f00')
# dash patterns, which differ in print too; the first of DASHES differ most
SOLID, DASHED, DOTTED, DASH_DOTTED = DASHES = ('-', (0, (4, 1.5)), (0, (1.2, 1.2)), (0, (4, 1.2, 1, 1.2)))
ON_DARK = {BLUE: '#5aaee8', VERMILION: '#ff8f4a', GREEN: '#35c79b', PURPLE: '#e39cc4', SKY: '#8fd0f5',
           ORANGE: '#f2b63c', RULE: '#3a3f46'}
THEME = (':root { ' + ' '.join(f'--c{colour[1:]}: {colour};' for colour in ON_DARK) + ' }\n'
         '@media (prefers-color-scheme: dark) { :root { '
         + ' '.join(f'--c{colour[1:]}: {dark};' for colour, dark in ON_DARK.items()) + ' } }')
# of all figures; with the salt, an SVG of the same figure has the same identifiers
AXES = {'axes.grid': True, 'grid.color': RULE, 'axes.axisbelow': True, 'legend.frameon': False, 'svg.hashsalt': 'IQA'}
STYLE = {**AXES, 'svg.fonttype': 'none', 'font.size': 9, 'axes.titlesize': 10,
         'legend.fontsize': 8, 'text.color': INK, 'axes.labelcolor': INK, 'axes.titlecolor': INK, 'xtick.color': INK,
         'ytick.color': INK, 'axes.edgecolor': INK, 'axes.linewidth': .7, 'axes.spines.top': False,
         'axes.spines.right': False, 'grid.linewidth': .6, 'lines.linewidth': 1.6}
MOST_POINTS = 4000  # points of a scatter plot that are drawn as vector marks; more are drawn as pixels
SMOOTHED = 20       # points of a curve from which on a moving mean says more
MOST_STEPS = 400    # points of a curve; longer curves are averaged down to as many


@dataclass(frozen=True)
class Panel:
    """Curves over a common x axis.

    Attributes:
        title: title of the panel.
        x, y: labels of the axes.
        curves: label -> positions (n,) and values (n,); values that are not finite leave a gap.
        mark: position of a vertical line; None: no line.
        whole: whether the x axis counts: its ticks are whole numbers.
        smooth: draw a moving mean over each curve, which is paler.
    """

    title: str
    x: str
    y: str = ''
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    mark: float | None = None
    whole: bool = True
    smooth: bool = False

    def draw(self, axes: 'Axes') -> None:
        """Draw the curves."""
        for colour, dash, (label, (x, y)) in zip(SERIES, cycle(DASHES), self.curves.items(), strict=False):
            x, y = thinned(np.asarray(x, float), np.asarray(y, float))
            if self.smooth and len(x) >= SMOOTHED:
                axes.plot(x, y, color=colour, linewidth=.8, alpha=.35)
                y = smoothed(y)
            axes.plot(x, y, label=label, color=colour, linestyle=dash, marker='o' if len(x) == 1 else '')
        if self.mark is not None:
            axes.axvline(self.mark, color=INK, linewidth=.8, linestyle=(0, (3, 3)))
        axes.set(title=self.title, xlabel=self.x, ylabel=self.y)
        axes.xaxis.get_major_locator().set_params(integer=self.whole)
        if len(self.curves) > 1:
            axes.legend()


@dataclass(frozen=True)
class Scatter:
    """A scatter plot of scores over MOS, both (n,), with the line of equality; x, y: labels of the axes."""

    mos: np.ndarray
    scores: np.ndarray
    title: str = ''
    x: str = 'MOS'
    y: str = 'score'

    def draw(self, axes: 'Axes') -> None:
        """Draw the points."""
        ends = [min(self.mos.min(), self.scores.min()), max(self.mos.max(), self.scores.max())]
        axes.plot(ends, ends, color=INK, linewidth=.8, linestyle=(0, (3, 3)))
        axes.scatter(self.mos, self.scores, s=12, alpha=.6, linewidths=0, color=SERIES[0],
                     rasterized=len(self.mos) > MOST_POINTS)
        axes.set(title=self.title, xlabel=self.x, ylabel=self.y)
        axes.set_aspect('equal', adjustable='datalim')


@dataclass(frozen=True)
class Histogram:
    """Histograms of groups of images, as shares of each group.

    Attributes:
        groups: label -> values (n,); the first is filled, the others are outlined. Empty groups are left out.
        x: label of the axis of the values.
    """

    groups: Mapping[str, np.ndarray]
    x: str

    def draw(self, axes: 'Axes') -> None:
        """Draw the histograms, with common bins."""
        groups = {label: values for label, values in self.groups.items() if len(values)}
        edges = np.histogram_bin_edges(np.concatenate([*groups.values(), []]), bins=30)
        for i, (label, values) in enumerate(self.groups.items()):
            style = {'histtype': 'step', 'color': SERIES[i - 1], 'linewidth': 2} if i else {'color': '.75'}
            if label in groups:
                axes.hist(values, edges, weights=np.full(len(values), 100 / len(values)), label=label, **style)
        if groups:
            axes.legend()
        axes.set(xlabel=self.x, ylabel='% of the images')


Chart = Panel | Scatter | Histogram


def thinned(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduce a curve (n,) to at most MOST_STEPS points, each the mean of equally many neighbouring points."""
    size = -(-len(x) // MOST_STEPS)
    if size < 2:
        return x, y
    starts = np.arange(0, len(x), size)
    counts = np.diff([*starts, len(x)])
    return np.add.reduceat(x, starts) / counts, np.add.reduceat(y, starts) / counts


def smoothed(y: np.ndarray) -> np.ndarray:
    """Return the moving mean of a curve (n,) over about a tenth of it, over fewer values at its ends."""
    half = max(1, len(y) // 20)
    sums, counts = (np.convolve(values, np.ones(2 * half + 1), 'same') for values in (y, np.ones(len(y))))
    return sums / counts


def draw_charts(charts: Sequence[Chart], width: float = 4.4, height: float = 2.9) -> 'Figure':
    """Draw charts side by side, each `width` x `height` inches."""
    import matplotlib
    from matplotlib.figure import Figure
    with matplotlib.rc_context(STYLE):
        figure = Figure((width * len(charts), height), layout='constrained')
        for axes, chart in zip(figure.subplots(1, len(charts), squeeze=False)[0], charts, strict=True):
            chart.draw(axes)
        figure.draw_without_rendering()
        figure.set_layout_engine('none')  # the layout is final
    return figure


def svg(chart: Chart, width: float = 4.4, height: float = 2.9) -> str:
    """Return a chart as an SVG element for a page that includes THEME, which sets its colours; its texts are escaped.
    """
    import matplotlib
    buffer = io.StringIO()
    nothing = dict.fromkeys(('Date', 'Creator', 'Format', 'Type'))
    with matplotlib.rc_context(STYLE):
        draw_charts([chart], width, height).savefig(buffer, format='svg', transparent=True, metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index('<svg'):].replace(INK, 'currentColor')
    for colour in ON_DARK:
        text = text.replace(colour, f'var(--c{colour[1:]})')
    return text


def png(charts: Sequence[Chart], width: float = 4.4, height: float = 2.9) -> bytes:
    """Return charts side by side as the content of a PNG file."""
    import matplotlib
    buffer = io.BytesIO()
    with matplotlib.rc_context(STYLE):
        draw_charts(charts, width, height).savefig(buffer, format='png', dpi=120)
    return buffer.getvalue()
