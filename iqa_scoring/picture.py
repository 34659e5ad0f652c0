"""A picture of one image that was scored, beside its reference; how an image of any shape is put into a figure."""
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from iqa_runtime.files import replacing
from iqa_scoring.scorer import Scale

TITLES = {1: ('image',), 2: ('reference', 'image')}
LONGEST = 4    # an image that is longer than this times its other side is drawn as if it were not
FINEST = 1600  # pixels on a side; matplotlib takes many times the memory of an image


def write_picture(path: str | Path, images: tuple[Tensor, ...], score: float, scale: Scale) -> None:
    """Write a PNG: the images, uint8 (3, H, W), as the network sees them, and the score under them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure
    size = images[0].shape[1:]
    figure = Figure(figsize=(4 * len(images), min(4 * proportion(*size), 8) + 1), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, image, title in zip(np.atleast_1d(figure.subplots(1, len(images))), images, TITLES[len(images)],
                                  strict=True):
        axes.imshow(small(to_pil_image(image)), **place(*size))
        axes.set_axis_off()
        axes.set_title(title)
    figure.supxlabel(f'Score of the image: {score:.6g}\n{scale}', fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, format='png', dpi=100)


def proportion(height: int, width: int) -> float:
    """Return the height of an image in a figure, in units of its width: its own, between 1 / LONGEST and LONGEST."""
    return min(max(height / width, 1 / LONGEST), LONGEST)


def place(height: int, width: int) -> dict:
    """Return the options of imshow that draw an image of this size, or a map of it, in its `proportion`."""
    return {'extent': (-.5, width - .5, height - .5, -.5), 'aspect': proportion(height, width) * width / height}


def small(image: Image.Image) -> Image.Image:
    """Return an image with at most FINEST pixels on a side, whatever its proportions: for `place` to stretch."""
    return image.resize([min(side, FINEST) for side in image.size], Image.Resampling.BOX, reducing_gap=3)
