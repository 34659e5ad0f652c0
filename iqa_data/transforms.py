"""Preprocess images: the fixed steps, resizing, padding and cropping (iqa_data/augmentation.py has the random ones)."""
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torchvision.transforms import v2

from iqa_data.crops import grid_crops as grid_crops
from iqa_data.datasets import Source
from iqa_data.images import opened, shown_size, to_rgb
from iqa_runtime.errors import pick
from iqa_runtime.options import Options

Sized = TypeVar('Sized', Image.Image, torch.Tensor)


@dataclass(frozen=True)
class Preprocess:
    """The fixed preprocessing: called with a path, it returns an 8-bit RGB PIL image.

    The image is converted to 8-bit RGB (see iqa_data.images.to_rgb), resized to `first_resize`, and brought to the size
    `resize`. Raises ImageError if the file cannot be read as an image, or the image does not fit.

    Attributes:
        resize: final (h, w); None: the image keeps its size.
        first_resize: (h, w) of a first, bilinear resizing; None: no such step.
        filter: a name in FILTERS, the filter of the resizing to `resize`.
        fit: a name in FITS: resize, pad or crop to `resize`, or enlarge smaller images.
    """

    resize: tuple[int, int] | None = None
    first_resize: tuple[int, int] | None = None
    filter: str = 'bilinear'
    fit: str = 'resize'

    def __post_init__(self):
        pick(FILTERS, self.filter, 'filter')
        pick(FITS, self.fit, 'fit')

    def stored(self) -> dict:
        """Return the fields as a checkpoint stores them."""
        return asdict(self)

    def __call__(self, path: str | Path) -> Image.Image:
        with opened(path) as image:
            return self.of(image)

    def of(self, image: Image.Image) -> Image.Image:
        """Preprocess an opened image."""
        image = to_rgb(image)

        def resize(image: Image.Image, size: tuple[int, int], name: str) -> Image.Image:
            return image if image.size == size[::-1] else FILTERS[name](image, size[::-1])
        return self.sized(image, resize)

    def sized(self, image: Sized, resize: Callable[[Sized, tuple[int, int], str], Sized]) -> Sized:
        """Return an image or tensor (..., H, W) brought to the sizes by `resize(image, (h, w), name of a filter)`."""
        if self.first_resize:
            image = resize(image, self.first_resize, 'bilinear')
        if self.resize:
            image = FITS[self.fit](image, self.resize, lambda image, size: resize(image, size, self.filter))
        return image

    @property
    def keeps_all(self) -> bool:
        """Whether the whole image stays, without a border, though its proportions may change."""
        return not self.resize or self.fit in ('resize', 'enlarge')

    def array(self, path: str | Path) -> np.ndarray:
        """Return the image as a (H, W, 3) uint8 array."""
        return np.asarray(self(path))

    def size(self, path: str | Path) -> tuple[int, int]:
        """Return (h, w) of the preprocessed image, reading only the file's header."""
        with opened(path) as image:
            size = self.first_resize or shown_size(image)
        return enlarged(size, self.resize) if self.fit == 'enlarge' else self.resize or size


def _pillow(filter: Image.Resampling) -> Callable[[Image.Image, tuple[int, int]], Image.Image]:  # noqa: A002
    def resize(image: Image.Image, size: tuple[int, int]) -> Image.Image:
        return image.resize(size, filter)
    return resize


def _cubic(image: Image.Image, size: tuple[int, int]) -> Image.Image:
    """Resize as OpenCV's INTER_CUBIC does, without antialiasing; .03 % of the values differ by one level."""
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    pixels = F.interpolate(pixels, size[::-1], align_corners=False, **INTERPOLATIONS['cubic'])
    return Image.fromarray(pixels[0].round().clamp(0, 255).byte().permute(1, 2, 0).contiguous().numpy())


def resize_cubic(image: Image.Image | np.ndarray, side: int) -> Image.Image | np.ndarray:
    """Resize an RGB image to side x side, whatever its aspect ratio, with OpenCV's bicubic filter (`cubic`).

    Args:
        image: PIL image, or uint8 (H, W, 3); the same kind is returned.
        side: height and width of the result in pixels.
    """
    if isinstance(image, np.ndarray):
        return np.asarray(_cubic(Image.fromarray(image), (side, side)))
    return _cubic(image, (side, side))


# name -> (8-bit RGB image, (w, h)) -> the resized image
FILTERS: dict[str, Callable[[Image.Image, tuple[int, int]], Image.Image]] = {
    'bilinear': _pillow(Image.Resampling.BILINEAR),
    'bicubic': _pillow(Image.Resampling.BICUBIC),
    'lanczos': _pillow(Image.Resampling.LANCZOS),
    'cubic': _cubic,
}
# name -> arguments of F.interpolate that approximate the filter, for images in floating point
INTERPOLATIONS = {
    'bilinear': {'mode': 'bilinear', 'antialias': True},
    'bicubic': {'mode': 'bicubic', 'antialias': True},
    'lanczos': {'mode': 'bicubic', 'antialias': True},
    'cubic': {'mode': 'bicubic', 'antialias': False},
}


def _centre(image: Sized, size: tuple[int, int], resize: Callable) -> Sized:
    """Crop the middle; pad with black if a side is too short."""
    return v2.functional.center_crop(image, list(size))


def _whole(image: Sized, size: tuple[int, int], resize: Callable) -> Sized:
    """Pad the image with black on all sides."""
    height, width = v2.functional.get_size(image)
    if height > size[0] or width > size[1]:
        raise ValueError(f'{width}x{height} pixels cannot be padded to {size[1]}x{size[0]}: --fit crop cuts them')
    return v2.functional.center_crop(image, list(size))


def enlarged(size: tuple[int, int], least: tuple[int, int]) -> tuple[int, int]:
    """Return the (h, w) of an image after it is enlarged in proportion so that no side is below `least` (h, w)."""
    factor = max(wanted / side for wanted, side in zip(least, size, strict=True))
    if factor <= 1:
        return tuple(size)
    return tuple(max(wanted, round(side * factor)) for wanted, side in zip(least, size, strict=True))


def _enlarge(image: Sized, least: tuple[int, int], resize: Callable) -> Sized:
    """Enlarge an image in proportion if a side is below `least`."""
    size = tuple(v2.functional.get_size(image))
    return image if enlarged(size, least) == size else resize(image, enlarged(size, least))


# name -> (image or tensor, (h, w), function that resizes it) -> the image in that size, for `enlarge` in at least that
FITS: dict[str, Callable[[Sized, tuple[int, int], Callable], Sized]] = {
    'resize': lambda image, size, resize: resize(image, size), 'pad': _whole, 'crop': _centre,
    'enlarge': _enlarge,
}


def preprocess_of(args: Options, source: Source) -> Preprocess:
    """Return the fixed preprocessing that the options and the data set define."""
    if args.enlarge:
        return Preprocess((args.crop_size_h, args.crop_size_w), source.first_resize, args.filter, 'enlarge')
    size = (args.resize_size_h, args.resize_size_w) if args.resize else None
    return Preprocess(size, source.first_resize, args.filter, args.fit)
