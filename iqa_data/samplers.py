"""Samplers: a reproducible order, batches of several sets, batches of one image size, and the share of each process."""
from collections.abc import Iterator, Sequence
from itertools import accumulate, islice

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
        generator = torch.Generator().manual_seed(seed_of_epoch(self.generator))
        return iter(draw_order(self.count, self.variants, generator))

    def __len__(self) -> int:
        return self.count


def seed_of_epoch(generator: torch.Generator) -> int:
    """Draw the seed of an epoch's order; the number after it is not used (see Shuffled)."""
    seed, _ = (torch.empty((), dtype=torch.int64).random_(generator=generator).item() for _ in range(2))
    return seed


def draw_order(count: int, variants: int, generator: torch.Generator) -> list[int]:
    """Draw an order of images, and a variant of each: image + count * variant."""
    order = torch.randperm(count, generator=generator)
    return (order + count * torch.randint(variants, order.shape, generator=generator)).tolist()


class Mixed(Sampler[list[int]]):
    """Batches that hold a fixed number of images of each of several sets, whose positions follow one another.

    Each set has an order of its own, which depends on the seed and the epoch alone. An epoch ends when the set that
    takes longest has been seen once; the others, and it in its last batch, begin again in another order. So all batches
    are full, and every image comes at least once. `generator` is that of Shuffled.

    Args:
        counts: images in each set.
        shares: images of each set in a batch.
        variants: of each image, as of Shuffled; a set has count * variants positions then.
    """

    def __init__(self, counts: Sequence[int], shares: Sequence[int], variants: int = 1):
        self.counts, self.shares, self.variants = counts, shares, variants
        self.generator = Shuffled(0).generator

    def __iter__(self) -> Iterator[list[int]]:
        seed = seed_of_epoch(self.generator)
        starts = accumulate((count * self.variants for count in self.counts), initial=0)
        images = [self._endless(next(starts), count, seed + i) for i, count in enumerate(self.counts)]
        for _ in range(len(self)):
            yield [i for one, share in zip(images, self.shares, strict=True) for i in islice(one, share)]

    def _endless(self, start: int, count: int, seed: int) -> Iterator[int]:
        generator = torch.Generator().manual_seed(seed)
        while True:
            yield from (start + row for row in draw_order(count, self.variants, generator))

    def __len__(self) -> int:
        return max(-(-count // share) for count, share in zip(self.counts, self.shares, strict=True))


def shares_of(batch_size: int, weights: Sequence[float]) -> list[int]:
    """Return how many images of each set a batch holds: in proportion to the weights, the largest remainders up.

    >>> shares_of(8, [2, 1])
    [5, 3]
    """
    exact = [batch_size * weight / sum(weights) for weight in weights]
    shares = [int(share) for share in exact]
    for i in sorted(range(len(exact)), key=lambda i: shares[i] - exact[i])[:batch_size - sum(shares)]:
        shares[i] += 1
    return shares


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


class ProcessShare(Sampler[list[int]]):
    """This process's share of each batch of `batches`: every world-size-th position, beginning with its rank."""

    def __init__(self, batches: BatchSampler):
        self.batches, self.world, self.rank = batches, idist.get_world_size(), idist.get_rank()

    def __iter__(self) -> Iterator[list[int]]:
        return (batch[self.rank::self.world] for batch in self.batches)

    def __len__(self) -> int:
        return len(self.batches)
