"""Draw quality maps: where an image loses quality, as the network's features show.

A map is made of the scores of local windows: the features of each window are pooled and sent through the heads that
were trained on whole images (see IQAModel.local). It is not trained on local ratings, since there are none: it shows
how the score is composed, not what people would mark. Its cells are 32 pixels apart in a ResNet, but each sees some
hundred pixels around it; the mean of the map is close to the score of the image, but not equal to it. MANIQA scores
and weighs each patch by itself: its map shows these scores with an opacity by their weights, and their weighted mean is
the score of the image.
"""
import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

from iqa_runtime.errors import UserError
from iqa_runtime.files import replacing
from iqa_scoring.mapping import Scale
from iqa_scoring.options import WINDOW
from iqa_scoring.scorer import Scorer

if TYPE_CHECKING:  # matplotlib is slow to import: the functions that draw do it
    from matplotlib.colors import Colormap, Normalize

OPACITY = .5
OPACITY_OF_WEIGHT = .8  # of the cell with the largest weight
COLOURS = 'RdYlBu'  # bad to good, distinct for colour-blind readers too


def check_maps(scorer: Scorer) -> None:
    """Raise UserError if this scorer has no quality maps."""
    if not scorer.has_maps:
        raise UserError(f'no quality maps: {scorer.title} has no local features of an image')


def quality_maps(scorer: Scorer, pixels: Tensor, window: int = WINDOW) -> np.ndarray:
    """Return local scores in MOS units, float64, of preprocessed uint8 images (N, 3, H, W).

    (N, h, w), the size of level 7 of a LinearityIQA (a 32nd of the image in a ResNet); `window` is the side of the
    windows in cells. A network without local features that scores crops gives a map of the same size: the mean score of
    the crops that cover a cell. A network that gives each cell a weight in the score of the image, as MANIQA does,
    gives scores and weights, (N, 2, h, w). Raises UserError if the network has no `local` and scores whole images.
    """
    check_maps(scorer)
    local = scorer.local(pixels, window)
    scores, *weights = (part.cpu().double().numpy() for part in (local if isinstance(local, tuple) else [local]))
    return np.stack([scorer.mapping(scores), *weights], 1) if weights else scorer.mapping(scores)


def score_and_weight(grid: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return the scores and the weights, the largest of which is 1, of one map of `quality_maps`; each (h, w)."""
    if grid.ndim == 2:
        return grid, np.ones_like(grid)
    scores, weights = grid
    return scores, weights / weights.max() if weights.max() > 0 else np.ones_like(weights)


def colours(scale: Scale, grid: np.ndarray) -> tuple['Normalize', 'Colormap']:
    """Return the colour scale of a map: the range of the training MOS, or the map's own if that is not known."""
    from matplotlib import colormaps
    from matplotlib.colors import Normalize
    low, high = (scale.low, scale.high) if scale.low is not None else (float(grid.min()), float(grid.max()))
    name = COLOURS + ('_r' if scale.higher_is_better is False else '')
    return Normalize(low, high, clip=True), colormaps[name]


def write_map(path: str | Path, image: np.ndarray, grid: np.ndarray, scale: Scale, title: str = '',
              shown: tuple[int, int] | None = None) -> None:
    """Write a PNG: the map over the image (H, W, 3) uint8 in grey, with a bar of its colours on the MOS scale.

    Both are drawn in the proportions of `shown`, (h, w), by default those of the image.
    If cells have weights, those with lower weights let more of the image through. The size of the picture does not
    depend on that of the image: it is 800 pixels wide, and at most about 2600 high.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    scores, weights = score_and_weight(grid)
    opacity = OPACITY if grid.ndim == 2 else np.clip(OPACITY_OF_WEIGHT * weights, 0, 1)
    norm, colormap = colours(scale, scores)
    size = shown or image.shape[:2]
    figure = Figure(figsize=(8, max(1.5, 6.4 * proportion(*size) + .6)), layout='constrained')
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.imshow(small(Image.fromarray(image)).convert('L'), cmap='gray', vmin=0, vmax=255, **place(*size))
    heat = axes.imshow(scores, cmap=colormap, norm=norm, alpha=opacity, interpolation='bilinear', **place(*size))
    axes.set_axis_off()
    axes.set_title(title.replace('$', r'\$'), fontsize=10)
    bar = figure.colorbar(heat, ax=axes, label='local score (MOS scale)', fraction=.05)
    bar.solids.set_alpha(1)
    with replacing(path) as temporary:
        figure.savefig(temporary, format='png', dpi=100)


def small_map(grid: np.ndarray, scale: Scale) -> bytes:
    """Return the map's cells as a tiny PNG, one pixel a cell, to be stretched over a thumbnail."""
    scores, _ = score_and_weight(grid)
    norm, colormap = colours(scale, scores)
    rgb = (colormap(norm(scores))[:, :, :3] * 255).round().astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(rgb).save(buffer, 'PNG')
    return buffer.getvalue()


# A picture of one image that was scored, beside its reference; how an image of any shape is put into a figure

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
