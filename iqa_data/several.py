"""Several data sets as one, and a loss that is computed for the images of each set alone."""
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, groupby

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from iqa_data.target import Target
from iqa_runtime.labels import Labels

SET = 'set'  # in Labels.more


class Together(Dataset):
    """The images of several data sets, one set after the other.

    The labels of a batch hold 'set', (N, 1) float32: the position of the image's set; and what is known in all sets.

    Args:
        datasets: as IQAdataset.IQADataset.
        augment: the changes that the sets make themselves, if any.
        variants: of each image (see iqa_data.augmentation.FixedAugmentation): a set has N variants positions.
    """

    def __init__(self, datasets: Sequence[Dataset], augment=None, variants: int = 1):
        self.datasets, self.augment = list(datasets), augment
        self.starts = list(accumulate((len(one) * variants for one in self.datasets), initial=0))
        widths = [{(name, values.shape[1]) for name, values in one.labels.more.items()} for one in self.datasets]
        self.known = [name for name, _ in sorted(set.intersection(*widths))]

    def __len__(self) -> int:
        return sum(map(len, self.datasets))

    def batch(self, rows: list[int]) -> tuple[tuple[Tensor, ...], Labels]:
        """Return a batch of images of one size, (N, 3, H, W) uint8 each, and its labels, (N, 1) each."""
        images, mos, std, more = [], [], [], []
        for place, some in groupby(rows, lambda row: bisect_right(self.starts, row) - 1):
            own, labels = self.datasets[place].batch([row - self.starts[place] for row in some])
            images.append(own)
            mos.append(labels.mos)
            std.append(labels.std)
            more.append([*(labels.more[name] for name in self.known), torch.full_like(labels.mos, place)])
        known = dict(zip([*self.known, SET], map(torch.cat, zip(*more, strict=True)), strict=True))
        return tuple(map(torch.cat, zip(*images, strict=True))), Labels(torch.cat(mos), torch.cat(std), known)


class PerSet(nn.Module):
    """A loss of each set of a batch alone; their mean, weighted by the images that the batch holds of each.

    Called with the heads (N, 1) and the labels of a batch of `Together`. Pairs and correlations are thus formed within
    a set only.

    Args:
        loss: an IQAloss.IQALoss.
        targets: of each set, what its MOS are compared as.
    """

    def __init__(self, loss: nn.Module, targets: Sequence[Target]):
        super().__init__()
        self.loss, self.targets, self.parts = loss, tuple(targets), {}

    @property
    def needs(self) -> set[str]:
        """Return the names of what the losses take (see IQALoss.needs)."""
        return self.loss.needs

    def means(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the predictions (N, 1) of the heads."""
        return self.loss.means(outputs)

    def forward(self, outputs: Sequence[Tensor], labels: Labels) -> Tensor:
        """Return the mean loss, a scalar."""
        total, self.parts = 0., {}
        sets = labels.more[SET].flatten()
        for place, target in enumerate(self.targets):
            rows = (sets == place).nonzero().flatten()
            if not len(rows):
                continue
            share, own = len(rows) / len(sets), labels.map(lambda values, rows=rows: values[rows])
            total = total + share * self.loss([head[rows] for head in outputs], own.onto(target, target.scale))
            for name, value in self.loss.parts.items():
                self.parts[name] = self.parts.get(name, 0.) + share * value
        return total
