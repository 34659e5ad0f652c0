"""Normalise pixels on the device: convert 8-bit images to the range that a network was designed for."""
from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Normalise:
    """Divide pixels by 255, subtract `mean`, divide by `std`; `bgr`: put blue first. Called with (N, 3, H, W).

    uint8 becomes float32. Floats are expected in 0..1, are not divided by 255, and keep their type, gradient and memory
    format.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    bgr: bool = False

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        if self.bgr:
            images = images.flip(1)
        dtype = images.dtype if images.is_floating_point() else torch.float32
        mean, std = (torch.tensor(values, dtype=dtype, device=images.device).view(1, 3, 1, 1)
                     for values in (self.mean, self.std))
        if images.is_floating_point():
            return (images - mean) / std
        return images.to(dtype, memory_format=memory_format(images.shape)).div_(255).sub_(mean).div_(std)


NORMALISATIONS = {
    'imagenet': Normalise((.485, .456, .406), (.229, .224, .225)),  # as torchvision's weights expect
    'none': Normalise((0, 0, 0), (1, 1, 1)),                        # 0..1
    'half': Normalise((.5, .5, .5), (.5, .5, .5)),                  # -1..1
    'half-bgr': Normalise((.5, .5, .5), (.5, .5, .5), bgr=True),    # -1..1, blue first
}


def memory_format(size: Sequence[int]) -> torch.memory_format:
    """Return the memory format of networks and images of size (..., H, W): channels last from 224x224 on.

    For smaller images it gains nothing, and the default format keeps the original's order of summation.
    """
    return torch.channels_last if size[-2] * size[-1] >= 224 * 224 else torch.contiguous_format
