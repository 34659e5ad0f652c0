"""Read images in shards: tar files as WebDataset writes them, Parquet files with images' bytes in a column, videos.

A shard may come from an untrusted source. It is read forward, one image after the other, and nothing in it is written,
executed, unpickled or followed (links, paths beside the bytes). Sizes are checked before bytes are read, so that memory
does not depend on the claims of a header: an image of more than `max_bytes` in a tar is skipped, and a page of a
Parquet file that unpacks to more than that is refused, unless its packed size is a large share of it. An image in a
shard has the name SHARD/KEY. In a tar, KEY is the member's path; in a Parquet file, it is the value in the first of the
columns NAMES, else the path beside the bytes, else the number of the row, from 0 on; in a video, the frame's number and
time. Names are unique: a member with a repeated name is an error of that image, and a row with one gets #ROW appended.

WebDataset's own reader is not used: it reads whole members before their size can be checked, and accepts
`pipe:COMMAND` as a name.
"""
import os
import stat
import tarfile
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import BinaryIO, TypeVar

from iqa_data.images import SUFFIXES, ImageError
from iqa_runtime.errors import first_line, one_line
from iqa_scoring import video
from iqa_scoring.options import MAX_BYTES
from iqa_scoring.parquet_pages import chunk_range, page_sizes

T = TypeVar('T')
HEADER = 1 << 20   # bytes of a tar's extended header
BLOCK = tarfile.BLOCKSIZE
PADDING = 1 << 16  # bytes of zeros after a tar's end, which fill its last record, of 10 KiB by default
LONGEST = 1024     # bytes of a name in a Parquet file
BUFFER = 1 << 20   # bytes of a Parquet file that may be in memory, even if `max_bytes` is less
PACKED = 8         # factor by which a page may grow when unpacked, even above `max_bytes`
AHEAD = 4          # images that are read ahead
IMAGES = ('image', 'jpg', 'jpeg', 'png', 'webp', 'bytes')  # columns of bytes, or of {bytes, path} as Hugging Face's
NAMES = ('path', 'key', '__key__', 'id')


@dataclass(frozen=True)
class Packed:
    """An image in a shard: its bytes, or why they were not read; of a frame of a video, its time in seconds."""

    shard: str
    key: str
    content: bytes = b''
    error: str = ''
    time: float | None = None

    @property
    def path(self) -> str:
        """Return the image's name."""
        return f'{self.shard}/{self.key}'

    def bytes(self) -> bytes:
        """Return the bytes; ImageError if they were not read."""
        if self.error:
            raise ImageError(self.error)
        return self.content


@dataclass(frozen=True)
class End:
    """The end of a shard, or of files that are scored as one unit; `error`: why the shard is broken."""

    path: str
    error: str = ''


@dataclass(frozen=True)
class How:
    """How shards are read.

    Attributes:
        column: column of a Parquet file, or extension of the images in a tar (jpg; left.png of 0001.left.png).
        max_bytes: larger images are not read.
        every: each so-many-th frame of a video is read.
    """

    column: str | None = None
    max_bytes: int = MAX_BYTES
    every: int = 1


def is_shard(path: str) -> bool:
    """Return whether a path has the suffix of a shard."""
    return path.lower().endswith(tuple(READERS))


def is_video(path: str) -> bool:
    """Return whether a path has the suffix of a video."""
    return path.lower().endswith(video.SUFFIXES)


def _reader(shard: str) -> Callable[[str, How], Iterator[Packed]]:
    return next(reader for suffix, reader in READERS.items() if shard.lower().endswith(suffix))


def open_shards(items: Iterable[T], how: How = How()) -> Iterator[T | Packed | End]:
    """Yield the items; instead of a path of a shard, its images and its end. See `images_in`."""
    for item in items:
        if isinstance(item, str) and is_shard(item):
            yield from images_in(item, how)
        else:
            yield item


def images_in(shard: str, how: How = How()) -> Iterator[Packed | End]:
    """Yield the images in a shard, then its end. Never raises: errors are reported in the image or in the end."""
    count, error = 0, ''
    seen: set[str] = set()
    try:
        if not stat.S_ISREG(os.stat(shard).st_mode):
            raise ValueError('not a file')  # a pipe or a device may never end
        for image in _reader(shard)(shard, how):
            again = image.key in seen
            yield replace(image, content=b'', error='a second image of this name in the shard') if again else image
            seen.add(image.key)
            count += 1
    except Exception as problem:  # a reader raises almost anything on a broken file
        error = f'{_reason(problem)} ({count} images of it were read)' if count else _reason(problem)
    yield End(shard, error if error or count else 'no image in it')


def _reason(error: Exception) -> str:
    """Return a reader's error in one line."""
    if isinstance(error, FileNotFoundError):
        return 'no such file'
    system = error.strerror if isinstance(error, OSError) else None
    return one_line(system or first_line(error))[:300]


