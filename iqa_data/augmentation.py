"""Augmentation: change training images at random. Each part is a function under @augmentation (see iqa_data)."""
import zlib
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torchvision.transforms import v2

from iqa_data import AUGMENTATIONS, augmentation
from iqa_data.lab import scale_lightness
from iqa_runtime.errors import pick
from iqa_runtime.option_types import Degrees, Share, Side

Images = tuple[Image.Image, ...]  # one image, or (reference, distorted)
Change = Callable[..., Image.Image | Images]


class Augmentation:
    """Random changes of training images by named parts, in their order: PIL images -> equally many PIL images.

    All images of a call (a pair) get the same change, drawn from torch's global generator.

    Args:
        parts: names in AUGMENTATIONS.
        options: angle, hflip_p ... Each part gets the options that it takes.

    Attributes:
        crop: (h, w) of the crops; None if the images are not cropped.
    """

    def __init__(self, parts: tuple[str, ...], **options):
        self.parts = tuple(pick(AUGMENTATIONS, part, 'augmentation') for part in parts)
        taken = {part: AUGMENTATIONS.arguments(part, options) for part in self.parts}
        self.steps = [AUGMENTATIONS[part].build(**taken[part]) for part in self.parts]
        size = AUGMENTATIONS['crop'].options() | taken.get('crop', {})
        self.crop = (size['crop_size_h'], size['crop_size_w']) if 'crop' in self.parts else None

    def __call__(self, *images: Image.Image) -> Images:
        for step in self.steps:
            images = step(*images)
            images = images if isinstance(images, tuple) else (images,)
        return images


class FixedAugmentation:
    """An augmentation of which each image has a few variants, always the same ones.

    Args:
        augmentation: draws with torch's global generator.
        variants: of an image.
        seed: with the name of an image and the number of a variant, decides what is drawn for it.
    """

    def __init__(self, augmentation: Augmentation, variants: int, seed: int):
        self.augmentation, self.variants, self.seed = augmentation, variants, seed

    def __call__(self, name: str, variant: int, *images: Image.Image) -> Images:
        """Return the variant of the images; the global generator stays as it is."""
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(zlib.crc32(f'{self.seed} {variant} {name}'.encode()))
        try:
            return self.augmentation(*images)
        finally:
            torch.set_rng_state(before)


# The parts: on PIL images, torchvision's transforms v2 give the same pixels as v1

@augmentation('rotate')
def rotate(angle: Degrees = 2.) -> Change:
    """Rotate by a random angle.

    Args:
        angle: largest rotation in degrees.
    """
    return v2.RandomRotation(angle)


@augmentation('hflip')
def hflip(hflip_p: Share = .5) -> Change:
    """Flip horizontally at random.

    Args:
        hflip_p: probability of a flip.
    """
    return v2.RandomHorizontalFlip(hflip_p)


@augmentation('vflip')
def vflip(hflip_p: Share = .5) -> Change:
    """Flip vertically, with the probability of a horizontal flip."""
    return v2.RandomVerticalFlip(hflip_p)


@augmentation('crop')
def crop(crop_size_h: Side = 498, crop_size_w: Side = 498) -> Change:
    """Crop at a random place.

    Args:
        crop_size_h: height of the random crop.
        crop_size_w: width of the random crop.
    """
    return v2.RandomCrop((crop_size_h, crop_size_w))


@augmentation('rot90')
def rot90() -> Change:
    """Rotate by a random multiple of 90 degrees."""
    return QuarterTurn()


@augmentation('lightness')
def lightness(lightness_p: Share = 1.) -> Change:
    """Scale the lightness by a random factor.

    Args:
        lightness_p: probability of a change of lightness.
    """
    return Lightness(lightness_p)


class QuarterTurn(v2.Transform):
    """Rotate PIL images by a random multiple of 90 degrees, the same for all images of a call."""

    TURNS = (None, Image.Transpose.ROTATE_90, Image.Transpose.ROTATE_180, Image.Transpose.ROTATE_270)

    def make_params(self, flat_inputs: list) -> dict:
        """Draw the turn with torch's global generator."""
        return {'turn': self.TURNS[int(torch.randint(4, ()))]}

    def transform(self, inpt: Image.Image, params: dict) -> Image.Image:
        """Turn one image."""
        return inpt if params['turn'] is None else inpt.transpose(params['turn'])


class Lightness(v2.Transform):
    """Scale the lightness of PIL images in 8-bit Lab by a random factor in RANGE, the same for all images of a call.

    Args:
        p: probability of a change; .5 gives the same share of unchanged images as ASNA's doubled training set.
    """

    RANGE = (.3, 1.5)

    def __init__(self, p: float = 1.):
        super().__init__()
        self.p = p

    def make_params(self, flat_inputs: list) -> dict:
        """Draw whether to scale, and the factor, with torch's global generator."""
        chance, place = torch.rand(2).tolist()
        low, high = self.RANGE
        return {'factor': low + (high - low) * place if chance < self.p else None}

    def transform(self, inpt: Image.Image, params: dict) -> Image.Image:
        """Scale one image."""
        factor = params['factor']
        return inpt if factor is None else Image.fromarray(scale_lightness(np.asarray(inpt), factor))
