"""Adapt layers of any network so that their weights stay fixed and a few added parameters are trained; merge them.

An adapted layer is a linear layer or a convolution that computes with a weight W' composed of its fixed weight and its
added parameters: from singular values in iqa_networks/svd_layers.py, from a low-rank product in
iqa_networks/lora_layers.py. In the state dict, it has the names of the plain layer, and those in `added`.
"""
import copy
import fnmatch
from collections.abc import Iterator, Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from iqa_runtime.errors import UserError


class Adapted(nn.Module):
    """Base class of adapted layers: the part that the plain layer lacks.

    Args:
        layer: the plain layer, whose weight and bias the adapted layer takes over and freezes.
        bias: train the bias.

    Attributes:
        added: names of the parameters that the plain layer lacks.
    """

    added: Sequence[str] = ()

    def __init__(self, layer: nn.Module, bias: bool = False):
        super().__init__(*arguments(layer), device='meta')  # on meta, the initialisation draws no random numbers
        self.weight, self.bias = layer.weight, layer.bias
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(bias)

    def composed(self) -> Tensor:
        """Return W', in the shape and the type of the weight, also under autocast."""
        raise NotImplementedError


class AdaptedLinear(Adapted, nn.Linear):
    """A linear layer that computes with W'."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x W'^T plus the bias, for x (..., inputs)."""
        return F.linear(x, self.composed(), self.bias)


class AdaptedConv2d(Adapted, nn.Conv2d):
    """A convolution that computes with W'; the inputs of its matrix are (channel, row, column)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x (N, C, H, W) with W' plus the bias."""
        return self._conv_forward(x, self.composed(), self.bias)


# Subclasses are excluded: other code may use their weights without calling the layer.
PLAIN = (nn.Linear, nn.Conv2d)


def arguments(layer: nn.Module) -> tuple:
    """Return the constructor's arguments of a linear layer or a convolution."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, bias
    return (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
            layer.groups, bias, layer.padding_mode)


def adapt(network: nn.Module, option: str, pattern: str, kinds: Mapping[type, type[Adapted]], *settings) -> nn.Module:
    """Replace the linear layers and convolutions whose names match by adapted layers, in place; return the network.

    Args:
        network: any module.
        option: name of the option that set the pattern, for the error message.
        pattern: pattern of the layers' names, such as 'fc*' or 'features.*conv*'; UserError if no layer matches.
        kinds: class of the plain layer -> class of the adapted layer.
        settings: arguments of the adapted layer's class, after the plain layer.
    """
    plain = {name: layer for name, layer in network.named_modules() if type(layer) in PLAIN}
    matching = fnmatch.filter(plain, pattern)
    if not matching:
        some = ', '.join([*plain][:5]) + (f', ... ({len(plain)})' if len(plain) > 5 else '')
        raise UserError(f'--{option} {pattern}: no linear layer or convolution has a matching name; layers: '
                        f'{some or "none"}')
    for name in matching:
        network.set_submodule(name, kinds[type(plain[name])](plain[name], *settings))
    return network


def adapted_layers(network: nn.Module, kind: type[Adapted] = Adapted) -> Iterator[tuple[str, Adapted]]:
    """Iterate over the adapted layers of a kind, with their names."""
    return ((name, layer) for name, layer in network.named_modules() if isinstance(layer, kind))


def added_parameters(network: nn.Module) -> list[str]:
    """Return the names of the parameters that the plain network lacks."""
    return [f'{name}.{added}' for name, layer in adapted_layers(network) for added in layer.added]


def merged(network: nn.Module) -> nn.Module:
    """Return a copy of a network with its adapted layers replaced by plain layers of weight W'; else the network."""
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
    """Return the state dict of the plain network that computes the same as the adapted network."""
    return merged(network).state_dict()


def adapted_summary(network: nn.Module, kind: type[Adapted], how: str) -> str:
    """Describe the adapted layers of a kind in a line: their names, and the trained parameters with and without them.

    `how`: participle for the message, such as 'factored'.
    """
    layers, count = [name for name, _ in adapted_layers(network, kind)], count_parameters(network)
    names = ', '.join(layers[:5]) + (', ...' if len(layers) > 5 else '')
    return (f'{len(layers)} layers {how} ({names}): {count["trainable"]:,} trainable parameters instead of '
            f'{count["plain"]:,}')


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Return the numbers of 'trainable' parameters and of those of the 'plain' network, without added ones."""
    added = set(added_parameters(network))
    return {'trainable': sum(p.numel() for p in network.parameters() if p.requires_grad),
            'plain': sum(p.numel() for name, p in network.named_parameters() if name not in added)}
