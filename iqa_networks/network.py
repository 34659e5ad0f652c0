"""Define the contract of every network of the toolkit, and what local scores of a network take."""
import copy
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from iqa_networks.normalise import NORMALISATIONS, memory_format


class Network(nn.Module):
    """Base class of all networks: all that the trainer and the scorer may know of a network.

    `forward(*images)` returns a tuple of (N, 1) tensors, raw scores of the heads, the final one last. A no-reference
    network takes one batch of normalised images (N, 3, H, W); a full-reference network takes two, (reference,
    distorted). The arguments of the constructor are the options of the network, by name; `weights`, if it is among
    them, is 'imagenet', None (random) or a path.

    Attributes:
        inputs: images that the network compares: 1 (no reference) or 2 (full reference).
        heads: name of each head, in the order of the outputs.
        side: the height and width that the network needs; None if it takes any size.
        normalise: name in NORMALISATIONS of what `prepare` does to pixels: what the network was designed for, unless
            --normalise said otherwise.
        l2_layers: 'dense' and 'conv' -> the layers whose weights --l2 penalises.
        any_size: whether an exported network takes images of any size.
        frozen: names of the modules that stay in eval mode while the others train: frozen batch normalisations.
    """

    inputs: int = 1
    heads: tuple[str, ...] = ('score',)
    side: int | None = None
    normalise: str = 'imagenet'
    l2_layers: Mapping[str, Sequence[str]] = MappingProxyType({})
    any_size: bool = True
    frozen: Sequence[str] = ()

    @property
    def backbone(self) -> nn.Module | None:
        """Return the pretrained module, trained at `ft_lr_ratio` times the learning rate; None if there is none."""
        return None

    def other_names(self) -> dict[str, dict[str, str]]:
        """Return the names of the tensors in other published files: whose file -> name there -> name here.

        Tensors of the file that are not named are not loaded, those of the network stay as they were.
        """
        return {}

    def train(self, mode: bool = True) -> 'Network':
        """Set training mode, or with False eval mode; modules that are `frozen` are in eval mode always."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def prepare(self, images: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the input of `forward`: images on the network's device, of its type, normalised by its rule.

        Args:
            images: (N, 3, H, W), uint8 in 0..255 or float in 0..1; or a sequence of them, the images of a batch, of
                which the last `inputs` count: a no-reference network takes the distorted one of a pair.
        """
        images = [images] if isinstance(images, Tensor) else images[-self.inputs:]
        like = next(self.parameters(), torch.empty(0))
        normalise = NORMALISATIONS[self.normalise]

        def prepared(image: Tensor) -> Tensor:
            image = image.to(like.device, non_blocking=True)
            if image.is_floating_point():
                image = image.to(like.dtype, memory_format=memory_format(image.shape))
            return normalise(image).to(like.dtype)

        return tuple(map(prepared, images))

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Return the raw scores of the heads (see the class)."""
        raise NotImplementedError


def scored_first(heads: Sequence, scored: int = -1) -> list:
    """Return `heads`, an item per head, with that of position `scored` first, the others in their order."""
    scored %= len(heads)
    return [heads[scored], *(head for i, head in enumerate(heads) if i != scored)]


# Local scores: the windows of a map around each of its cells, and convolutions that repeat the border

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
