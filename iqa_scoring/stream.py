"""Score any number of image files: decoded in parallel, batched by size, in the order of the list, in bounded memory.

At most `workers + batch_size` images are decoded ahead. At most WAITING bytes wait to be decoded, and at most WAITING
bytes of decoded images wait for others of the same size.
"""
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageChops
from torchvision.transforms.functional import pil_to_tensor

from iqa_data.images import ImageError, opened, shown_size
from iqa_data.transforms import Preprocess
from iqa_runtime.errors import UserError
from iqa_runtime.names import path_text
from iqa_scoring.maps import quality_maps
from iqa_scoring.options import MAX_PIXELS
from iqa_scoring.references import Item
from iqa_scoring.scorer import Scorer
from iqa_scoring.shards import End, Packed

Work = Item | Packed | End
WAITING = 1 << 28   # bytes of images in shards that wait to be decoded; of decoded ones that wait for others of a size
WHITE = 64          # levels of lightness, of 255, from which on a difference of a pair is drawn white
LAG = 16            # batches that may be scored before an image of a rare size is: results come in order


@dataclass
class Sample:
    """An image that is being scored, with the results so far."""

    index: int
    path: str
    pixels: torch.Tensor | None = None   # (3, H, W) uint8, preprocessed; None once it is scored
    shown: tuple[int, int] | None = None  # (h, w), the proportions of pictures of it
    heads: np.ndarray | None = None      # raw outputs, the final head first
    grid: np.ndarray | None = None       # the quality map, in MOS units
    thumbnail: bytes = b''               # JPEG
    note: str = ''
    error: str = ''                      # why there is no score
    score: float | None = None           # in MOS units
    spread: float | None = None          # standard deviation over the crops, in MOS units; None without crops
    uncertainty: float | None = None     # that of the predicted distribution; None of a network that predicts a score
    reference: str = ''                  # of a pair: the path of the reference, its pixels, thumbnails of both
    reference_pixels: torch.Tensor | None = None
    reference_thumbnail: bytes = b''
    difference_thumbnail: bytes = b''
    shard: str = ''                      # of an image in a shard, and its name there
    key: str = ''
    time: float | None = None            # of a frame of a video, in seconds
    ended: bool = False                  # no image, but the end of a shard (see shards.End)

    @classmethod
    def of(cls, index: int, item: Work) -> 'Sample':
        """Return the sample of an item that has not been read."""
        if isinstance(item, End):
            return cls(index, item.path, error=item.error, ended=True)
        if isinstance(item, Packed):
            return cls(index, item.path, shard=item.shard, key=item.key, time=item.time)
        reference, path = ('', item) if isinstance(item, str) else item
        return cls(index, path, reference=reference)

    @property
    def inputs(self) -> tuple[torch.Tensor, ...]:
        """Return the images that the network compares, reference first."""
        return (self.pixels,) if self.reference_pixels is None else (self.reference_pixels, self.pixels)

    @property
    def nbytes(self) -> int:
        """Return the bytes of the images."""
        return sum(image.nbytes for image in self.inputs)

    def let_go(self) -> None:
        """Release the pixels."""
        self.pixels = self.reference_pixels = None


