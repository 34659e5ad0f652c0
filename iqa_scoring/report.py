"""Write a report of scored images: one HTML file that works offline, from templates/report.html and report.js.

Jinja2 escapes every name; the only script that may run is the report's own, whose hash is in the page's policy.
"""
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iqa_data.images import opened
from iqa_results.charts import Histogram, Scatter, draw_charts
from iqa_results.page import data_uri, svg_uri, write_page
from iqa_results.table_formats import places
from iqa_scoring.mapping import Scale
from iqa_scoring.maps import colours
from iqa_scoring.stream import WHITE, Sample

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
    scores, mos = (np.array([card[key] for card in cards]) for key in ('score', 'mos'))
    histogram = Histogram({"training images' MOS": scale.values, 'scores': scores}, 'MOS scale')
    norm, colormap = colours(scale, scores if len(scores) else np.zeros(1))
    write_page(
        path, TEMPLATES / 'report.html', title=title, scale=str(scale), cards=cards, labelled=labelled,
        unreadable=unreadable, metrics=metrics, places=places, white=WHITE,
        outside=sum(bool(card['outside']) for card in cards), histogram=svg_uri(draw_charts([histogram], 6, 3)),
        pairs=any(card['others'] for card in cards),
        scatter=svg_uri(draw_charts([Scatter(mos, scores)], 4, 4)) if labelled else '',
        worst=sorted(cards, key=lambda card: -abs(card['score'] - card['mos']))[:WORST] if labelled else [],
        maps=any(card['map'] for card in cards), low=norm.vmin, high=norm.vmax, side=THUMBNAIL,
        legend=[to_hex(colormap(x)) for x in np.linspace(0, 1, 9)])