def prefetched(items: Iterable[T], ahead: int = AHEAD) -> Iterator[T]:
    """Yield the items, which a thread takes from their iterator, at most `ahead` of the consumer."""
    iterator = iter(items)
    end = object()
    with ThreadPoolExecutor(1) as pool:
        try:
            waiting = deque(pool.submit(next, iterator, end) for _ in range(ahead))
            while (item := waiting.popleft().result()) is not end:
                waiting.append(pool.submit(next, iterator, end))
                yield item
        finally:
            pool.shutdown(cancel_futures=True)


# Tar

class _Forward:
    """A file for tarfile's reading of headers: forward only, and in bounded pieces, whatever sizes they claim."""

    def __init__(self, file: BinaryIO):
        self.file, self.last = file, b''

    def read(self, size: int) -> bytes:
        """Read a block or an extended header."""
        if not 0 <= size <= HEADER:
            raise ValueError(f'a header of {size} bytes at byte {self.tell()}: no tar, or damaged')
        self.last = self.file.read(size)
        return self.last

    def seek(self, position: int) -> None:
        """Skip the rest of a member."""
        if position < self.tell():
            raise ValueError(f'a member before byte {self.tell()} again: no tar, or damaged')
        self.file.seek(position)

    def tell(self) -> int:
        """Return the position in the file."""
        return self.file.tell()


def read_tar(shard: str, how: How) -> Iterator[Packed]:
    """Yield the images of a tar: the members with a suffix of images, or with the extension `how.column`.

    Folders, hidden members and other kinds (labels, tars) are skipped. Raises an error if the tar is damaged, or does
    not end as every tar does, with two blocks of zeros followed by padding only.
    """
    with open(shard, 'rb') as file:
        source, size = _Forward(file), os.fstat(file.fileno()).st_size
        with closing(tarfile.TarFile(fileobj=source, encoding='utf-8', errors='surrogateescape')) as tar:
            while member := tar.next():
                tar.members.clear()      # tarfile would keep all members,
                tar.pax_headers.clear()  # and the headers for all of them
                if member.size < 0:
                    raise ValueError(f'{member.name} has {member.size} bytes: no tar, or damaged')
                if member.offset_data + member.size > size:
                    raise ValueError(f'cut off in {member.name}: {member.size} bytes, of which '
                                     f'{max(size - member.offset_data, 0)} are there')
                if _is_image(member, how.column):
                    yield _member(shard, member, file, how.max_bytes)
        _check_end(file, tar.offset, size)


def _check_end(file: BinaryIO, end: int, size: int) -> None:
    """Raise ValueError if a tar of `size` bytes does not end at byte `end`, where its headers end."""
    file.seek(end)
    rest = file.read(PADDING + 2 * BLOCK)
    zeros = len(rest) - len(rest.lstrip(b'\0'))
    if zeros < 2 * BLOCK:
        raise ValueError(f'cut off or damaged at byte {end}')
    if zeros < len(rest):
        raise ValueError(f'its end is at byte {end}, and there is more at byte {end + zeros}: tars that were joined, '
                         'or a damaged one')
    if end + zeros < size:
        raise ValueError(f'its end is at byte {end}, and {size - end} bytes follow: written in part, or damaged')


def _is_image(member: tarfile.TarInfo, column: str | None) -> bool:
    name = os.path.basename(member.name)
    if member.isdir() or name.startswith('.'):
        return False
    if column:
        return name.partition('.')[2].lower() == column.lower()
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _member(shard: str, member: tarfile.TarInfo, file: BinaryIO, max_bytes: int) -> Packed:
    """Return a member's image; a member that is not a plain file, or is too large, is not read."""
    if member.issym() or member.islnk():
        return Packed(shard, member.name, error='a link, which is not followed')
    if member.type not in (tarfile.REGTYPE, tarfile.AREGTYPE) or member.sparse is not None:
        return Packed(shard, member.name, error='not a file')
    if member.size > max_bytes:
        return Packed(shard, member.name, error=too_large(member.size, max_bytes))
    file.seek(member.offset_data)
    return Packed(shard, member.name, file.read(member.size))


def too_large(size: int, max_bytes: int) -> str:
    """Return the error of an image of more than `max_bytes`."""
    return f'{size} bytes are more than {max_bytes}; if it can be trusted: --max_bytes {size}'


# Parquet

