"""Cache decoded images, ready to be copied into batches: on disk for all processes and later runs, or in memory.

A cache on disk is two files in --cache_dir, named by a digest of the images' paths and the preprocessing:

    DIGEST.npy   uint8, all images one after the other, each (H, W, 3)
    DIGEST.json  the (h, w) of each image, the CRC-32 of its pixels, and a CRC-32 of all these; and everything else on
                 which the pixels depend: each image file's size in bytes and modification time, Pillow's version, and
                 FORMAT. It is written last: if it exists, DIGEST.npy is complete

A cache is replaced, and the reason printed, if it is truncated, if it was written from other files or by another
version, or if its first, middle or last image differs from the image file. An image whose cached pixels are damaged is
decoded again when it is read. The memory needed does not grow with the number of images.
"""
import hashlib
import json
import math
import os
import shutil
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from mmap import mmap
from pathlib import Path

import numpy as np
import PIL
from tqdm import tqdm

from iqa_data.images import ImageError
from iqa_runtime.errors import UserError, one_line
from iqa_runtime.files import locked, read_text, remove_left_over, replacing, write_text
from iqa_runtime.names import nearest

FORMAT = 3


def for_each_image(paths: Sequence[Path], work: Callable[[Path], object], title: str) -> list:
    """Return [work(path), ...], on all cores, with a progress bar; UserError names and counts unreadable images."""
    def attempt(path: Path) -> tuple:
        try:
            return work(path), ''
        except ImageError as error:
            return None, error.reason

    pool = ThreadPoolExecutor()
    try:
        results = pool.map(attempt, paths)
        results = list(tqdm(results, title, len(paths), delay=1, leave=False, disable=None))
    finally:
        pool.shutdown(cancel_futures=True)  # Ctrl-C does not wait for what has not begun
    bad = [f'{path} ({reason})' for path, (_, reason) in zip(paths, results, strict=True) if reason]
    if bad:
        more = f' and {len(bad) - 3} more' if len(bad) > 3 else ''
        raise UserError(f'{len(bad)} of {len(paths)} images cannot be read: {", ".join(bad[:3])}{more}'
                        + hint_of_missing(paths))
    return [result for result, _ in results]


def hint_of_missing(paths: Sequence[Path]) -> str:
    """Return a hint for an error message: --im_dir if all paths are missing, and the files nearest to the first one.

    If no path is missing, the hint is ''.
    """
    missing = [path for path in paths if not path.exists()]
    if not missing:
        return ''
    return ('; is --im_dir the right folder?' if len(missing) == len(paths) else '') + nearest(missing[0])


class DecodedImages:
    """N decoded images in one array; `images(path)` returns a view of it, the (H, W, 3) uint8 array of an image."""

    def __init__(self, paths: Sequence[Path], sizes: Sequence[tuple[int, int]], pixels: np.ndarray):
        ends = np.cumsum([h * w * 3 for h, w in sizes])
        self._places = {str(path): (end - h * w * 3, h, w) for path, end, (h, w) in
                        zip(paths, ends.tolist(), sizes, strict=True)}
        self._pixels = pixels

    def __call__(self, path: Path) -> np.ndarray:
        start, h, w = self._places[str(path)]
        return self._pixels[start:start + h * w * 3].reshape(h, w, 3)

    def __getstate__(self) -> dict:
        """Return the state for a worker that is not forked, with the file of a memory map instead of its content."""
        mapped = isinstance(self._pixels, np.memmap)
        return {**vars(self), '_pixels': self._pixels.filename if mapped else self._pixels}

    def __setstate__(self, state: dict) -> None:
        vars(self).update(state)
        if not isinstance(self._pixels, np.ndarray):
            self._pixels = np.load(self._pixels, mmap_mode='r', allow_pickle=False)

    def size(self, path: Path) -> tuple[int, int]:
        """Return (h, w) of an image."""
        return self._places[str(path)][1:]


