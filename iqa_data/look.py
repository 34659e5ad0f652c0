"""Inspect an image file: whether it can be read, its size and mode, and numbers that images are compared by."""
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from iqa_data.images import ImageError, opened, shown_size, to_rgb
from iqa_runtime.files import sha256


class Seen(NamedTuple):
    """The properties that are read from an image in one pass."""

    error: str = ''
    size: tuple[int, int] = (0, 0)      # (h, w), as it is shown
    mode: str = ''                      # Pillow's
    digest: bytes = b''                 # of the file
    bits: np.ndarray | None = None      # (64,) bool, perceptual hash; None for a flat image
    colours: np.ndarray | None = None   # (192,) float32, see `layout`
    clarity: tuple[float, float] = (0, 0)  # sharpness and noise


def look(path: Path) -> Seen:
    """Read and decode an image once."""
    try:
        with opened(path) as image:
            mode, size, digest = image.mode, shown_size(image), sha256(path)
            rgb = to_rgb(image)
            grey = rgb.convert('L')
    except ImageError as error:
        return Seen(error.reason)
    return Seen('', size, mode, digest, perceptual_hash(grey), layout(rgb), clarity(grey))


def perceptual_hash(grey: Image.Image) -> np.ndarray | None:
    """Return whether brightness rises to the right in each of 8 x 8 cells, (64,) bool; None without contrast."""
    small = np.asarray(grey.resize((9, 8), Image.Resampling.BOX), np.int16)
    return (np.diff(small) > 0).ravel() if small.std() > 2 else None


def layout(rgb: Image.Image) -> np.ndarray:
    """Return the colours of 8 x 8 cells minus their mean, (192,) of length 1: products of two are correlations."""
    small = np.asarray(rgb.resize((8, 8), Image.Resampling.BOX), np.float32).ravel()
    small -= small.mean()
    return small / max(np.linalg.norm(small), 1e-6)


def clarity(grey: Image.Image) -> tuple[float, float]:
    """Measure the sharpness and the noise of the middle of an image, at most 512 x 512.

    Sharpness is the mean difference of neighbours at half the size, noise the second difference in flat areas. Both are
    0 for an image smaller than 18 x 18.
    """
    w, h = grey.size
    left, top = max(0, w - 512) // 2, max(0, h - 512) // 2
    x = np.asarray(grey.crop((left, top, min(w, left + 512), min(h, top + 512))), np.float32)
    x = x[:x.shape[0] // 2 * 2, :x.shape[1] // 2 * 2]
    if min(x.shape) < 18:
        return 0., 0.
    half = x.reshape(x.shape[0] // 2, 2, -1, 2).mean((1, 3))
    sharpness = np.abs(np.diff(half, axis=0)).mean() + np.abs(np.diff(half, axis=1)).mean()
    second = np.abs(np.diff(np.diff(x, 2, axis=0), 2, axis=1))
    second = second[:second.shape[0] // 16 * 16, :second.shape[1] // 16 * 16]
    blocks = second.reshape(second.shape[0] // 16, 16, -1, 16).mean((1, 3))
    return float(sharpness), float(np.quantile(blocks, .1))


def guess_direction(seen: Sequence[Seen], mos: np.ndarray) -> float:
    """Return the rank correlation of MOS (N,) with sharpness minus half the noise; above 0 if MOS rise with quality."""
    from scipy import stats  # slow to import
    clear = np.log(np.array([one.clarity for one in seen]) + .1)
    clear = (clear - clear.mean(0)) / np.maximum(clear.std(0), 1e-6) @ (1, -.5)
    return float(stats.spearmanr(clear, mos)[0]) if np.ptp(clear) and np.ptp(mos) else 0.


def weakest(n: int) -> float:
    """Return the smallest rank correlation on n images that decides a direction: .1, or two standard errors."""
    return max(.1, 2 / np.sqrt(n))
