"""Write scores as they come, each to a sink: tables, Parquet parts, the screen, a report, maps, pictures, videos."""
import hashlib
import os
import sys
from collections.abc import Callable, Mapping
from itertools import chain
from pathlib import Path
from typing import TextIO

from tqdm import tqdm

from iqa_results.charts import Panel, png
from iqa_runtime.distributed import gather_objects, is_main
from iqa_runtime.errors import UserError
from iqa_runtime.files import replacing
from iqa_runtime.names import path_text, without_suffix
from iqa_scoring.inputs import SUFFIXES
from iqa_scoring.mapping import Scale
from iqa_scoring.maps import small_map, write_map, write_picture
from iqa_scoring.parts import TableParts
from iqa_scoring.report import report_entry, write_report
from iqa_scoring.shards import is_video
from iqa_scoring.stream import Sample
from iqa_scoring.tables import SCREEN_HEADER, Tables, screen_line

Place = Callable[[dict], float]  # a row -> its sort key


class Sink:
    """Base class of the sinks, whose methods do nothing: a sink overrides those that it needs."""

    def pixels(self, sample: Sample) -> None:
        """Take a scored image while its pixels and its map are in memory."""

    def row(self, row: dict, sample: Sample) -> None:
        """Take the row of a scored image (see iqa_scoring.stream.row_of)."""

    def error(self, sample: Sample, line: str) -> None:
        """Take an image without a score, or a broken shard; `line` names it and says why."""

    def ended(self, sample: Sample) -> None:
        """Take the end of a shard or of a group of files, broken or not."""

    def close(self) -> None:
        """Close what is open; every process does so before the first one finishes."""

    def finish(self, place: Place | None) -> None:
        """Finish, on every process; `place` sorts the rows, None keeps their order."""


class TableSink(Sink):
    """The CSV and JSON tables; `columns` is the form of the CSV table."""

    def __init__(self, tables: Tables, columns: str):
        self.tables, self.columns = tables, columns

    def row(self, row: dict, sample: Sample) -> None:
        """Add the row."""
        self.tables.write(row)

    def close(self) -> None:
        """Close the tables."""
        self.tables.close()

    def finish(self, place: Place | None) -> None:
        """Put the tables of all processes together."""
        if is_main():
            self.tables.finish(place, self.columns)


class PartSink(Sink):
    """The parts of --parquet, which also have a row for each image without a score."""

    def __init__(self, parts: TableParts):
        self.parts = parts

    def row(self, row: dict, sample: Sample) -> None:
        """Add the row."""
        self.parts.write(row)

    def error(self, sample: Sample, line: str) -> None:
        """Add a row that says why the image has no score."""
        if not sample.ended:
            names = {'name': sample.path, 'shard': sample.shard, 'key': sample.key, 'reference': sample.reference}
            self.parts.write({'model': self.parts.model, 'error': sample.error,
                              **{column: path_text(name) for column, name in names.items()}})

    def ended(self, sample: Sample) -> None:
        """Finish the part."""
        self.parts.end(sample.error)


class Notice(Sink):
    """A line on stderr before the first score; none if `text` is empty, or if there is no score."""

    def __init__(self, text: str):
        self.text = text

    def row(self, row: dict, sample: Sample) -> None:
        """Print the line, once."""
        if self.text and is_main():
            tqdm.write(self.text, file=sys.stderr)
        self.text = ''


class Screen(Sink):
    """A line on stdout for each image, below a header: at once, or sorted at the end."""

    def __init__(self, scale: Scale, later: bool):
        self.header = f'{scale}\n{SCREEN_HEADER}\n'
        self.rows: list[dict] | None = [] if later else None

    def row(self, row: dict, sample: Sample) -> None:
        """Print the row, or keep it."""
        if self.rows is None:
            self._print(row)
        else:
            self.rows.append(row)

    def finish(self, place: Place | None) -> None:
        """Print the rows that were kept."""
        for row in sorted(self.rows or (), key=place):
            self._print(row)

    def _print(self, row: dict) -> None:
        tqdm.write(self.header + screen_line(row), file=sys.stdout)
        sys.stdout.flush()
        self.header = ''


class Alone(Sink):
    """The description of a single image in sentences on `stream`; UserError if it has no score."""

    def __init__(self, scale: Scale, stream: TextIO):
        self.scale, self.stream, self.found = scale, stream, {}

    def row(self, row: dict, sample: Sample) -> None:
        """Keep the row."""
        self.found = row

    def error(self, sample: Sample, line: str) -> None:
        """Raise UserError."""
        raise UserError(f'--img {line}')

    def finish(self, place: Place | None) -> None:
        """Print the description, unless the run was stopped before there was a score."""
        if is_main() and self.found:
            print(sentence(self.found, self.scale), file=self.stream)


