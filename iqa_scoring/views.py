"""Make views of an image at test time: variants whose scores are averaged, by name (--views)."""
from collections.abc import Callable, Iterator

import numpy as np

from iqa_data.lab import scale_lightness
from iqa_runtime.errors import UserError

__all__ = ['VIEWS', 'asna', 'crops20', 'none', 'scale_lightness', 'variants']
CROP = 224  # pixels, of maniqa_224
View = Callable[[np.ndarray], Iterator[np.ndarray]]


def none(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the image itself."""
    yield image


def asna(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the 22 variants of ASNA's evaluation, in its order.

    The image rotated counter-clockwise by 0, 90, 180 and 270 degrees; flipped top to bottom, left to right, both; with
    its lightness times .1, .2, ... 1.5.
    """
    yield from (np.rot90(image, turns) for turns in range(4))
    yield from (image[::-1], image[:, ::-1], image[::-1, ::-1])
    yield from (scale_lightness(image, tenths / 10) for tenths in range(1, 16))


def crops20(image: np.ndarray) -> Iterator[np.ndarray]:
    """Yield 20 random crops of 224x224, MANIQA's evaluation; the places are the same in all images of one size.

    Raises UserError if the image is smaller.
    """
    height, width = image.shape[:2]
    if min(height, width) < CROP:
        raise UserError(f'{width}x{height} pixels have no crops of {CROP}x{CROP}')
    rng = np.random.RandomState(0)
    for _ in range(20):
        top, left = rng.randint(height - CROP + 1), rng.randint(width - CROP + 1)
        yield image[top:top + CROP, left:left + CROP]


# name -> the variants of a uint8 RGB image (H, W, 3), one after the other; both images of a pair get the same ones
VIEWS: dict[str, View] = {'none': none, 'asna': asna, 'crops20': crops20}


def variants(image: np.ndarray, views: str = 'asna') -> list[np.ndarray]:
    """Return all variants of a uint8 RGB image (H, W, 3), each uint8 RGB."""
    return list(VIEWS[views](image))