class CachedImages(DecodedImages):
    """Decoded images in a memory map, each of which is checked against its CRC-32 when it is first read in a run.

    A damaged image is decoded again, and replaced in the file if possible.
    """

    def __init__(self, paths: Sequence[Path], sizes: Sequence[tuple[int, int]], pixels: np.memmap, crcs: Sequence[int],
                 preprocess):
        super().__init__(paths, sizes, pixels)
        self._crcs = {str(path): (i, crc) for i, (path, crc) in enumerate(zip(paths, crcs, strict=True))}
        self._right = np.frombuffer(mmap(-1, len(self._crcs)), bool)  # shared with workers, which are new each epoch
        self._preprocess = preprocess

    def __call__(self, path: Path) -> np.ndarray:
        pixels, (i, crc) = super().__call__(path), self._crcs[str(path)]
        if not self._right[i]:
            if zlib.crc32(pixels) != crc:
                return self._again(path)
            self._right[i] = True
        return pixels

    def _again(self, path: Path) -> np.ndarray:
        file = self._pixels.filename
        print(f'The cache {file} is damaged at {path}, which is decoded again', flush=True)
        pixels = self._preprocess.array(path)
        with suppress(OSError), open(file, 'rb+') as whole:  # a file that cannot be written stays damaged
            whole.seek(self._pixels.offset + self._places[str(path)][0])
            whole.write(pixels.tobytes())
        return pixels


def decode(paths: Sequence[Path], sizes: Sequence[tuple[int, int]], preprocess, pixels: np.ndarray) -> list[int]:
    """Fill `pixels`, flat uint8, with the preprocessed images, on all cores; return the CRC-32 of each image."""
    images = DecodedImages(paths, sizes, pixels)

    def work(path: Path) -> int:
        place, pixels = images(path), preprocess.array(path)
        if place.shape != pixels.shape:
            raise ImageError(f'its header says {place.shape[:2]} (h, w), its pixels are {pixels.shape[:2]}')
        place[:] = pixels
        return zlib.crc32(np.ascontiguousarray(pixels))
    return for_each_image(paths, work, 'Decoding images')


def _sizes(paths: Sequence[Path], preprocess) -> list[tuple[int, int]]:
    """Return the (h, w) of all images; if one cannot be read, decode all, so that the error counts all unreadable ones.
    """
    try:
        return for_each_image(paths, preprocess.size, 'Reading sizes')
    except UserError:
        for_each_image(paths, preprocess.array, 'Checking images')
        raise


def in_memory(paths: Sequence[Path], preprocess) -> DecodedImages:
    """Decode all images into this process's memory."""
    paths = sorted(set(paths))
    sizes = _sizes(paths, preprocess)
    pixels = np.empty(_bytes(sizes), np.uint8)
    print(f'Decoding {len(paths)} images into {readable(pixels.size)} of memory')
    decode(paths, sizes, preprocess, pixels)
    return DecodedImages(paths, sizes, pixels)


def on_disk(paths: Sequence[Path], preprocess, folder: str | Path) -> DecodedImages:
    """Open the cache of these images; write it first if it is missing or not valid (see the module).

    If several processes need the same cache, the first writes it and the others wait. A valid cache is only read, so
    that its folder may be read-only.
    """
    paths = sorted(set(paths))
    names = [str(path.absolute()) for path in paths]
    digest = hashlib.sha256(json.dumps([repr(preprocess), names]).encode()).hexdigest()[:16]
    file = Path(folder, f'{digest}.npy')
    depends_on = {'format': FORMAT, 'pillow': PIL.__version__,
                  'images': [content_stamp(path) for path in paths]}
    images, _ = _open(file, depends_on, paths, preprocess)
    if images is None:
        with locked(file.with_suffix('.lock'), wait=True):
            images = _open_or_make(file, depends_on, paths, preprocess)
    return images


def _open_or_make(file: Path, depends_on: dict, paths: Sequence[Path], preprocess) -> DecodedImages:
    """Open the cache, or write it if no other process has done so meanwhile; the caller holds its lock."""
    images, trouble = _open(file, depends_on, paths, preprocess)
    if images is None:
        if trouble:
            print(f'The cache {file} is not valid ({one_line(trouble)}): it is replaced')
        _make(file, depends_on, paths, preprocess)
        images, trouble = _open(file, depends_on, paths, preprocess)
    if images is None:
        raise UserError(f'{file} cannot be read back ({trouble}): --cache_dir names another place, --cache none needs '
                        'none')
    return images


