"""Write scores as a folder of Parquet files: one part for each shard, and one for every FILES files of a list.

A part is written whole or not at all, after the last of its images, so that an interrupted run resumes at the first
shard without a part, and with the files that are in no part: the list may have become longer. Its columns are those of
a CSV (see iqa_scoring/tables.py), and

    shard  the shard that the image is in, if it is in one
    key    the image's name in the shard
    error  why the image has no score; its score is then null

The footer describes the part under KEY, as JSON with the model, the digest of everything that determines its scores,
the size of the shard in bytes, the number of images with a score (`scored`) and without (`failed`), and why the shard
is broken, if it is (`broken`). With --resume, the part of a shard that is broken or has changed its size is made again.
"""
import hashlib
import json
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ignite.distributed as idist

from iqa_runtime import checks
from iqa_runtime.checkpoint import checksum
from iqa_runtime.checks import fields, optional, whole
from iqa_runtime.distributed import is_main
from iqa_runtime.errors import UserError
from iqa_runtime.files import replacing
from iqa_runtime.names import path_text
from iqa_scoring.references import Item, files_of, path_of, reference_of
from iqa_scoring.shards import End, is_shard
from iqa_scoring.tables import COLUMNS, check_reference, others

KEY = b'linearity_iqa'
FILES = 4096  # files of a list in a part
ROWS = 8192   # rows in memory, which make a row group
NUMBERS = ('score', 'raw', 'percentile', 'mos_min', 'mos_max', 'spread', 'uncertainty')


@dataclass(frozen=True)
class Unit:
    """Images whose scores make one part: those of a shard, or files that follow each other in the list."""

    part: str                 # file name
    items: tuple[Item | End, ...]
    size: int | None = None   # of the shard, in bytes


def units_of(items: Iterable[Item], files: int = FILES,
             lack: Callable[[Item], bool] = lambda item: True) -> Iterator[Unit]:
    """Yield the units of a list, in its order: all shards, and the files that `lack` a score."""
    waiting, first = [], 0
    for number, item in enumerate(items):
        shard = isinstance(item, str) and is_shard(item)
        if not shard and not lack(item):
            continue
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
    name = path_text(os.path.splitext(os.path.basename(path))[0]).encode()[:150].decode(errors='ignore')
    return Unit(f'{name}-{_digest([path])}.parquet', (path,), size)


def _of_files(items: Sequence[Item], first: int) -> Unit:
    name = f'files-{first:09d}-{_digest(files_of(items))}'
    return Unit(f'{name}.parquet', (*items, End(name)))


def _digest(paths: Sequence[str]) -> str:
    return hashlib.sha256(b'\0'.join(map(os.fsencode, paths))).hexdigest()[:8]


