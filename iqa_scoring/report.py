"""Write a report of scored images: one HTML file that works offline, from templates/report.html and report.js.

Jinja2 escapes every name; the only script that may run is the report's own, whose hash is in the page's policy.
"""
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from iqa_data.images import opened
from iqa_results.page import data_uri, svg_uri, write_page
from iqa_scoring.mapping import Scale
from iqa_scoring.maps import colours
from iqa_scoring.stream import Sample

if TYPE_CHECKING:  # matplotlib is slow to import: the functions that draw do it
    from matplotlib.figure import Figure

THUMBNAIL = 180  # longest side in pixels
WORST = 20
TEMPLATES = Path(__file__).parent / 'templates'


@dataclass
class ReportEntry:
    """One image of a report."""

    row: dict                 # name, score, raw, percentile, outside, note: see iqa_scoring/tables.py
    thumbnail: bytes          # JPEG
    small_map: bytes = b''    # see maps.small_map
    mos: float | None = None  # its rating, if the set is labelled
    reference: bytes = b''    # JPEG of the image that it is compared with, and of the difference
    difference: bytes = b''

    def card(self) -> dict:
        """Return the fields that the template shows."""
        with opened(io.BytesIO(self.thumbnail)) as image:
            size = image.size
        return {**self.row, 'mos': self.mos, 'size': size, 'thumbnail': data_uri('image/jpeg', self.thumbnail),
                'map': data_uri('image/png', self.small_map) if self.small_map else '',
                'others': [data_uri('image/jpeg', other) for other in (self.reference, self.difference) if other]}


def report_entry(row: dict, sample: Sample, small_map: bytes = b'', mos: float | None = None) -> ReportEntry:
    """Return the entry of a sample that was read with thumbnails."""
    return ReportEntry(row, sample.thumbnail, small_map, mos, sample.reference_thumbnail, sample.difference_thumbnail)


def write_report(path: str | Path, entries: Sequence[ReportEntry], scale: Scale, title: str,
                 unreadable: Sequence[str] = (),
                 metrics: dict[str, tuple[float, float, float]] | None = None) -> None:
    """Write the report, best image first.

    Args:
        entries: the images; if all have a `mos`, a scatter plot and the worst WORST are shown too.
        unreadable: lines about the images that have no score.
        metrics: criterion -> value, low, high of its confidence interval.
    """
    from matplotlib.colors import to_hex
    bad = [entry for entry in entries if not math.isfinite(entry.row['score'])]
    unreadable = [*unreadable, *(f'{entry.row["name"]}: the score is {entry.row["score"]:g}' for entry in bad)]
    entries = [entry for entry in entries if math.isfinite(entry.row['score'])]
    entries = sorted(entries, key=lambda entry: entry.row['score'], reverse=scale.higher_is_better is not False)
    cards = [{**entry.card(), 'place': place} for place, entry in enumerate(entries)]
    labelled = bool(cards) and all(card['mos'] is not None for card in cards)
    scores = np.array([card['score'] for card in cards])
    norm, colormap = colours(scale, scores if len(scores) else np.zeros(1))
    write_page(
        path, TEMPLATES / 'report.html', title=title, scale=str(scale), cards=cards, labelled=labelled,
        unreadable=unreadable, metrics=metrics,
        outside=sum(bool(card['outside']) for card in cards), histogram=_histogram(scores, scale),
        pairs=any(card['others'] for card in cards),
        scatter=_scatter(scores, np.array([card['mos'] for card in cards])) if labelled else '',
        worst=sorted(cards, key=lambda card: -abs(card['score'] - card['mos']))[:WORST] if labelled else [],
        maps=any(card['map'] for card in cards), low=norm.vmin, high=norm.vmax, side=THUMBNAIL,
        legend=[to_hex(colormap(x)) for x in np.linspace(0, 1, 9)])


def _figure(width: float, height: float) -> 'Figure':
    """Return an empty figure, its size in inches."""
    from matplotlib.figure import Figure
    return Figure(figsize=(width, height), layout='constrained')


def _histogram(scores: np.ndarray, scale: Scale) -> str:
    """Draw the scores, and the MOS of the training images if they are known, as shares of all."""
    figure = _figure(6, 3)
    axes = figure.add_subplot()
    both = np.concatenate([scores, scale.values])
    if len(both):
        edges = np.histogram_bin_edges(both, bins=30)
        for values, label, style in ((scale.values, "training images' MOS", {'color': '.75'}),
                                     (scores, 'scores', {'histtype': 'step', 'color': 'C0', 'linewidth': 2})):
            if len(values):
                axes.hist(values, edges, weights=np.full(len(values), 100 / len(values)), label=label, **style)
        axes.legend()
    axes.set(xlabel='MOS scale', ylabel='% of the images')
    return svg_uri(figure)


def _scatter(scores: np.ndarray, mos: np.ndarray) -> str:
    figure = _figure(4, 4)
    axes = figure.add_subplot()
    ends = [min(scores.min(), mos.min()), max(scores.max(), mos.max())]
    axes.plot(ends, ends, color='.7', linewidth=1)
    axes.scatter(mos, scores, s=6, alpha=.5, linewidths=0, rasterized=True)
    axes.set(xlabel='MOS', ylabel='score', aspect='equal')
    return svg_uri(figure)
