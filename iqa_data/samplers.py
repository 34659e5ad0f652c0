"""Samplers of batches: images of one size together, and the share of each process."""
from collections.abc import Iterator, Sequence

import ignite.distributed as idist
from torch.utils.data import BatchSampler, Sampler


class SameSize(Sampler[list[int]]):
    """Batches of positions whose images share one size, so that they can be stacked; every position comes once.

    No batch has more than `batch_size` images, nor more than `most` pixels unless it is one image. Several processes
    take turns. `order` is the sequence of positions, those of rank 0 first, to put gathered predictions back in the
    data set's order.
    """

    def __init__(self, sizes: Sequence[tuple[int, int]], batch_size: int, most: int | None = None):
        groups: dict[tuple[int, int], list[int]] = {}
        for i, size in enumerate(sizes):
            groups.setdefault(size, []).append(i)
        batches = []
        for (height, width), group in groups.items():
            count = batch_size if most is None else max(1, min(batch_size, most // (height * width)))
            batches += [group[i:i + count] for i in range(0, len(group), count)]
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
