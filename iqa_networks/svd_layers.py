"""Factored layers for any network, of which only the singular values are trained (see iqa_networks/adapted_layers.py).

A layer's weight, as a matrix W of (outputs, inputs) = U diag(S) V^T, is replaced by

    W' = U diag(ReLU(S + scale delta)) V^T

delta has one number for each singular value, initially 0, so that W' = W. Weight and bias are frozen: of a layer with m
outputs and n inputs, min(m, n) numbers are trained instead of (n + 1) m. ReLU keeps the singular values from changing
sign.

U, S and V are buffers outside the state dict. They are computed from the weight when the layer is factored, and again
when a state dict is loaded.
"""
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqa_networks.adapted_layers import Adapted, AdaptedConv2d, AdaptedLinear, adapt, adapted_layers


class Factored(Adapted):
    """The part of a factored layer that the plain layer lacks.

    Args:
        layer: the plain layer, whose weight and bias the factored layer takes over.
        scale: factor of delta.
        bias: train the bias too.
    """

    added = ('delta',)

    def __init__(self, layer: nn.Module, scale: float = 1., bias: bool = False):
        super().__init__(layer, bias)
        self.scale = scale
        self.delta = nn.Parameter(self.weight.new_zeros(min(self.weight.flatten(1).shape)))
        self.decompose()
        self.register_load_state_dict_post_hook(_decompose_again)

    def decompose(self) -> None:
        """Compute U, S and V^T of the weight, in float64 on the CPU, for the same result on every device."""
        matrix = self.weight.detach().flatten(1)
        exact = matrix.to('meta' if matrix.is_meta else 'cpu').double()  # in this order: Apple's GPUs have no float64
        for name, part in zip('USV', torch.linalg.svd(exact, full_matrices=False), strict=True):
            self.register_buffer(name, part.to(matrix.dtype).to(matrix.device), persistent=False)

    def composed(self) -> Tensor:
        """Return W', in the shape and the type of the weight, also under autocast."""
        with torch.autocast(self.delta.device.type, enabled=False):
            singular = F.relu(self.S + self.scale * self.delta)
            return (self.U * singular @ self.V).view(self.weight.shape)


class SVDLinear(Factored, AdaptedLinear):
    """A linear layer whose singular values are trained (see the module)."""


class SVDConv2d(Factored, AdaptedConv2d):
    """A convolution whose singular values are trained."""


def _decompose_again(layer: Factored, _) -> None:
    layer.decompose()


def factor(network: nn.Module, pattern: str, scale: float = 1., bias: bool = False) -> nn.Module:
    """Factor the linear layers and convolutions whose names match, in place; return the network.

    >>> network = factor(nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.LazyLinear(1)), '0')
    >>> [name for name, parameter in network.named_parameters() if parameter.requires_grad]
    ['0.delta', '2.weight', '2.bias']

    Args:
        network, pattern: see adapted_layers.adapt.
        scale, bias: see Factored.
    """
    return adapt(network, 'svd', pattern, {nn.Linear: SVDLinear, nn.Conv2d: SVDConv2d}, scale, bias)


def factored_layers(network: nn.Module) -> Iterator[tuple[str, Factored]]:
    """Iterate over the factored layers, with their names."""
    return adapted_layers(network, Factored)