class Report(Sink):
    """The page of --report, with a small quality map of each image that has a map."""

    def __init__(self, path: str, scale: Scale, title: str):
        self.path, self.scale, self.title, self.entries, self.unreadable = path, scale, title, [], []

    def row(self, row: dict, sample: Sample) -> None:
        """Add an entry."""
        small = b'' if sample.grid is None else small_map(sample.grid, self.scale)
        self.entries.append(report_entry(row, sample, small))

    def error(self, sample: Sample, line: str) -> None:
        """Add the line to the images that could not be read."""
        self.unreadable.append(line)

    def finish(self, place: Place | None) -> None:
        """Write the page with the entries of all processes."""
        entries, unreadable = (list(chain(*lists)) for lists in zip(
            *gather_objects((self.entries, self.unreadable)), strict=True))
        if is_main():
            write_report(self.path, entries, self.scale, self.title, unreadable)


class Maps(Sink):
    """The quality maps of --map, a PNG file for each image."""

    def __init__(self, folder: str, scale: Scale):
        self.folder, self.scale = folder, scale

    def path(self, sample: Sample) -> Path:
        """Return the file of an image's map: its name, and a digest of its path, as two files may have one name."""
        name = path_text(without_suffix(os.path.basename(sample.path), SUFFIXES))
        name = name.encode()[:150].decode(errors='ignore')  # file systems allow 255 bytes
        return Path(self.folder, f'{name}-{hashlib.sha256(os.fsencode(sample.path)).hexdigest()[:8]}.png')

    def pixels(self, sample: Sample) -> None:
        """Draw the map."""
        write_map(self.path(sample), sample.pixels.permute(1, 2, 0).numpy(), sample.grid, self.scale,
                  f'score {sample.score:.4g}', sample.shown)


class Picture(Sink):
    """The picture of --picture, of one image."""

    def __init__(self, path: str, scale: Scale):
        self.path, self.scale = path, scale

    def pixels(self, sample: Sample) -> None:
        """Draw the picture."""
        write_picture(self.path, sample.inputs, sample.score, self.scale)


class Videos(Sink):
    """The mean and the worst second of each video on `stream`, and the curves of --curve, of the frames scored now.

    It keeps the sum and the number of the scores of each second, so that its memory does not depend on the frames.
    """

    def __init__(self, scale: Scale, stream: TextIO, curve: str | None):
        self.scale, self.stream, self.curve = scale, stream, curve
        self.seconds: dict[str, dict[int | None, tuple[float, int]]] = {}  # None: of frames without a time

    def row(self, row: dict, sample: Sample) -> None:
        """Add the score to its second."""
        if is_video(sample.shard):
            second = None if sample.time is None else int(sample.time)
            seconds = self.seconds.setdefault(path_text(sample.shard), {})
            total, count = seconds.get(second, (0., 0))
            seconds[second] = total + row['score'], count + 1

    def finish(self, place: Place | None) -> None:
        """Print the sentences and draw the curves of the videos of all processes."""
        videos = {name: found for some in gather_objects(self.seconds) for name, found in some.items()}
        if not is_main():
            return
        for name, seconds in videos.items():
            print(video_sentence(name, seconds, self.scale), file=self.stream)
        if self.curve:
            curves = {name: curve_of(seconds) for name, seconds in videos.items()}
            with replacing(self.curve) as temporary:
                temporary.write_bytes(png([Panel('', 'second', 'score', curves)], 7))


def curve_of(seconds: Mapping[int | None, tuple[float, int]]) -> tuple[list[int], list[float]]:
    """Return the seconds of a video, and the mean score of each."""
    known = {at: total / count for at, (total, count) in seconds.items() if at is not None}
    return list(known), list(known.values())


def video_sentence(name: str, seconds: Mapping[int | None, tuple[float, int]], scale: Scale) -> str:
    """Return the mean score and the worst second of a video, of {second: (sum of the scores, frames)}, in words."""
    count = sum(frames for _, frames in seconds.values())
    mean = sum(total for total, _ in seconds.values()) / count
    text = f'{name}: mean score {mean:.4g} of {count} frames; '
    if None in seconds:
        return text + 'no times in it, so that its worst second is not known'
    sign = -1 if scale.higher_is_better is False else 1
    worst = min(seconds, key=lambda at: sign * seconds[at][0] / seconds[at][1])
    total, frames = seconds[worst]
    return text + f'worst second {worst}-{worst + 1} s: {total / frames:.4g} ({frames} frames)'


def sentence(row: dict, scale: Scale) -> str:
    """Return the text that describes a single image."""
    percentile = '-' if row['percentile'] is None else f'{row["percentile"]:.1f}'
    lines = [f'{row["name"]}: image quality score {row["score"]:.4g}',
             f'Raw output {row["raw"]:.4f}; percentile {percentile}. {scale}']
    if row['spread'] is not None:
        lines.append(f'The scores of its crops have a standard deviation of {row["spread"]:.4g}')
    if row['uncertainty'] is not None:
        lines.append(f'The uncertainty of the score is {row["uncertainty"]:.4g}, a standard deviation')
    if row['outside']:
        lines.append(f'The score lies {row["outside"]} that range: the image is unlike those rated for training')
    lines += [f'Note: {row["note"]}'] if row['note'] else []
    lines += [f'Quality map: {row["map"]}'] if row['map'] else []
    return '\n'.join(lines)
