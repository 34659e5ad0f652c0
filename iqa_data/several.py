"""Train on several data sets at once: their images together, batches with a share of each, and a loss of each set."""
from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate, groupby

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from iqa_data.loaders import Data
from iqa_data.samplers import Mixed, ProcessShare, shares_of
from iqa_data.target import Target
from iqa_runtime.errors import UserError
from iqa_runtime.labels import Labels
from iqa_runtime.names import PARTS
from iqa_runtime.split_file import names_in_parts

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


@dataclass
class SeveralData(Data):
    """Several data sets that are trained on at once; a name of an image begins with that of its set.

    The labels of its batches hold 'set', the position of the image's set (see iqa_data/several.py).

    Attributes:
        sets: the data sets.
        shares: images of each in a training batch.
    """

    sets: tuple[Data, ...] = ()
    shares: tuple[int, ...] = ()

    @classmethod
    def of(cls, sets: Sequence[Data], weights: Sequence[float] | None = None) -> 'SeveralData':
        """Put data sets together; `weights`: their shares of a batch, equal ones by default.

        Raises UserError if a set has no image in a batch, or fewer images than its share.
        """
        first, shares = sets[0], shares_of(sets[0].batch_size, weights or [1] * len(sets))
        for one, share in zip(sets, shares, strict=True):
            check_share(one, share)
        parts = {part: [one for one in sets if part in one.names] for part in PARTS}
        parts = {part: some for part, some in parts.items() if some}
        datasets = {part: Together([one.datasets[part] for one in some]) for part, some in parts.items()}
        sizes = {part: [size for one in some for size in one.sizes[part]] for part, some in parts.items()}
        names = names_in_parts([one.name for one in sets], [one.names for one in sets])
        of_all = {key: value for key, value in vars(first).items() if key not in ('sets', 'shares')}
        return cls(**{**of_all, 'name': '+'.join(one.name for one in sets), 'names': names, 'datasets': datasets,
                      'sizes': sizes, 'target': Target()}, sets=tuple(sets), shares=tuple(shares))

    def each(self, change: Callable[[Data], Data]) -> 'SeveralData':
        """Return the data with a change of each data set."""
        return self.of([change(one) for one in self.sets], self.shares)

    def training_loader(self, fewest: int = 1) -> DataLoader:
        """Return batches that hold the share of each set, in orders as of Data.training_loader (see samplers.Mixed)."""
        several, variants = [one.datasets['train'].repeated(self.train_crops) for one in self.sets], 1
        for dataset, one in zip(several, self.sets, strict=True):
            dataset.augment = one.fixed or one.augment
            variants = one.fixed.variants if one.fixed else 1
        order = Mixed(list(map(len, several)), self.shares, variants)
        shares = {one.name: share for one, share in zip(self.sets, self.shares, strict=True)}
        held = ', '.join(f'{share} of {name}' for name, share in shares.items())
        print(f'A batch of {self.batch_size} holds {held}; an epoch is {len(order)} batches, in which each image comes '
              'at least once')
        for name in (name for name, share in shares.items() if share == 1):
            print(f'WARNING: a batch holds 1 image of {name}: losses of pairs and of correlations learn nothing of it')
        dataset = Together(several, self.fixed or self.augment, variants)
        return self._loader(dataset, ProcessShare(order), order.generator)


def check_share(data: Data, share: int) -> None:
    """Raise UserError if a batch can have no images of a set, or more than its training set has."""
    if not share:
        raise UserError(f'--batch_size {data.batch_size} leaves no image of {data.name} in a batch: give a larger one, '
                        'or other --data_weights')
    if share > (count := len(data.datasets['train']) * data.train_crops):
        raise UserError(f'{data.name} has {count} training image{"s" * (count > 1)}, fewer than the {share} that a '
                        'batch holds of it: --batch_size and --data_weights say how many')


def turned(sets: Sequence[Data]) -> Sequence[Data]:
    """Turn the targets of data sets whose scores fall with quality, if those of others rise: one network learns both.
    """
    if len({data.higher_is_better for data in sets}) > 1:
        for data in sets:
            if not data.higher_is_better:
                data.target = replace(data.target, scale=-data.target.scale)
    return sets
