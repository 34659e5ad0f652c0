"""Write scores as CSV or JSON lines, row by row, resume, merge and sort such tables, and format rows for the screen.

The columns of a CSV and the keys of a JSON line:

    name              see iqa_scoring/inputs.py
    score             in MOS units
    raw               output of the network's final head
    percentile        of the score among the training images' MOS, 0..100
    outside           'below' or 'above' the range of the training MOS, or nothing
    mos_min, mos_max  that range
    higher_is_better  whether a higher MOS is better
    model             the checkpoint's file name
    map               the PNG of the quality map, if one was asked for
    note              a remark, such as that only the first frame was scored
    reference         the reference that a full-reference network compared the image with
    digest            of the weights and everything else that determines a score (see parts.digest_of)
    spread            standard deviation of the scores of an image's crops, if it is scored by crops
    uncertainty       standard deviation of the distribution that the network predicts, if it predicts one, in MOS units

Scores have 6 significant digits in a CSV (iqa_runtime.tables.digits), and all digits in JSON. An unknown value (such as
the training MOS in a checkpoint of the original package) is empty in a CSV, null in JSON. A score is always a finite
number: an image without one has no row. In a CSV, a name that a spreadsheet would take for a formula has ./ before it
(see iqa_runtime/names.py).

Lines are written and read here one by one, not by iqa_runtime.tables: a table grows while images are scored, may end in
an incomplete line, and --resume needs the length of each line to continue after the last complete one.
"""
import csv
import glob
import io
import itertools
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath
from typing import BinaryIO

import ignite.distributed as idist

from iqa_runtime.checks import number
from iqa_runtime.distributed import is_main
from iqa_runtime.errors import UserError
from iqa_runtime.files import open_device, replacing, writing
from iqa_runtime.names import cell, from_cell, path_text
from iqa_runtime.tables import digits

COLUMNS = ('name', 'score', 'raw', 'percentile', 'outside', 'mos_min', 'mos_max', 'higher_is_better', 'model', 'map',
           'note', 'reference', 'digest', 'spread', 'uncertainty')


def _csv_line(row: dict) -> str:
    buffer = io.StringIO()
    cells = [cell(value) if isinstance(value, str) else digits(value) if isinstance(value, float) else value
             for value in (row[name] for name in COLUMNS)]
    csv.writer(buffer, lineterminator='\n').writerow(['' if value is None else value for value in cells])
    return buffer.getvalue()


def _csv_row(line: str) -> dict:
    return dict(zip(COLUMNS, map(from_cell, next(csv.reader([line], strict=True))), strict=True))


def _json_line(row: dict) -> str:
    return json.dumps({name: row[name] for name in COLUMNS}, ensure_ascii=False, allow_nan=False) + '\n'


def _check_row(row) -> None:
    """Raise an error, as parsing does, if a line of a file is not a row of scores."""
    if not isinstance(row, dict) or not set(COLUMNS) <= set(row) or not isinstance(row['name'], str):
        raise ValueError('no row of scores')
    for name in ('score', 'raw'):
        number(float(row[name]))
    json.dumps(row, allow_nan=False, ensure_ascii=False).encode()  # no surrogates


# kind -> (the first line, row -> line, line -> row)
KINDS = {'csv': (','.join(COLUMNS) + '\n', _csv_line, _csv_row), 'json': ('', _json_line, json.loads)}


def ntire(rows: list[dict]) -> list[str]:
    """Return the lines FILE,SCORE of the challenge's output.txt, sorted by the number formed by each name's digits."""
    names = [PurePath(row['name']).name for row in rows]
    numbers = [int(''.join(filter(str.isdecimal, PurePath(name).stem)) or 0) for name in names]
    order = sorted(range(len(rows)), key=lambda i: (numbers[i], names[i]))
    return [f'{names[i]},{rows[i]["score"]}' for i in order]


