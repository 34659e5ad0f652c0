"""Write scores as a folder of Parquet files: a part for each shard, and for each FILES files of a list.

A part is written whole or not at all, when the last of its images is done, so that a run that was interrupted goes on
at the first shard that has no part. Its columns are those of a CSV (see iqa_scoring/tables.py), and

    shard  the shard that the image is in, if it is in one
    key    the image's name in there
    error  why the image has no score; its score is then null

What a part holds is in its footer, under KEY: JSON with the model, the size of the shard in bytes, the number of images
with a score (`scored`) and without (`failed`), and why the shard is broken, if it is (`broken`). With --resume, the
part of a broken shard, or of one that has another size now, is made again.
"""
import hashlib
import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import ignite.distributed as idist

from iqa_runtime.distributed import is_main
from iqa_runtime.errors import UserError
from iqa_runtime.files import replacing
from iqa_runtime.names import text
from iqa_scoring.references import Item, files_of
from iqa_scoring.shards import End, is_shard
from iqa_scoring.tables import COLUMNS

KEY = b'linearity_iqa'
FILES = 4096  # of a list, in a part
ROWS = 8192   # that are in memory: a row group
NUMBERS = ('score', 'raw', 'percentile', 'mos_min', 'mos_max')


@dataclass(frozen=True)
class Unit:
    """Images whose scores make one part: those of a shard, or files that follow each other in the list."""

    part: str                 # file name
    items: tuple[Item | End, ...]
    size: int | None = None   # of the shard, in bytes


def units_of(items: Iterable[Item], files: int = FILES) -> Iterator[Unit]:
    """Yield the units of a list, in its order; the same list always makes the same parts."""
    waiting, first = [], 0
    for number, item in enumerate(items):
        shard = isinstance(item, str) and is_shard(item)
        if waiting and (shard or len(waiting) == files):
            yield _of_files(waiting, first)
            waiting = []
        if shard:
            yield _of_shard(item)
        else:
            first = first if waiting else number
            waiting.append(item)
    if waiting:
        yield _of_files(waiting, first)


def _of_shard(path: str) -> Unit:
    try:
        size = os.stat(path).st_size
    except OSError:
        size = None
    name = text(os.path.splitext(os.path.basename(path))[0]).encode()[:150].decode(errors='ignore')
    return Unit(f'{name}-{_digest([path])}.parquet', (path,), size)


def _of_files(items: Sequence[Item], first: int) -> Unit:
    name = f'files-{first:09d}-{_digest(files_of(items))}'
    return Unit(f'{name}.parquet', (*items, End(name)))


def _digest(paths: Sequence[str]) -> str:
    return hashlib.sha256(b'\0'.join(map(os.fsencode, paths))).hexdigest()[:8]


class Parts:
    """The folder of parts that a run writes, which several processes may share: each takes whole units.

    Args:
        folder: it may hold parts only with `resume`.
        units: all of the run.
        resume: units that have a part are left out.
        model: with `resume`, parts of another model are a UserError.

    Attributes:
        mine: the units that this process does.
        scored, failed: images with and without a score in parts that were there already.
    """

    def __init__(self, folder: str, units: Sequence[Unit], resume: bool, model: str):
        self.folder, self.model, self.part = Path(folder), model, Part()
        if is_main() and not resume and next(self.folder.glob('*.parquet'), None):
            raise UserError(f'--parquet {text(folder)} holds Parquet files already: --resume goes on with it; or name '
                            'another folder')
        done = [self._done(unit) if resume else None for unit in units]
        idist.barrier()  # no part is new to one process and not to another
        self.scored = sum(about['scored'] for about in done if about)
        self.failed = sum(about['failed'] for about in done if about)
        todo = [unit for unit, about in zip(units, done, strict=True) if not about]
        self.mine = todo[idist.get_rank()::idist.get_world_size()]
        self.units = deque(self.mine)

    def _done(self, unit: Unit) -> dict | None:
        """Return what the part of a unit says about itself; None if it is to be made."""
        path = self.folder / unit.part
        if not path.exists():
            return None
        about = about_part(path)
        if about['model'] != self.model:
            raise UserError(f'--resume: {text(path)} holds scores of the model {about["model"][:100]}, not of '
                            f'{self.model}')
        return None if about['broken'] or about['bytes'] != unit.size else about

    def write(self, row: dict) -> None:
        """Add a row of the unit that is being done; one without a score has an `error`."""
        self.part.write(row)

    def end(self, broken: str = '') -> None:
        """Finish the part of the unit; `broken` says why its shard is broken."""
        unit = self.units.popleft()
        part, self.part = self.part, Part()
        part.finish(self.folder / unit.part, {'model': self.model, 'bytes': unit.size, 'scored': part.scored,
                                              'failed': part.failed, 'broken': broken})


def about_part(path: Path) -> dict:
    """Return what a part says about itself; UserError if the file is no part."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    try:
        about = json.loads(pq.read_metadata(pa.OSFile(str(path))).metadata[KEY])
        kinds = {'model': str, 'bytes': int | None, 'scored': int, 'failed': int, 'broken': str}
        if not all(isinstance(about[name], kind) for name, kind in kinds.items()):
            raise TypeError
    except (pa.ArrowException, OSError, KeyError, TypeError, ValueError, RecursionError):
        raise UserError(f'{text(path)} is no part of scores, as --parquet writes them: leave out --resume and name '
                        'another folder, or remove the file') from None
    return about


def schema():
    """Return the pyarrow schema of a part."""
    import pyarrow as pa
    kinds = dict.fromkeys(NUMBERS, pa.float64()) | {'higher_is_better': pa.bool_()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in (*COLUMNS, 'shard', 'key', 'error')])


class Part:
    """The rows of a part, compressed in memory (some 60 bytes each) until it is finished."""

    def __init__(self):
        import pyarrow as pa
        import pyarrow.parquet as pq
        self.scored, self.failed, self.rows = 0, 0, []
        self.content = pa.BufferOutputStream()
        self.writer = pq.ParquetWriter(self.content, schema(), compression='zstd')

    def write(self, row: dict) -> None:
        """Add a row."""
        self.rows.append(row)
        failed = bool(row.get('error'))
        self.scored, self.failed = self.scored + (not failed), self.failed + failed
        if len(self.rows) == ROWS:
            self._flush()

    def _flush(self) -> None:
        import pyarrow as pa
        if self.rows:
            self.writer.write_table(pa.Table.from_pylist(self.rows, schema()))
        self.rows = []

    def finish(self, path: Path, about: dict) -> None:
        """Write the file, with `about` in its footer."""
        self._flush()
        self.writer.add_key_value_metadata({KEY: json.dumps(about).encode()})
        self.writer.close()
        with replacing(path) as temporary:
            temporary.write_bytes(self.content.getvalue())
