"""Layers whose weight stays as it is while a few numbers beside it are trained, in any network; and merging them.

An adapted layer is a linear layer or a convolution that computes with W', made of its own weight and of the parameters
that it adds. In the state dict it has the names of the plain layer, and its `added` ones. How W' is made: of singular
values in iqa_networks/svd_layers.py, of a product of low rank in iqa_networks/lora_layers.py.
"""
import copy
import fnmatch
from collections.abc import Iterator, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from iqa_runtime.errors import UserError


class Adapted(nn.Module):
    """The part of an adapted layer that is not in the plain layer.

    Args:
        layer: the plain layer; its weight and its bias become those of the adapted one, and are frozen.
        bias: train the bias.

    Attributes:
        added: names of the parameters that the plain layer does not have.
    """

    added: Sequence[str] = ()

    def __init__(self, layer: nn.Module, bias: bool = False):
        super().__init__(*arguments(layer), device='meta')  # on meta, the initialisation draws no random numbers
        self.weight, self.bias = layer.weight, layer.bias
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(bias)

    def composed(self) -> Tensor:
        """Return W', in the shape of the weight and, under autocast too, in its type."""
        raise NotImplementedError


class AdaptedLinear(Adapted, nn.Linear):
    """A linear layer that computes with W'."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x (..., inputs) times W'^T, and the bias."""
        return F.linear(x, self.composed(), self.bias)


class AdaptedConv2d(Adapted, nn.Conv2d):
    """A convolution that computes with W'; the inputs of its matrix are (channel, row, column)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x (N, C, H, W) with W', and the bias."""
        return self._conv_forward(x, self.composed(), self.bias)


# Not subclasses: other code may use the weights of a layer that is more than these, and never call it.
PLAIN = (nn.Linear, nn.Conv2d)


def arguments(layer: nn.Module) -> tuple:
    """Return the arguments that construct a layer like a linear layer or a convolution."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, bias
    return (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
            layer.groups, bias, layer.padding_mode)


def adapt(network: nn.Module, option: str, pattern: str, kinds: Mapping[type, type[Adapted]], *settings) -> nn.Module:
    """Replace the linear layers and convolutions whose names match by adapted ones, in place; return the network.

    Args:
        network: any module.
        option: name of the option that gave the pattern, for the error.
        pattern: of the layers' names in the network, as 'fc*' or 'features.*conv*'; UserError if none matches.
        kinds: class of plain layers -> class of the adapted ones, which is called with the layer and `settings`.
    """
    plain = {name: layer for name, layer in network.named_modules() if type(layer) in PLAIN}
    matching = fnmatch.filter(plain, pattern)
    if not matching:
        some = ', '.join([*plain][:5]) + (f', ... ({len(plain)})' if len(plain) > 5 else '')
        raise UserError(f'--{option} {pattern}: no linear layer or convolution has such a name; there are: '
                        f'{some or "none"}')
    for name in matching:
        network.set_submodule(name, kinds[type(plain[name])](plain[name], *settings))
    return network


def adapted_layers(network: nn.Module, kind: type[Adapted] = Adapted) -> Iterator[tuple[str, Adapted]]:
    """Return the adapted layers of a kind with their names."""
    return ((name, layer) for name, layer in network.named_modules() if isinstance(layer, kind))


def added_parameters(network: nn.Module) -> list[str]:
    """Return the names of the parameters that the plain network does not have."""
    return [f'{name}.{added}' for name, layer in adapted_layers(network) for added in layer.added]


def merged(network: nn.Module) -> nn.Module:
    """Return a copy of a network with plain layers, of weight W', instead of the adapted ones; without any, itself."""
    layers = dict(adapted_layers(network))
    if not layers:
        return network
    network = copy.deepcopy(network)
    for name, layer in layers.items():
        plain = next(kind for kind in PLAIN if isinstance(layer, kind))(*arguments(layer), device='meta')
        plain.weight, plain.bias = nn.Parameter(layer.composed().detach()), copy.deepcopy(layer.bias)
        network.set_submodule(name, plain.train(layer.training))
    return network


def merge(network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of the plain network that computes what the adapted one does."""
    return merged(network).state_dict()


def adapted_summary(network: nn.Module, kind: type[Adapted], how: str) -> str:
    """Return a line that names the layers of a kind, and counts the numbers trained with and without adapted layers."""
    layers, count = [name for name, _ in adapted_layers(network, kind)], count_parameters(network)
    names = ', '.join(layers[:5]) + (', ...' if len(layers) > 5 else '')
    return (f'{len(layers)} layers {how} ({names}): {count["trainable"]:,} trainable parameters instead of '
            f'{count["plain"]:,}')


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Count the 'trainable' numbers, and those of the 'plain' network, without those that adapted layers add."""
    added = set(added_parameters(network))
    return {'trainable': sum(p.numel() for p in network.parameters() if p.requires_grad),
            'plain': sum(p.numel() for name, p in network.named_parameters() if name not in added)}
