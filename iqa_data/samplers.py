"""Samplers of batches: images of one size together, and the share of each process."""
from collections.abc import Iterator, Sequence

import ignite.distributed as idist
from torch.utils.data import BatchSampler, Sampler


class SameSize(Sampler[list[int]]):
    """Batches of positions whose images share one size, so that they can be stacked; every position comes once.

    Several processes take turns. `order` is the sequence of positions, those of rank 0 first, to put gathered
    predictions back in the data set's order.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], batch_size: int):
        groups: dict[tuple[int, int], list[int]] = {}
        for i, size in enumerate(sizes):
            groups.setdefault(size, []).append(i)
        batches = [group[i:i + batch_size] for group in groups.values() for i in range(0, len(group), batch_size)]
        world = idist.get_world_size()
        self.batches = batches[idist.get_rank()::world]
        self.order = [i for rank in range(world) for batch in batches[rank::world] for i in batch]

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class Share(Sampler[list[int]]):
    """This process's share of each batch of `batches`: every world-size-th position, beginning with its rank."""

    def __init__(self, batches: BatchSampler):
        self.batches, self.world, self.rank = batches, idist.get_world_size(), idist.get_rank()

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self.rank::self.world] for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)
