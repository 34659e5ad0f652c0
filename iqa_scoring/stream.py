"""Scoring any number of image files: decoded in parallel, batched by size, in the order of the list, in bounded memory.

At most `workers + batch_size` images are decoded ahead, and at most WAITING bytes wait for others of their size.
"""
import io
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torchvision.transforms.functional import pil_to_tensor

from iqa_data.images import ImageError, opened, shown_size
from iqa_data.transforms import Preprocess
from iqa_runtime.errors import UserError
from iqa_runtime.names import text
from iqa_scoring.maps import quality_maps
from iqa_scoring.options import MAX_PIXELS
from iqa_scoring.scorer import Scorer

WAITING = 1 << 28   # bytes of decoded images that wait for others of their size
LAG = 16            # batches that may be scored before an image of a rare size is: results come in order


@dataclass
class Sample:
    """One image on its way: what is known so far."""

    index: int
    path: str
    pixels: torch.Tensor | None = None   # (3, H, W) uint8, preprocessed; let go once it is scored
    heads: np.ndarray | None = None      # raw outputs, the final head first
    grid: np.ndarray | None = None       # the quality map, in MOS units
    thumbnail: bytes = b''               # JPEG
    note: str = ''
    error: str = ''                      # why there is no score


class Reader:
    """Reads image files into samples; `index, path -> Sample`, whose `error` says what is wrong. Never raises.

    Args:
        preprocess: path -> PIL image (see IQAdataset.Preprocess).
        max_pixels: larger images are refused before they are decoded: a small file can hold a huge image.
        thumbnail: longest side of the thumbnail; 0 makes none.
    """

    def __init__(self, preprocess: Preprocess, max_pixels: int = MAX_PIXELS, thumbnail: int = 0):
        self.preprocess, self.max_pixels, self.thumbnail = preprocess, max_pixels, thumbnail

    def __call__(self, index: int, path: str) -> Sample:
        sample = Sample(index, path)
        try:
            with opened(path) as image:
                self._read(image, sample)
        except ImageError as error:
            sample.error = error.reason
        return sample

    def _read(self, image: Image.Image, sample: Sample) -> None:
        width, height = image.size
        if width * height > self.max_pixels:
            raise ImageError(f'{width}x{height} pixels are more than {self.max_pixels}, as in a decompression bomb; '
                             f'if it can be trusted: --max_pixels {width * height}')
        if getattr(image, 'is_animated', False) and image.format != 'MPO':
            sample.note = 'the first of several frames'
        ready = self.preprocess.of(image)
        sample.pixels = pil_to_tensor(ready)
        if self.thumbnail:
            sample.thumbnail = _thumbnail(image, ready, self.thumbnail)


def _thumbnail(image: Image.Image, ready: Image.Image, side: int) -> bytes:
    """A small JPEG with the proportions of the file's image, made of what the network sees."""
    height, width = shown_size(image)
    scale = side / max(width, height)
    small = ready.resize((max(1, round(width * scale)), max(1, round(height * scale))),
                                 Image.Resampling.BILINEAR, reducing_gap=2)
    buffer = io.BytesIO()
    small.save(buffer, 'JPEG', quality=60)
    return buffer.getvalue()


def decode(paths: Iterable[str], read: Callable[[int, str], Sample], workers: int, ahead: int) -> Iterator[Sample]:
    """read(index, path) of every path, in order, by `workers` threads, at most `ahead` before they are asked for."""
    numbered = enumerate(paths)
    with ThreadPoolExecutor(max(1, workers)) as pool:
        try:
            running = deque(pool.submit(read, *one) for one in islice(numbered, ahead))
            while running:
                yield running.popleft().result()
                running.extend(pool.submit(read, *one) for one in islice(numbered, 1))
        finally:
            pool.shutdown(cancel_futures=True)


