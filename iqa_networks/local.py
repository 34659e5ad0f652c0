"""Local scores: the windows of a map around each of its cells, and convolutions that repeat the border."""
import copy
import math

from torch import nn


def windows(size7: int, size6: int, width: int) -> list[tuple[slice, slice]]:
    """Return, for each cell along a side of level 7, the cells around it in levels 6 and 7, which show the same."""
    width, ratio = min(width, size7), size6 / size7
    starts = [min(max(i - width // 2, 0), size7 - width) for i in range(size7)]
    return [(slice(math.floor(i * ratio), math.ceil((i + width) * ratio)), slice(i, i + width)) for i in starts]


def twin(network: nn.Module) -> nn.Module:
    """Return a copy of a network that shares its weights and buffers, while modes and settings of layers are its own.

    Other threads may use the network meanwhile: nothing of it is written.
    """
    tensors = {id(tensor): tensor for tensor in (*network.parameters(), *network.buffers())}
    return copy.deepcopy(network, tensors)


def with_repeated_borders(network: nn.Module) -> nn.Module:
    """Return a twin of a network whose convolutions pad with the values at the border instead of with zeros."""
    network = twin(network)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.padding_mode = 'replicate'
    return network