class Reader:
    """Reads images into samples: `index, path -> Sample`, whose `error` describes any problem. Never raises.

    Instead of a path, it takes a pair of paths (reference, distorted), an image in a shard, or the end of a shard.

    Args:
        preprocess: path -> PIL image (see iqa_data.transforms.Preprocess).
        max_pixels: larger images are refused before they are decoded: a small file can hold a huge image.
        thumbnail: longest side of the thumbnail; 0 makes none.
    """

    def __init__(self, preprocess: Preprocess, max_pixels: int = MAX_PIXELS, thumbnail: int = 0):
        self.preprocess, self.max_pixels, self.thumbnail = preprocess, max_pixels, thumbnail

    def __call__(self, index: int, item: Work) -> Sample:
        sample = Sample.of(index, item)
        if sample.ended:
            return sample
        try:
            image = self._read(io.BytesIO(item.bytes()) if isinstance(item, Packed) else sample.path, sample)
        except ImageError as error:
            sample.error = error.reason
            return sample
        if sample.reference:
            try:
                self._compare(image, self._read(sample.reference, Sample(index, sample.reference)), sample)
            except ImageError as error:
                sample.error = f'its reference {path_text(sample.reference)}: {error.reason}'
        sample.pixels = None if sample.error else pil_to_tensor(image)
        return sample

    def _read(self, file: str | BinaryIO, sample: Sample) -> Image.Image:
        """Return the preprocessed image; put a note and the thumbnail into the sample."""
        with opened(file) as image:
            width, height = image.size
            if width * height > self.max_pixels:
                raise ImageError(f'{width}x{height} pixels are more than {self.max_pixels}, as in a decompression '
                                 f'bomb; if it can be trusted: --max_pixels {width * height}')
            if getattr(image, 'is_animated', False) and image.format != 'MPO':
                sample.note = 'the first of several frames'
            ready = self.preprocess.of(image)
            sample.shown = shown_size(image) if self.preprocess.keeps_all else ready.size[::-1]
            if self.thumbnail:
                sample.thumbnail = _thumbnail(ready, sample.shown, self.thumbnail)
        return ready

    def _compare(self, image: Image.Image, reference: Image.Image, sample: Sample) -> None:
        """Put the reference, and with thumbnails the difference, into the sample of the image."""
        if image.size != reference.size:
            raise ImageError(f'{reference.width}x{reference.height} pixels, the image has {image.width}x{image.height}')
        sample.reference_pixels = pil_to_tensor(reference)
        if self.thumbnail:
            sample.reference_thumbnail = _thumbnail(reference, sample.shown, self.thumbnail)
            sample.difference_thumbnail = _thumbnail(difference_image(reference, image), sample.shown, self.thumbnail)


