"""Average the scores of several trained networks over views of an image (ASNA: 4 networks, 22 views), in MOS units.

One view of a batch is made, scored by every network and released before the next, so that memory does not grow with the
number of views.
"""
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from iqa_runtime.errors import UserError
from iqa_scoring.mapping import Mapping, Scale
from iqa_scoring.scorer import Scorer
from iqa_scoring.views import VIEWS
from IQAperformance import MORE, IQAPerformance, Performance


class Average(Scorer):
    """A Scorer whose score is the mean of the scores of `scorers` over all views of an image.

    Its raw output is the mean of theirs. It has no quality maps.

    Args:
        scorers: they must preprocess alike, and agree on the number of images and on the direction of MOS.
        views: a name in VIEWS.
        names: names of the checkpoints, for the error message.
    """

    def __init__(self, scorers: Sequence[Scorer], views: str = 'none', names: Sequence[str | Path] = ()):
        first = scorers[0]
        self.scorers, self.views = list(scorers), VIEWS[views]
        self.network, self.preprocess, self.device, self.head, self.crops = (
            first.network, first.preprocess, first.device, first.head, first.crops)
        self.mapping, self.scale = Mapping('linear', (1., 0.)), common_scale([one.scale for one in scorers])
        for i, one in enumerate(scorers):
            if one.inputs != first.inputs or one.preprocess != first.preprocess:
                names = names or range(len(scorers))
                raise UserError(f'{names[i]} takes other images than {names[0]} (size, preprocessing, references): '
                                'score with each alone, and combine the tables by iqa_scoring/ensemble.py')

    has_maps, title = False, 'a mean of networks or views'

    def score(self, image, reference=None, as_loss: bool = False):
        """Return the score of an image, or of each in a batch, as Scorer.score does; no views of float tensors."""
        if not isinstance(image, Tensor):
            return super().score(image, reference, as_loss)
        if self.views is not VIEWS['none']:
            raise TypeError('views are of 8-bit images: give a path, a PIL image or a uint8 array')
        return torch.stack([scorer.score(image, reference, as_loss) for scorer in self.scorers]).mean(0)

    def measure_crops(self, *pixels: Tensor) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """Return the mean scores (N,) in MOS units, the mean raw outputs (N, 1), spreads over crops, and uncertainties.

        Of spreads (N,) the mean is returned, of uncertainties (N,) the root of the mean square.
        """
        total, count = np.zeros((len(pixels[0]), 4)), 0
        for view in views_of(pixels, self.views):
            for scorer in self.scorers:
                scores, heads, spread, uncertainty = scorer.measure_crops(*view)
                total += np.stack([scores, heads[:, 0], spread, uncertainty ** 2], 1)
                count += 1
        scores, raw, spread, variance = (total / count).T
        return scores, raw[:, None], spread, np.sqrt(variance)


def average_of(scorers: list[Scorer], views: str, files: list[Path]) -> Scorer:
    """Return the scorer itself if there is one network and one view, or else the mean."""
    return scorers[0] if len(scorers) == 1 and views == 'none' else Average(scorers, views, files)


def common_scale(scales: Sequence[Scale]) -> Scale:
    """Return the common scale, unknown if they differ; raise UserError if higher is better in some of them only."""
    first = scales[0]
    if len({scale.higher_is_better for scale in scales} - {None}) > 1:
        raise UserError('higher is better for some of the checkpoints, lower for others: their mean has no meaning')
    same = all((scale.low, scale.high, len(scale.values)) == (first.low, first.high, len(first.values))
               for scale in scales)
    return first if same else Scale(np.empty(0), higher_is_better=first.higher_is_better)


def views_of(pixels: Sequence[Tensor], views) -> Iterator[tuple[Tensor, ...]]:
    """Yield each view of a batch of images, or of pairs, uint8 (N, 3, H, W) each."""
    made = [zip(*(views(image.permute(1, 2, 0).numpy()) for image in batch), strict=True) for batch in pixels]
    for view in zip(*made, strict=True):
        yield tuple(torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) for images in view)


def performance_of(average: Average, loader: DataLoader) -> Performance:
    """Return the performance of the mean scores on a loader's images, its arrays in the data set's order."""
    metric = IQAPerformance('test', (1.,), (0.,))
    for images, (mos, std) in loader:
        scores, _, *more = map(torch.from_numpy, average.measure_crops(*images[-average.inputs:]))
        known = {name: values for name, values in zip(MORE, more, strict=True) if not values.isnan().all()}
        metric.update((scores, (mos, std), known))
    return metric.compute().in_order(loader.batch_sampler.order)
