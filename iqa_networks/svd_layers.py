"""Layers of which only the singular values are trained, for any network: factor it, train it, merge it.

A layer's weight, as a matrix W of (outputs, inputs) = U diag(S) V^T, is replaced by

    W' = U diag(ReLU(S + scale delta)) V^T

with one number in delta for each singular value, 0 at the start: then W' = W. Weight and bias stay as they are, so that
what is trained of a layer of m outputs and n inputs is min(m, n) numbers instead of (n + 1) m. ReLU keeps the singular
values from changing sign.

A factored layer has the names of the plain one in the state dict, and `delta`. U, S and V are buffers that are not in
it; they are computed from the weight when the layer is factored and again whenever a state dict is loaded.
"""
import copy
import fnmatch
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqa_runtime.errors import UserError


class Factored(nn.Module):
    """The part of a factored layer that is not in the plain layer.

    Args:
        layer: the plain layer; its weight and its bias become those of the factored one.
        scale: factor of delta.
        bias: train the bias too.
    """

    def __init__(self, layer: nn.Module, scale: float = 1., bias: bool = False):
        super().__init__(*arguments(layer), device='meta')  # on meta, the initialisation draws no random numbers
        self.weight, self.bias, self.scale = layer.weight, layer.bias, scale
        self.weight.requires_grad_(False)
        if self.bias is not None:
            self.bias.requires_grad_(bias)
        self.delta = nn.Parameter(self.weight.new_zeros(min(self.weight.flatten(1).shape)))
        self.decompose()
        self.register_load_state_dict_post_hook(_decompose_again)

    def decompose(self) -> None:
        """Compute U, S and V^T of the weight; in float64 on the CPU, so that they are the same on every device."""
        matrix = self.weight.detach().flatten(1)
        exact = matrix.to('meta' if matrix.is_meta else 'cpu').double()  # in this order: Apple's GPUs have no float64
        for name, part in zip('USV', torch.linalg.svd(exact, full_matrices=False), strict=True):
            self.register_buffer(name, part.to(matrix.dtype).to(matrix.device), persistent=False)

    def composed(self) -> Tensor:
        """Return W', in the shape of the weight and, under autocast too, in its type."""
        with torch.autocast(self.delta.device.type, enabled=False):
            singular = F.relu(self.S + self.scale * self.delta)
            return (self.U * singular @ self.V).view(self.weight.shape)


class SVDLinear(Factored, nn.Linear):
    """A linear layer whose singular values are trained (see the module)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return x (..., inputs) times W'^T, and the bias."""
        return F.linear(x, self.composed(), self.bias)


class SVDConv2d(Factored, nn.Conv2d):
    """A convolution whose singular values are trained; the inputs of its matrix are (channel, row, column)."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the convolution of x (N, C, H, W) with W', and the bias."""
        return self._conv_forward(x, self.composed(), self.bias)


# Not subclasses: other code may use the weights of a layer that is more than these, and never call it.
FACTORED = {nn.Linear: SVDLinear, nn.Conv2d: SVDConv2d}


def arguments(layer: nn.Module) -> tuple:
    """Return the arguments that construct a layer like a linear layer or a convolution."""
    bias = layer.bias is not None
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features, bias
    return (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding, layer.dilation,
            layer.groups, bias, layer.padding_mode)


def _decompose_again(layer: Factored, _) -> None:
    layer.decompose()


def factor(network: nn.Module, pattern: str, scale: float = 1., bias: bool = False) -> nn.Module:
    """Factor the linear layers and convolutions whose names match, in place; return the network.

    >>> network = factor(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.LazyLinear(1)), '0')
    >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    ['0.delta', '2.weight', '2.bias']

    Args:
        network: any module.
        pattern: of the layers' names in the network, as 'fc*' or 'features.*conv*'; UserError if none matches.
        scale, bias: see Factored.
    """
    plain = {name: layer for name, layer in network.named_modules() if type(layer) in FACTORED}
    matching = fnmatch.filter(plain, pattern)
    if not matching:
        some = ', '.join([*plain][:5]) + (f', ... ({len(plain)})' if len(plain) > 5 else '')
        raise UserError(f'--svd {pattern}: no linear layer or convolution has such a name; there are: {some or "none"}')
    for name in matching:
        network.set_submodule(name, FACTORED[type(plain[name])](plain[name], scale, bias))
    return network


def factored_layers(network: nn.Module) -> Iterator[tuple[str, Factored]]:
    """Return the factored layers with their names."""
    return ((name, layer) for name, layer in network.named_modules() if isinstance(layer, Factored))


def unfactored(network: nn.Module) -> nn.Module:
    """Return a copy of a network with plain layers, of weight W', instead of the factored ones; without any, itself."""
    layers = dict(factored_layers(network))
    if not layers:
        return network
    network = copy.deepcopy(network)
    for name, layer in layers.items():
        plain = next(kind for kind in FACTORED if isinstance(layer, kind))(*arguments(layer), device='meta')
        plain.weight, plain.bias = nn.Parameter(layer.composed().detach()), copy.deepcopy(layer.bias)
        network.set_submodule(name, plain.train(layer.training))
    return network


def merge(network: nn.Module) -> dict[str, Tensor]:
    """Return the state dict of the plain network that computes what the factored one does."""
    return unfactored(network).state_dict()


def factored_summary(network: nn.Module) -> str:
    """Return a line that names the factored layers, and counts the numbers trained with and without factoring."""
    layers, count = [name for name, _ in factored_layers(network)], count_parameters(network)
    names = ', '.join(layers[:5]) + (', ...' if len(layers) > 5 else '')
    return (f'{len(layers)} layers are factored ({names}): {count["trainable"]:,} trainable parameters instead of '
            f'{count["plain"]:,}')


def count_parameters(network: nn.Module) -> dict[str, int]:
    """Count the 'trainable' numbers, and those of the 'plain' network, without those that factoring added."""
    added = {id(layer.delta) for _, layer in factored_layers(network)}
    return {'trainable': sum(p.numel() for p in network.parameters() if p.requires_grad),
            'plain': sum(p.numel() for p in network.parameters() if id(p) not in added)}