def challenge(rows: list[dict]) -> list[str]:
    """Return the lines img_name,mos,comments of the 2023 Samsung AI Challenge.

    Names are without folder and suffix, scores are clipped to 0..10.
    """
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator='\n')
    writer.writerow(('img_name', 'mos', 'comments'))
    for row in rows:
        score = min(max(float(row['score']), 0.), 10.)
        writer.writerow((cell(PurePath(row['name']).stem), round(score, 11), 'Nice image'))
    return buffer.getvalue().splitlines()


# --columns -> function from the rows of the full table to the lines of another form; None: the full table is kept
FORMS: dict[str, Callable[[list[dict]], list[str]] | None] = {'full': None, 'ntire': ntire, 'challenge': challenge}


class TableFile:
    """A file that rows are added to, and which is flushed after each `write`.

    Args:
        path, kind: the file, and a name in KINDS.
        resume: keep the existing rows without an incomplete last line; else start again. Not for a device or a pipe.
        digest: digest of the rows; with `resume`, rows with another digest are a UserError.
    """

    def __init__(self, path: str | Path, kind: str, resume: bool = False, digest: str = ''):
        self.path = Path(path)
        header, self.line, _ = KINDS[kind]
        with writing(path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            end = sum(size for _, size in read_rows(path, kind, digest)) if resume and self.path.exists() else 0
            self.file = open_device(path) or self._open(end)
            self.file.write(b'' if end else header.encode())
            self.file.flush()

    def _open(self, end: int) -> BinaryIO:
        """Open the file to continue after `end` bytes."""
        file = open(self.path, 'r+b' if end else 'wb')  # noqa: SIM115 (open as long as rows come)
        file.truncate(end)
        file.seek(end)
        return file

    def write(self, rows: Iterable[dict]) -> None:
        """Add rows, and hand them to the operating system."""
        with writing(self.path):
            self.file.write(''.join(self.line(row) for row in rows).encode())
            self.file.flush()

    def close(self) -> None:
        """Close the file."""
        with suppress(OSError):
            self.file.close()


def read_rows(path: str | Path, kind: str, digest: str | None = None) -> Iterator[tuple[dict, int]]:
    """Yield the rows of complete lines, each with the length of its line in bytes; an empty row is the CSV's header.

    Raises UserError if the file is not such a table, or if a row has another digest than `digest` (if given).
    """
    header, _, parse = KINDS[kind]
    with open(path, 'rb') as file:
        for i, line in enumerate(file):
            if not line.endswith(b'\n'):  # cut while it was written
                return
            try:
                row = {} if header and i == 0 and line.decode() == header else parse(line.decode())
                if row != {}:
                    _check_row(row)
                found = row['digest'] if row else digest
            except (ValueError, TypeError, OverflowError, RecursionError, csv.Error, StopIteration):
                raise UserError(f'{path_text(path)}: line {i + 1} is not one of a table of scores, as --{kind} '
                                'writes them (an older version wrote no digest): leave out --resume, or name another '
                                'file') from None
            if digest is not None and found != digest:
                raise UserError(f'--resume: {path_text(path)} holds scores {others(row["model"])}')
            yield row, len(line)


def others(model: str) -> str:
    """Return words for an error about scores that another model, or this one with other options, has made."""
    return f'of {str(model)[:100]} with other weights, calibration, --views or --clamp: name another output'


def check_reference(image: str, found: str | None, wanted: str) -> None:
    """Raise UserError if an image that has a score was compared with another reference."""
    if (found or '') != wanted:
        raise UserError(f'--resume: {image} was compared with {str(found)[:200]}, and now is to be with {wanted}: name '
                        'another output')


class Tables:
    """The CSV and JSON files of a run, which several processes may share.

    Each process writes NAME.rank0, NAME.rank1 ... beside NAME, and in the end they are merged; alone, it writes NAME.

    Args:
        files: kind -> path.
        resume, digest: see TableFile. The files of an interrupted shared run are merged first.
    """

    def __init__(self, files: dict[str, str], resume: bool, digest: str):
        self.files, self.resume, self.digest = files, resume, digest
        for kind, path in files.items() if is_main() else ():
            if resume:
                _merge(path, kind, True, digest)
            for part in files_of_processes(path):
                part.unlink()
        idist.barrier()
        self.references = [references_in(path, kind, digest) if resume else {} for kind, path in files.items()]
        self.open = [TableFile(path, kind, resume, digest) if idist.get_world_size() == 1
                     else TableFile(f'{path}.rank{idist.get_rank()}', kind) for kind, path in files.items()]

    def lack(self, name: str, reference: str = '') -> bool:
        """Return whether one of the files has no row for this image, or there are no files.

        Raises UserError if a file has a row for it with another reference.
        """
        for there in self.references:
            if name in there:
                check_reference(name, there[name], reference)
        return not self.files or any(name not in there for there in self.references)

    def write(self, row: dict) -> None:
        """Add a row, with the digest, to those files that lack it."""
        for there, table in zip(self.references, self.open, strict=True):
            if row['name'] not in there:
                table.write([{**row, 'digest': self.digest}])

    def close(self) -> None:
        """Close the files of this process."""
        for table in self.open:
            table.close()

    def finish(self, sort: Callable[[dict], float] | None = None, form: str = 'full') -> None:
        """Merge the files of all processes, on the first process only, and sort the rows by `sort`, if given.

        `form`: the form of the CSV, a name in FORMS.
        """
        for kind, path in self.files.items():
            if idist.get_world_size() > 1:
                _merge(path, kind, self.resume, self.digest)
                for part in files_of_processes(path):
                    part.unlink()
            if sort:
                sort_table(path, kind, sort)
            if kind == 'csv' and FORMS[form]:
                lines = FORMS[form]([row for row, _ in read_rows(path, kind) if row])
                with replacing(path) as temporary:
                    temporary.write_text(''.join(f'{line}\n' for line in lines), encoding='utf-8', newline='\n')


def references_in(path: str | Path, kind: str, digest: str) -> dict[str, str | None]:
    """Return {name: reference} of the rows in a table, empty if it does not exist; see TableFile."""
    if not Path(path).exists():
        return {}
    return {row['name']: row['reference'] for row, _ in read_rows(path, kind, digest) if row}


def _merge(path: str | Path, kind: str, resume: bool, digest: str) -> None:
    """Add the rows that processes wrote beside `path` to it, one of each in turn, which is the order of the images."""
    parts = files_of_processes(path)
    if not parts and resume:
        return
    table = TableFile(path, kind, resume, digest)
    names = references_in(path, kind, digest)
    sources = [(row for row, _ in read_rows(part, kind, digest) if row) for part in parts]
    for rows in itertools.zip_longest(*sources):
        table.write(row for row in rows if row and row['name'] not in names)
    table.close()


def sort_table(path: str | Path, kind: str, place: Callable[[dict], float]) -> None:
    """Rewrite a table in the order of place(row), whole or not at all."""
    header, line, _ = KINDS[kind]
    rows = sorted((row for row, _ in read_rows(path, kind) if row), key=place)
    with replacing(path) as temporary:
        temporary.write_text(header + ''.join(map(line, rows)), encoding='utf-8', newline='\n')


def files_of_processes(path: str | Path) -> list[Path]:
    """Return the files that the processes of a shared run wrote beside `path`, by rank."""
    path = Path(path)
    found = [part for part in path.parent.glob(glob.escape(path.name) + '.rank*') if part.suffix[5:].isdigit()]
    return sorted(found, key=lambda part: int(part.suffix[5:]))


def screen_line(row: dict) -> str:
    """Return a row for the screen: score, raw output, percentile, name, and remarks."""
    percentile = '-' if row['percentile'] is None else f'{row["percentile"]:.1f}'
    marks = [f'{row["outside"]} the range' if row['outside'] else '', row['note'], row['map'] or '']
    remarks = ', '.join(filter(None, marks))
    line = f'{row["score"]:10.4f} {row["raw"]:10.4f} {percentile:>10}  {row["name"]}'
    return f'{line}  ({remarks})' if remarks else line


SCREEN_HEADER = f'{"score":>10} {"raw":>10} {"percentile":>10}  image'