def batches(samples: Iterable[Sample], batch_size: int, waiting: int = WAITING) -> Iterator[list[Sample]]:
    """Batches of samples that can be stacked; a sample without pixels comes at once, by itself.

    A batch is not filled where its first sample would fall LAG batches behind, or more than `waiting` bytes wait.
    """
    groups: dict[tuple[int, ...], list[Sample]] = {}  # in the order of their first samples
    held = 0
    for sample in samples:
        if sample.pixels is None:
            yield [sample]
            continue
        size = tuple(sample.pixels.shape)
        groups.setdefault(size, []).append(sample)
        held += sample.pixels.nbytes
        if len(groups[size]) == batch_size:
            held -= batch_size * sample.pixels.nbytes
            yield groups.pop(size)
        while groups and (held > waiting or sample.index - next(iter(groups.values()))[0].index >= LAG * batch_size):
            oldest = groups.pop(next(iter(groups)))
            held -= len(oldest) * oldest[0].pixels.nbytes
            yield oldest
    yield from groups.values()


def score_files(scorer: Scorer, paths: Iterable[str], read: Callable[[int, str], Sample], batch_size: int = 8,
                workers: int = 2, window: int = 0, keep: Callable[[Sample], None] = lambda sample: None,
                stop: Callable[[], bool] = lambda: False) -> Iterator[Sample]:
    """Score files; yields their samples, without pixels, in the order of `paths`.

    Args:
        read: see Reader.
        window: side of the windows of a quality map (see IQAmaps); 0 makes none.
        keep: called with each scored sample while it still has its pixels.
        stop: asked after each batch; once true, what is scored is still yielded, and nothing else is begun.
    """
    done: dict[int, Sample] = {}
    place = 0
    for batch in batches(decode(paths, read, workers, workers + batch_size), batch_size):
        if batch[0].pixels is not None:
            _score(scorer, batch, window)
        for sample in batch:
            if not sample.error:
                keep(sample)
            sample.pixels = None
            done[sample.index] = sample
        while place in done:
            yield done.pop(place)
            place += 1
        if stop():
            break
    yield from (done[index] for index in sorted(done))


def _score(scorer: Scorer, batch: list[Sample], window: int) -> None:
    """Put the heads and the map into each sample; what the network cannot take (too small a map) is its error.

    An output that is not finite is an error of the sample, too.
    """
    pixels = torch.stack([sample.pixels for sample in batch])
    try:
        heads = scorer.heads(pixels)
        grids = quality_maps(scorer, pixels, window) if window else [None] * len(batch)
    except torch.OutOfMemoryError:
        raise UserError(f'not enough memory on {scorer.device} for {len(batch)} images of {pixels.shape[3]}x'
                        f'{pixels.shape[2]} pixels: try a smaller --batch_size, or --device cpu') from None
    except (RuntimeError, UserError) as error:
        for sample in batch:
            sample.error = f'{pixels.shape[3]}x{pixels.shape[2]} pixels: ' + str(error).strip().splitlines()[0]
        return
    for sample, raw, grid in zip(batch, heads, grids, strict=True):
        if not np.isfinite(raw).all():
            sample.error = f"the network's output for it is {raw[~np.isfinite(raw)][0]:g}, which is no score"
        elif grid is not None and not np.isfinite(grid).all():
            sample.error = 'its quality map holds numbers that are not finite'
        else:
            sample.heads, sample.grid = raw, grid


def row_of(sample: Sample, scorer: Scorer, model: str, clamp: bool = False, map_path: Path | None = None) -> dict:
    """What is said of one image (see IQAtables)."""
    scale, raw = scorer.scale, float(sample.heads[0])
    score = float(scorer.mapping(raw))
    return {'name': text(sample.path), 'score': scale.clamp(score) if clamp else score, 'raw': raw,
            'percentile': scale.percentile(score), 'outside': scale.outside(score), 'mos_min': scale.low,
            'mos_max': scale.high, 'higher_is_better': scale.higher_is_better, 'model': model,
            'map': text(map_path) if map_path else None, 'note': sample.note}