def content_stamp(path: Path) -> list[int] | None:
    """Return what a file's content is known by: its size in bytes and time of change; None if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return None  # a missing image is reported when it is read
    return [status.st_size, status.st_mtime_ns]


def _open(file: Path, depends_on: dict, paths: Sequence[Path], preprocess) -> tuple[DecodedImages | None, str]:
    """Return the cache, or None with the reason why it is not valid, '' if it does not exist."""
    index = file.with_suffix('.json')
    if not file.exists() or not index.exists():
        return None, ''
    try:
        made = content_stamp(index)
        sizes, crcs = _read_index(index, depends_on, paths)
        pixels = np.load(file, mmap_mode='r', allow_pickle=False)
        if pixels.shape != (_bytes(sizes),) or pixels.dtype != np.uint8:
            raise ValueError('of another size')
        if content_stamp(index) != made:  # without the lock, the pixels may belong to another index
            raise ValueError('another process is writing it')
        images = CachedImages(paths, sizes, pixels, crcs, preprocess)
        for path in {paths[0], paths[len(paths) // 2], paths[-1]}:
            if not np.array_equal(images(path), preprocess.array(path)):
                raise ValueError(f'other pixels than {path}')
    except Exception as error:  # numpy and json raise many kinds on a broken file
        return None, str(error) or type(error).__name__
    return images, ''


def _read_index(index: Path, depends_on: dict, paths: Sequence[Path]) -> tuple[list[tuple[int, int]], list[int]]:
    """Return the (h, w) and the CRC-32 of all images; ValueError if the index is not valid or out of date."""
    made = json.loads(read_text(index, most=1 << 30))
    if not isinstance(made, dict):
        raise ValueError('no index')
    for what in ('format', 'pillow'):
        if made.get(what) != depends_on[what]:
            raise ValueError(f'made with {what} {made.get(what)}, now {depends_on[what]}')
    files = zip(paths, made.get('images'), depends_on['images'], strict=True)
    changed = [path for path, old, new in files if old != new]
    if changed:
        raise ValueError(f'{len(changed)} images changed since, as {changed[0]}')
    if made.get('checksum') != _checksum(made.get('sizes'), made.get('crcs')):
        raise ValueError('other sizes of images')
    return [(h, w) for h, w in made['sizes']], made['crcs']


def _checksum(sizes, crcs) -> int:
    return zlib.crc32(json.dumps([sizes, crcs]).encode())


def _make(file: Path, depends_on: dict, paths: Sequence[Path], preprocess) -> None:
    sizes = _sizes(paths, preprocess)
    size = _bytes(sizes)
    print(f'Decoding {len(paths)} images into {file}, {readable(size)} '
          f'({readable(shutil.disk_usage(file.parent).free)} free); later runs use it')
    index = file.with_suffix('.json')
    index.unlink(missing_ok=True)
    with array_file(file, np.uint8, (size,), 'the decoded images', '--cache none decodes as it goes') as pixels:
        crcs = decode(paths, sizes, preprocess, pixels)
    write_text(index, json.dumps({**depends_on, 'sizes': sizes, 'crcs': crcs, 'checksum': _checksum(sizes, crcs)}))


@contextmanager
def array_file(file: Path, dtype: type, shape: tuple[int, ...], what: str, instead: str) -> Iterator[np.memmap]:
    """Write an array to a file of numpy, whole or not at all: yield it as a memory map that is to be filled.

    The caller holds the file's lock, so that temporary files of killed processes are removed. Raises UserError if the
    disk has no room for `what` it is; `instead` ends the message.
    """
    remove_left_over(file.parent, lambda name: name == file.name)
    size, free = math.prod(shape) * np.dtype(dtype).itemsize, shutil.disk_usage(file.parent).free
    if size > free:
        raise UserError(f'{file.parent} has {readable(free)} free, {what} need {readable(size)}: --cache_dir names '
                        f'another place, {instead}')
    with replacing(file) as temporary:
        values = np.lib.format.open_memmap(temporary, 'w+', dtype, shape)
        if hasattr(os, 'posix_fallocate'):  # so that a full disk is an error here, not a crash in the memory map
            with open(temporary, 'rb+') as whole:
                os.posix_fallocate(whole.fileno(), 0, os.fstat(whole.fileno()).st_size)
        yield values
        values.flush()


def _bytes(sizes: Sequence[tuple[int, int]]) -> int:
    return sum(h * w * 3 for h, w in sizes)


def readable(size: int) -> str:
    """Return a number of bytes in words."""
    return f'{size / 1e9:.1f} GB' if size >= 1e9 else f'{size / 1e6:.1f} MB'
