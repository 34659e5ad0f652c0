"""Samplers: a reproducible random order, batches of images of one size, and the share of each process."""
from collections.abc import Iterator, Sequence

import ignite.distributed as idist
import torch
from torch.utils.data import BatchSampler, Sampler


class Shuffled(Sampler[int]):
    """Positions 0..count - 1 in a new random order each epoch, drawn from a generator of their own.

    `generator` starts in the current state of torch's global generator, and nothing else draws from it. The orders thus
    depend only on the seed and the epoch, not on dropout, augmentation, validations or the number of processes. An
    epoch takes three numbers: the first for the DataLoader, which has the same generator, the second for the order; the
    third is unused. The original package took them from the global generator, the third in its validation, so that its
    orders are the same.

    With several `variants` of each image, a position is image + count * variant, of a variant drawn for each image and
    epoch.
    """

    def __init__(self, count: int, variants: int = 1):
        self.count, self.variants, self.generator = count, variants, torch.Generator()
        self.generator.set_state(torch.get_rng_state())

    def __iter__(self) -> Iterator[int]:
        seed, _ = (torch.empty((), dtype=torch.int64).random_(generator=self.generator).item() for _ in range(2))
        generator = torch.Generator().manual_seed(seed)
        order = torch.randperm(self.count, generator=generator)
        return iter((order + self.count * torch.randint(self.variants, order.shape, generator=generator)).tolist())

    def __len__(self) -> int:
        return self.count


class SameSize(Sampler[list[int]]):
    """Batches of positions whose images have the same size, so that they can be stacked; every position occurs once.

    A batch has at most `batch_size` images, and at most `most` pixels unless it is a single image. Several processes
    take batches in turn. `order` is the sequence of all positions, those of rank 0 first, by which gathered predictions
    are put back into the data set's order.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], batch_size: int, most: int | None = None):
        batches = of_one_size(sizes, batch_size, most)
        world = idist.get_world_size()
        self.batches = batches[idist.get_rank()::world]
        self.order = [i for rank in range(world) for batch in batches[rank::world] for i in batch]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def of_one_size(sizes: Sequence[tuple[int, int]], batch_size: int, most: int | None = None) -> list[list[int]]:
    """Return batches of positions whose images share one size (h, w); see SameSize."""
    groups: dict[tuple[int, int], list[int]] = {}
    for i, size in enumerate(sizes):
        groups.setdefault(size, []).append(i)
    batches = []
    for (height, width), group in groups.items():
        count = batch_size if most is None else max(1, min(batch_size, most // (height * width)))
        batches += [group[i:i + count] for i in range(0, len(group), count)]
    return batches


class Share(Sampler[list[int]]):
    """This process's share of each batch of `batches`: every world-size-th position, beginning with its rank."""

    def __init__(self, batches: BatchSampler):
        self.batches, self.world, self.rank = batches, idist.get_world_size(), idist.get_rank()

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self.rank::self.world] for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)