def difference_image(reference: Image.Image, image: Image.Image) -> Image.Image:
    """Return |image - reference| of the lightness as grey, of all pairs on one scale: white from WHITE levels on."""
    difference = ImageChops.difference(reference.convert('L'), image.convert('L'))
    return difference.point([min(255, level * 255 // WHITE) for level in range(256)])


def _thumbnail(ready: Image.Image, shown: tuple[int, int], side: int) -> bytes:
    """Return a small JPEG of the network's input in the proportions of `shown`, (h, w)."""
    height, width = shown
    scale = side / max(width, height)
    small = ready.resize((max(1, round(width * scale)), max(1, round(height * scale))),
                                 Image.Resampling.BILINEAR, reducing_gap=2)
    buffer = io.BytesIO()
    small.save(buffer, 'JPEG', quality=60)
    return buffer.getvalue()


def decode(items: Iterable[Work], read: Callable[[int, Work], Sample], workers: int, ahead: int) -> Iterator[Sample]:
    """Yield read(index, item) of every item, in order, by `workers` threads, at most `ahead` of the consumer.

    At most WAITING bytes of images in shards are held, or a single larger image.
    """
    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            running, held = deque(), 0
            for index, item in enumerate(items):
                size = len(item.content) if isinstance(item, Packed) else 0
                while running and (len(running) == ahead or held + size > WAITING):
                    future, done = running.popleft()
                    yield future.result()
                    held -= done
                running.append((pool.submit(read, index, item), size))
                held += size
            while running:
                yield running.popleft()[0].result()
        finally:
            pool.shutdown(cancel_futures=True)


def batches(samples: Iterable[Sample], batch_size: int, waiting: int = WAITING) -> Iterator[list[Sample]]:
    """Yield batches of samples of one size; a sample without pixels is yielded at once, by itself.

    A batch is yielded unfilled if its first sample would fall LAG batches behind, or if more than `waiting` bytes wait.
    """
    groups: dict[tuple[int, ...], list[Sample]] = {}  # in the order of their first samples
    held = 0
    for sample in samples:
        if sample.pixels is None:
            yield [sample]
            continue
        size = tuple(sample.pixels.shape)
        groups.setdefault(size, []).append(sample)
        held += sample.nbytes
        if len(groups[size]) == batch_size:
            held -= batch_size * sample.nbytes
            yield groups.pop(size)
        while groups and (held > waiting or sample.index - next(iter(groups.values()))[0].index >= LAG * batch_size):
            oldest = groups.pop(next(iter(groups)))
            held -= len(oldest) * oldest[0].nbytes
            yield oldest
    yield from groups.values()


def score_files(scorer: Scorer, paths: Iterable[Work], read: Callable[[int, Work], Sample], batch_size: int = 8,
                workers: int = 2, window: int = 0, keep: Callable[[Sample], None] = lambda sample: None,
                stop: Callable[[], bool] = lambda: False) -> Iterator[Sample]:
    """Score files; yield their samples, without pixels, in the order of `paths`.

    Args:
        paths: files, pairs of files (reference, distorted), or images in shards and ends of shards (see shards.py);
            an end comes only after all images before it.
        read: see Reader.
        window: side of the windows of a quality map (see iqa_scoring/maps.py); 0 makes none.
        keep: called with each scored sample while it still has its pixels.
        stop: called after each batch; once it returns true, scored samples are still yielded, and no others are begun.
    """
    done: dict[int, Sample] = {}
    place = 0
    for batch in batches(decode(paths, read, workers, workers + batch_size), batch_size):
        if batch[0].pixels is not None:
            _score(scorer, batch, window)
        for sample in batch:
            if not sample.error and not sample.ended:
                keep(sample)
            sample.let_go()
            done[sample.index] = sample
        while place in done:
            yield done.pop(place)
            place += 1
        if stop():
            break
    yield from (done[index] for index in sorted(done) if not done[index].ended)


def _score(scorer: Scorer, batch: list[Sample], window: int) -> None:
    """Put the heads and the map into each sample, or an error if the network does not accept its size.

    An output that is not finite is an error of the sample too.
    """
    inputs = [torch.stack(images) for images in zip(*(sample.inputs for sample in batch), strict=True)]
    pixels = inputs[-1]
    try:
        scores, heads, *deviations = scorer.measure_crops(*inputs)
        grids = quality_maps(scorer, pixels, window) if window else [None] * len(batch)
    except torch.OutOfMemoryError:
        raise UserError(f'not enough memory on {scorer.device} for {len(batch)} images of {pixels.shape[3]}x'
                        f'{pixels.shape[2]} pixels: try a smaller --batch_size, or --device cpu') from None
    except (RuntimeError, ValueError) as error:
        for sample in batch:
            sample.error = f'{pixels.shape[3]}x{pixels.shape[2]} pixels: ' + str(error).strip().splitlines()[0]
        return
    for sample, score, raw, grid, *known in zip(batch, scores, heads, grids, *deviations, strict=True):
        if not np.isfinite(raw).all():
            sample.error = f"the network's output for it is {raw[~np.isfinite(raw)][0]:g}, which is not a score"
        elif grid is not None and not np.isfinite(grid).all():
            sample.error = 'its quality map holds numbers that are not finite'
        else:
            sample.score, sample.heads, sample.grid = float(score), raw, grid
            sample.spread, sample.uncertainty = (float(one) if np.isfinite(one) else None for one in known)


def row_of(sample: Sample, scorer: Scorer, model: str, clamp: bool = False, map_path: Path | None = None) -> dict:
    """Return the row of one image (see iqa_scoring/tables.py), with its shard and key for a Parquet."""
    scale, score, raw = scorer.scale, sample.score, float(sample.heads[0])
    return {'name': path_text(sample.path), 'score': scale.clamp(score) if clamp else score, 'raw': raw,
            'percentile': scale.percentile(score), 'outside': scale.outside(score), 'mos_min': scale.low,
            'mos_max': scale.high, 'higher_is_better': scale.higher_is_better, 'model': model,
            'map': path_text(map_path) if map_path else None, 'note': sample.note,
            'reference': path_text(sample.reference), 'spread': sample.spread, 'uncertainty': sample.uncertainty,
            'shard': path_text(sample.shard), 'key': path_text(sample.key)}