class TableParts:
    """The folder of parts that a run writes, which several processes may share: each takes whole units.

    Args:
        folder: folder of the parts; without `resume`, it must not hold any.
        items: all items of the run.
        resume: leave out shards that have a part, and files that are in one.
        model, digest: of the scores; with `resume`, a part with another digest is a UserError.

    Attributes:
        mine: the units that this process scores.
        scored, failed: number of images of the run with and without a score in existing parts.
    """

    def __init__(self, folder: str, items: Sequence[Item], resume: bool, model: str, digest: str):
        self.folder, self.model, self.digest, self.part = Path(folder), model, digest, Part()
        if is_main() and not resume and next(self.folder.glob('*.parquet'), None):
            raise UserError(f'--parquet {path_text(folder)} holds Parquet files already: --resume continues it; or '
                            'name another folder')
        self.scored = self.failed = 0
        self.there = self._read() if resume else {}
        self.files = self._files()
        todo = [unit for unit in units_of(items, FILES, self._lack) if not self._done(unit)]
        idist.barrier()  # all processes see the same parts before one writes
        self.mine = todo[idist.get_rank()::idist.get_world_size()]
        self.units = deque(self.mine)

    def _read(self) -> dict[str, dict]:
        """Return the description of each part in the folder, by file name."""
        found = {path.name: about_part(path) for path in sorted(self.folder.glob('*.parquet'))}
        for name, about in found.items():
            if about['digest'] != self.digest:
                raise UserError(f'--resume: {path_text(self.folder / name)} holds scores {others(about["model"])}')
        return found

    def _files(self) -> dict[str, tuple[str, bool]]:
        """Return the reference of each file in the parts, and whether it has a score."""
        found = {}
        for name, about in self.there.items():
            if about['bytes'] is None and not about['broken']:  # not of a shard
                found |= files_in(self.folder / name)
        return found

    def _lack(self, item: Item) -> bool:
        """Return whether a file is in no part; count it if it is in one."""
        name = path_text(path_of(item))
        if name not in self.files:
            return True
        reference, has_score = self.files[name]
        check_reference(name, reference, path_text(reference_of(item)))
        self._count(has_score, not has_score)
        return False

    def _done(self, unit: Unit) -> bool:
        """Return whether the part of a shard exists and need not be made again; count its images."""
        about = self.there.get(unit.part)
        if not about or about['broken'] or about['bytes'] != unit.size:
            return False
        self._count(about['scored'], about['failed'])
        return True

    def _count(self, scored: int, failed: int) -> None:
        self.scored, self.failed = self.scored + scored, self.failed + failed

    def write(self, row: dict) -> None:
        """Add a row of the current unit, with the digest; a row without a score has an `error`."""
        self.part.write({**row, 'digest': self.digest})

    def end(self, broken: str = '') -> None:
        """Finish the part of the unit; `broken` says why its shard is broken."""
        unit = self.units.popleft()
        part, self.part = self.part, Part()
        part.finish(self.folder / unit.part, {'model': self.model, 'digest': self.digest, 'bytes': unit.size,
                                              'scored': part.scored, 'failed': part.failed, 'broken': broken})


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn any error of reading a file that is not a part into a UserError that names the file."""
    try:
        yield
    except Exception:
        raise UserError(f'{path_text(path)} is not a part of scores, as --parquet writes them (an older version wrote '
                        'no digest): leave out --resume and name another folder, or remove the file') from None


ABOUT = fields(model=checks.text, digest=checks.text, bytes=optional(whole), scored=whole, failed=whole,
               broken=checks.text)


def about_part(path: Path) -> dict:
    """Return the description of a part in its footer; UserError if the file is not a part."""
    import pyarrow as pa
    import pyarrow.parquet as pq
    with reading(path):
        return ABOUT(json.loads(pq.read_metadata(pa.OSFile(str(path))).metadata[KEY]))


def files_in(path: Path) -> dict[str, tuple[str, bool]]:
    """Return the names in a part of files, the reference of each, and whether it has a score."""
    import pyarrow.parquet as pq
    with reading(path):
        table = pq.read_table(path, columns=['name', 'reference', 'error'])
        names, references, errors = (table[name].to_pylist() for name in ('name', 'reference', 'error'))
        return {name: (reference or '', not error)
                for name, reference, error in zip(names, references, errors, strict=True)}


def schema():
    """Return the pyarrow schema of a part."""
    import pyarrow as pa
    kinds = dict.fromkeys(NUMBERS, pa.float64()) | {'higher_is_better': pa.bool_()}
    return pa.schema([(name, kinds.get(name, pa.string())) for name in (*COLUMNS, 'shard', 'key', 'error')])


class Part:
    """The rows of a part, compressed in memory (about 60 bytes each) until it is finished."""

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


# A digest of everything but the images that scores depend on: --resume continues only if it is the same

# what a score and its row come from
SCORING = ('model', 'network', 'input', 'crops', 'head', 'k', 'b', 'mapping', 'mos')


def model_digest(checkpoints: Sequence[dict], **options) -> str:
    """Return 8 hexadecimal digits of the checkpoints' weights, networks, inputs, lines to MOS and scales.

    Names of files are not in it, nor what else a checkpoint holds, as its metrics.

    Args:
        checkpoints: as `load_checkpoint` returns them, with a network and an input.
        options: other plain values that change a score.
    """
    content = [[checkpoint.get(key) for key in SCORING] for checkpoint in checkpoints]
    return f'{checksum([content, sorted(options.items())]):08x}'
