"""Local scores: the windows of a map around each of its cells, and convolutions that repeat the border."""
import math
from collections.abc import Iterator
from contextlib import contextmanager

from torch import nn


def windows(size7: int, size6: int, width: int) -> list[tuple[slice, slice]]:
    """Return, for each cell along a side of level 7, the cells around it in levels 6 and 7, which show the same."""
    width, ratio = min(width, size7), size6 / size7
    starts = [min(max(i - width // 2, 0), size7 - width) for i in range(size7)]
    return [(slice(math.floor(i * ratio), math.ceil((i + width) * ratio)), slice(i, i + width)) for i in starts]


@contextmanager
def repeated_borders(network: nn.Module) -> Iterator[None]:
    """Let the convolutions pad with the values at the border, as long as the context lasts, instead of with zeros."""
    convolutions = [layer for layer in network.modules() if isinstance(layer, nn.Conv2d)]
    before = [layer.padding_mode for layer in convolutions]
    try:
        for layer in convolutions:
            layer.padding_mode = 'replicate'
        yield
    finally:
        for layer, mode in zip(convolutions, before, strict=True):
            layer.padding_mode = mode
