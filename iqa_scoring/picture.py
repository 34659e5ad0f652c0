"""A picture of one image that was scored, beside its reference."""
from pathlib import Path

import numpy as np
from torch import Tensor

from iqa_runtime.files import replacing
from iqa_scoring.scorer import Scale

TITLES = {1: ('image',), 2: ('reference', 'image')}


def write_picture(path: str | Path, images: tuple[Tensor, ...], score: float, scale: Scale) -> None:
    """Write a PNG: the images, uint8 (3, H, W), as the network sees them, and the score under them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # slow to import
    from matplotlib.figure import Figure
    height, width = images[0].shape[1:]
    figure = Figure(figsize=(4 * len(images), min(4 * height / width, 8) + 1), layout='constrained')
    FigureCanvasAgg(figure)
    for axes, image, title in zip(np.atleast_1d(figure.subplots(1, len(images))), images, TITLES[len(images)],
                                  strict=True):
        axes.imshow(image.permute(1, 2, 0).numpy())
        axes.set_axis_off()
        axes.set_title(title)
    figure.supxlabel(f'Score of the image: {score:.6g}\n{scale}', fontsize=10)
    with replacing(path) as temporary:
        figure.savefig(temporary, format='png', dpi=100)
