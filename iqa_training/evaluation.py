"""Evaluate the network during and after training: on which images, with which line to MOS, for which head."""
from collections.abc import Callable

from iqa_networks.network import Network
from iqa_runtime.distributed import broadcast_weights, is_main
from iqa_runtime.labels import Labels
from iqa_training.features import OnFeatures, PooledCrops, scored_crops
from IQAdataset import Data
from IQAperformance import IQAPerformance, Performance, evaluate


class Evaluation:
    """Evaluates a network on the parts of a data set.

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
        target = data.target
        self.loss_fn = loss_fn and (
            lambda outputs, scores: loss_fn(outputs, Labels(*scores).onto(target, target.scale)))
        self.crops = scored_crops(model, data)
        self.scored = model
        if data.pooled:
            self.scored, self.crops = OnFeatures(model, data.pooled), self.crops and PooledCrops()
        heads = len(model.heads)
        self.line = None if line == 'fitted' else ([data.target.scale] * heads, [data.target.shift] * heads)
        self.loaders = {part: data.evaluation_loader(part) for part in data.names}

    def validate(self) -> dict[str, Performance]:
        """Return {'val': performance}, with the line of the target or one fitted on the validation images."""
        broadcast_weights(self.model)  # running statistics differ between processes: take rank 0's
        return {'val': self.of('val', self.line)}

    def all_parts(self) -> dict[str, Performance]:
        """Return the performance on each part, with the line of the target or one fitted on the training images."""
        broadcast_weights(self.model)
        train = self.of('train', self.line)
        return {'train': train, **{part: self.of(part, (train.k, train.b)) for part in self.loaders
                                   if part != 'train'}}

    def of(self, part: str, line: tuple[list[float], list[float]] | None) -> Performance:
        """Return the performance on a part with the line (k, b of each head); None: with a line fitted on the part."""
        status, (k, b) = ('test', line) if line else ('train', ((), ()))
        metric = IQAPerformance(status, k, b, scored=self.head, loss_fn=self.loss_fn)
        return evaluate(self.scored, self.loaders[part], metric, part if self.pbar else '', self.crops)
