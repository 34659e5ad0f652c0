"""Evaluate the network during and after training: on which images, with which line to MOS, for which head."""
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean

from iqa_data.loaders import Data
from iqa_networks.network import Network
from iqa_runtime.distributed import broadcast_weights, is_main
from iqa_runtime.labels import Labels
from iqa_training.features import OnFeatures, PooledCrops, scored_crops
from IQAperformance import IQAPerformance, Performance, evaluate

Line = tuple[Sequence[float], Sequence[float]]  # k, b of each head
Performances = dict[str, Performance]  # on each data set, by its name


def lines_of(performances: Performances) -> dict[str, Line]:
    """Return the line to MOS of each data set."""
    return {name: (performance.k, performance.b) for name, performance in performances.items()}


def mean_over_sets(criterion: Callable[[Mapping[str, float]], float]) -> Callable[[Performances], float]:
    """Return the mean over data sets of a criterion of the epoch (see VAL_CRITERIA)."""
    return lambda performances: fmean(criterion(performance.criteria) for performance in performances.values())


class Evaluation:
    """Evaluates a network on the parts of a data set, or of several, each with a line to MOS of its own.

    Images are scored by the crops of `scored_crops`.

    Args:
        model, data: the network and the images.
        head: position of the scored head among the network's outputs.
        line: how raw outputs become MOS: 'fitted' by least squares, or 'target', the way back from the target.
        loss_fn: (outputs, (target, std)) -> loss; if given, a performance holds the loss.
        pbar: show progress bars.
    """

    def __init__(self, model: Network, data: Data, *, head: int = -1, line: str = 'fitted',
                 loss_fn: Callable | None = None, pbar: bool = False):
        self.model, self.data, self.head, self.pbar = model, data, head, pbar and is_main()
        self.loss_fn = loss_fn
        self.crops = scored_crops(model, data)
        self.scored = model
        if data.pooled:
            self.scored, self.crops = OnFeatures(model, data.pooled), self.crops and PooledCrops()
        heads = len(model.heads)
        self.lines = None if line == 'fitted' else {
            one.name: ([one.target.scale] * heads, [one.target.shift] * heads) for one in data.sets}
        self.loaders = {part: {one.name: one.evaluation_loader(part) for one in data.sets if part in one.names}
                        for part in data.names}

    def validate(self) -> dict[str, Performances]:
        """Return {'val': performances}, with the line of the target or one fitted on the validation images."""
        broadcast_weights(self.model)  # running statistics differ between processes: take rank 0's
        return {'val': self.of('val', self.lines)}

    def all_parts(self) -> dict[str, Performances]:
        """Return the performances on each part, with the line of the target or one fitted on the training images."""
        broadcast_weights(self.model)
        train = self.of('train', self.lines)
        return {'train': train, **{part: self.of(part, lines_of(train)) for part in self.loaders if part != 'train'}}

    def of(self, part: str, lines: Mapping[str, Line] | None) -> Performances:
        """Return the performance on a part of each data set with its line, or without lines with one fitted there."""
        return {one.name: self._on(one, part, lines and lines[one.name]) for one in self.data.sets
                if one.name in self.loaders[part]}

    def tested(self, lines: Mapping[str, Line]) -> Performances:
        """Return the performance on the tested part of each data set that has one, with its line."""
        return {one.name: self._on(one, one.tested, lines[one.name]) for one in self.data.sets if one.tested}

    def _on(self, data: Data, part: str, line: Line | None) -> Performance:
        status, (k, b) = ('test', line) if line else ('train', ((), ()))
        loss = self.loss_fn and (
            lambda outputs, scores: self.loss_fn(outputs, Labels(*scores).onto(data.target, data.target.scale)))
        metric = IQAPerformance(status, k, b, scored=self.head, loss_fn=loss)
        return evaluate(self.scored, self.loaders[part][data.name], metric, part if self.pbar else '', self.crops)
