"""Images from files to the input of a network: preprocessing, augmentation, normalisation."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torchvision import transforms
from torchvision.transforms.functional import pil_to_tensor

MEAN = (.485, .456, .406)  # of ImageNet, as torchvision's weights expect
STD = (.229, .224, .225)


@dataclass(frozen=True)
class Preprocess:
    """The fixed part of preprocessing: a path in, an 8-bit RGB PIL image out; sizes are (h, w).

    The orientation that EXIF asks for is applied; 16-bit grey is scaled to 8 bits; an alpha channel is dropped; grey,
    palette and CMYK images are converted to RGB by Pillow. Then `first_resize`, then `resize`, both PIL bilinear.
    Raises OSError, SyntaxError or ValueError where the file is no image or is truncated, as Pillow does.
    """

    resize: tuple[int, int] | None = None
    first_resize: tuple[int, int] | None = None

    def __call__(self, path: str | Path) -> Image.Image:
        with Image.open(path) as image:
            return self.of(image)

    def of(self, image: Image.Image) -> Image.Image:
        """The same for an image that is open already."""
        image = to_rgb(ImageOps.exif_transpose(image))
        for size in (self.first_resize, self.resize):
            if size and image.size != (size[1], size[0]):
                image = image.resize((size[1], size[0]), Image.Resampling.BILINEAR)
        return image

    def array(self, path: str | Path) -> np.ndarray:
        """The image as a (H, W, 3) uint8 array."""
        return np.asarray(self(path))

    def size(self, path: str | Path) -> tuple[int, int]:
        """(h, w) of the image, from the file's header alone."""
        with Image.open(path) as image:
            return self.resize or self.first_resize or shown_size(image)


def shown_size(image: Image.Image) -> tuple[int, int]:
    """(h, w) of an opened image as its EXIF orientation has it shown, without decoding it."""
    turned = 5 <= image.getexif().get(ExifTags.Base.Orientation, 1) <= 8
    return image.size if turned and image.format != 'TIFF' else image.size[::-1]  # Pillow turns a TIFF's size itself


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert any PIL image to 8-bit RGB; Pillow's own conversion would clip 16-bit grey at 255, so it is scaled."""
    if image.mode.startswith('I'):
        image = Image.fromarray((np.asarray(image).clip(0, 65535) / 257).round().astype(np.uint8))
    return image.convert('RGB')


def augmentation(angle: float, crop: tuple[int, int], hflip_p: float) -> Callable[[Image.Image], torch.Tensor]:
    """The training transform with augmentation: rotate by up to `angle` degrees, flip, crop (h, w); PIL -> uint8."""
    return transforms.Compose([transforms.RandomRotation(angle), transforms.RandomHorizontalFlip(hflip_p),
                               transforms.RandomCrop(crop), pil_to_tensor])


def memory_format(size: Sequence[int]) -> torch.memory_format:
    """How networks and images of this size (..., H, W) lie in memory: channels last from 224x224 on (benchmarks/).

    Below, it gains nothing, and the order of summation stays the original's.
    """
    return torch.channels_last if size[-2] * size[-1] >= 224 * 224 else torch.contiguous_format


def normalize(images: torch.Tensor) -> torch.Tensor:
    """uint8 (N, 3, H, W) in 0..255 -> float32, divided by 255, minus MEAN, divided by STD, in that order.

    Floats are taken to be in 0..1 already; they keep their type, their gradient, and how they lie in memory.
    """
    dtype = images.dtype if images.is_floating_point() else torch.float32
    mean, std = (torch.tensor(values, dtype=dtype, device=images.device).view(1, 3, 1, 1) for values in (MEAN, STD))
    if images.is_floating_point():
        return (images - mean) / std
    return images.to(dtype, memory_format=memory_format(images.shape)).div_(255).sub_(mean).div_(std)
