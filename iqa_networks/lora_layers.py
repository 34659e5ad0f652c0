"""LoRA for any network: layers whose weight is fixed, and to which a trained product of low rank is added.

E. J. Hu et al.: LoRA: Low-Rank Adaptation of Large Language Models, ICLR 2022 (arXiv 2106.09685), equation 3. A layer's
weight, as a matrix W of (outputs, inputs), is replaced by

    W' = W + (alpha / r) B A,        B (outputs, r), A (r, inputs)

B starts at 0, so that W' = W. Weight and bias are frozen: of a layer with m outputs and n inputs, r (m + n) numbers are
trained instead of (n + 1) m. See iqa_networks/adapted_layers.py.
"""
import math

import torch
from torch import Tensor, nn

from iqa_networks.adapted_layers import Adapted, AdaptedConv2d, AdaptedLinear, adapt
from iqa_runtime.errors import UserError

RANK = 4


class LowRank(Adapted):
    """The part of a LoRA layer that the plain layer lacks.

    Args:
        layer: the plain layer, whose weight and bias the LoRA layer takes over.
        rank: rank r, at most the number of outputs or inputs of the layer.
        alpha: numerator of the product's factor alpha / r (default: r, a factor of 1).
    """

    added = ('lora_a', 'lora_b')

    def __init__(self, layer: nn.Module, rank: int = RANK, alpha: float | None = None):
        super().__init__(layer)
        outputs, inputs = self.weight.flatten(1).shape
        if rank < 1:
            raise UserError(f'rank {rank}: expected at least 1')
        rank = min(rank, outputs, inputs)
        self.scale = 1. if alpha is None else alpha / rank
        self.lora_a = nn.Parameter(self.weight.new_empty(rank, inputs))
        self.lora_b = nn.Parameter(self.weight.new_zeros(outputs, rank))
        nn.init.kaiming_uniform_(self.lora_a, a=math.sqrt(5))  # as torch initialises a linear layer's weight

    def composed(self) -> Tensor:
        """Return W', in the shape and the type of the weight, also under autocast."""
        with torch.autocast(self.lora_a.device.type, enabled=False):
            return self.weight + self.scale * (self.lora_b @ self.lora_a).view(self.weight.shape)


class LoRALinear(LowRank, AdaptedLinear):
    """A linear layer with a trained product of low rank added to its weight (see the module)."""


class LoRAConv2d(LowRank, AdaptedConv2d):
    """A convolution with a trained product of low rank added to its weight."""


def add_low_rank(network: nn.Module, pattern: str, rank: int = RANK, alpha: float | None = None) -> nn.Module:
    """Add products of low rank to the linear layers and convolutions whose names match, in place; return the network.

    >>> network = add_low_rank(nn.Sequential(nn.Linear(8, 6), nn.Linear(6, 1)), '0', rank=2)
    >>> [(name, parameter.numel()) for name, parameter in network.named_parameters() if parameter.requires_grad]
    [('0.lora_a', 16), ('0.lora_b', 12), ('1.weight', 6), ('1.bias', 1)]

    Args:
        network, pattern: see adapted_layers.adapt.
        rank, alpha: see LowRank.
    """
    return adapt(network, 'lora', pattern, {nn.Linear: LoRALinear, nn.Conv2d: LoRAConv2d}, rank, alpha)
