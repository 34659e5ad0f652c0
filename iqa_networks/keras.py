"""Layers with Keras's padding, initialisation and batch normalisation constants, for ASNA, which was written in Keras.
"""
import torch.nn.functional as F
from torch import Tensor, nn


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return the padding before and after a side that gives ceil(size / stride) outputs; an odd zero comes after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


class SameConv1d(nn.Conv1d):
    """A convolution (N, C, L) with Keras's 'same' padding, Glorot's uniform weights, and biases of 0."""

    def reset_parameters(self) -> None:
        glorot(self)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(F.pad(x, same_padding(x.shape[-1], self.kernel_size[0], self.stride[0])))


class SameConv2d(nn.Conv2d):
    """A convolution (N, C, H, W) with Keras's 'same' padding, Glorot's uniform weights, and biases of 0."""

    def reset_parameters(self) -> None:
        glorot(self)

    def forward(self, x: Tensor) -> Tensor:
        sides = [same_padding(*side) for side in zip(x.shape[:1:-1], self.kernel_size[::-1], self.stride[::-1],
                                                     strict=True)]
        return super().forward(F.pad(x, [*sides[0], *sides[1]]))


class Dense(nn.Linear):
    """A linear layer with Glorot's uniform weights and biases of 0."""

    def reset_parameters(self) -> None:
        glorot(self)


def glorot(layer: nn.Module) -> None:
    """Draw the weights from Glorot's uniform distribution, and set the biases to 0."""
    nn.init.xavier_uniform_(layer.weight)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def channels_last_flat(x: Tensor) -> Tensor:
    """Flatten (N, C, ...) to (N, ... C), so that the channel varies fastest."""
    return x.movedim(1, -1).flatten(1)


# Keras's constants of batch normalisation; its momentum .99 is torch's .01
EPS, MOMENTUM = 1e-3, .01