def read_parquet(shard: str, how: How) -> Iterator[Packed]:
    """Yield the images in the rows of a Parquet file; one row is in memory at a time.

    They are in the column `how.column`, of bytes or of {bytes, path}; None: the first such column in IMAGES. Raises an
    error if there is no such column, or, after all other rows, if a row group cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq
    with pa.OSFile(shard) as source, open(shard, 'rb') as pages, pq.ParquetFile(
            source, pre_buffer=False, buffer_size=BUFFER, page_checksum_verification=True) as file:
        column, max_bytes = _column(file.schema_arrow, how.column), how.max_bytes
        name = next((name for name in NAMES if name != column and _is_name(file.schema_arrow, name)), None)
        columns = [column, name] if name else [column]
        broken, row, seen = [], 0, set()
        for group in range(file.num_row_groups):
            try:
                _check_pages(pages, file.metadata.row_group(group), columns, max_bytes)
                for number, batch in enumerate(file.iter_batches(1, [group], columns, use_threads=False), row):
                    image = _row(shard, batch, column, name, number, max_bytes)
                    yield replace(image, key=f'{image.key}#{number}') if image.key in seen else image
                    seen.add(image.key)
            except (pa.ArrowException, OSError, ValueError) as error:
                broken.append(f'row group {group} of {file.num_row_groups}: {_reason(error)}')
            row += file.metadata.row_group(group).num_rows
    if broken:
        raise ValueError(broken[0] + (f', and {len(broken) - 1} more' if len(broken) > 1 else ''))


def _check_pages(file: BinaryIO, group, columns: list[str], max_bytes: int) -> None:
    """Raise ValueError if a page of these columns of a row group unpacks to too many bytes (see PACKED)."""
    for chunk in map(group.column, range(group.num_columns)):
        if chunk.path_in_schema.startswith(tuple(f'{name}.' for name in columns)) or chunk.path_in_schema in columns:
            for unpacked, packed in page_sizes(file, *chunk_range(chunk)):
                if unpacked > max(max_bytes, BUFFER, PACKED * packed):
                    raise ValueError(f'a page of {packed} bytes unpacks to {unpacked}, more than {max_bytes}; if it '
                                     f'can be trusted: --max_bytes {unpacked}')


def _column(schema, column: str | None) -> str:
    """Return the column of the images; ValueError if there is none."""
    found = [name for name in ([column] if column else IMAGES) if name in schema.names and _holds_bytes(schema, name)]
    if not found:
        wanted = f'column {column!r}' if column else f'column {", ".join(IMAGES[:-1])} or {IMAGES[-1]}'
        raise ValueError(f'no {wanted} with bytes, or with {{bytes, path}}, among: '
                         f'{", ".join(schema.names)}; --image_column names it')
    return found[0]


def _holds_bytes(schema, name: str) -> bool:
    import pyarrow as pa
    kind = schema.field(name).type
    if pa.types.is_struct(kind) and kind.get_field_index('bytes') >= 0:
        kind = kind.field('bytes').type
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _is_name(schema, name: str) -> bool:
    import pyarrow as pa
    if name not in schema.names:
        return False
    kind = schema.field(name).type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_integer(kind)


def _row(shard: str, batch, column: str, name: str | None, number: int, max_bytes: int) -> Packed:
    """Return the image of a batch of one row, the row `number` of the file."""
    value, path = batch.column(column)[0], None
    if hasattr(value, 'keys'):  # a struct
        path = value['path'] if value.is_valid and 'path' in value else None
        value = value['bytes'] if value.is_valid else None
    content = value.as_buffer() if value is not None else None
    key = _text(batch.column(name)[0]) if name else _text(path) if path is not None else ''
    key = key or str(number)
    if content is None:
        return Packed(shard, key, error='no bytes' + (', only a path, which is not followed' if _text(path) else ''))
    if content.size > max_bytes:
        return Packed(shard, key, error=too_large(content.size, max_bytes))
    return Packed(shard, key, content.to_pybytes())


def _text(value) -> str:
    """Return a text or number as str, '' if it is null; as in a path, the text need not be UTF-8."""
    if value is None or not value.is_valid:
        return ''
    return os.fsdecode(value.as_buffer()[:LONGEST].to_pybytes()) if hasattr(value, 'as_buffer') else str(value.as_py())


def read_video(shard: str, how: How) -> Iterator[Packed]:
    """Yield each `how.every`-th frame of a video."""
    for number, time, content in video.frames(shard, how.every, how.max_bytes):
        key = f'{number:06d}' + ('' if time is None else f'@{time:.3f}s')
        yield Packed(shard, key, content, time=time)


def read_compressed(shard: str, how: How) -> Iterator[Packed]:
    """Refuse a compressed tar: to skip a member, all of it would have to be unpacked."""
    raise ValueError('a compressed tar: unpack it to a .tar first, as gunzip does; its images are compressed already')


READERS: dict[str, Callable[[str, How], Iterator[Packed]]] = {  # by suffix
    '.tar': read_tar, '.parquet': read_parquet, **dict.fromkeys(video.SUFFIXES, read_video),
    **dict.fromkeys(('.tar.gz', '.tgz', '.tar.bz2', '.tbz2', '.tar.xz', '.txz', '.tar.zst'), read_compressed)}
