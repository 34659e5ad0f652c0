"""A convolutional LSTM (Shi et al., NeurIPS 2015) as Keras computes it: hard sigmoid, one bias, the last state."""
import torch
from torch import Tensor, nn

from iqa_networks.keras import SameConv2d


def hard_sigmoid(x: Tensor) -> Tensor:
    """Return clip(x / 5 + 1/2, 0, 1): Keras's, which is steeper than torch's x / 6 + 1/2."""
    return (.2 * x + .5).clamp(0, 1)


class ConvLSTM(nn.Module):
    """Read a sequence of maps (N, T, C, H, W); return the last hidden state (N, units, H, W).

    With * a convolution of the same size, for each step t:
    i, f, o = hard_sigmoid(W * x_t + b + U * h), c = f c + i tanh(W * x_t + b + U * h), h = o tanh(c), each with its own
    part of W, U, b. The four parts i, f, c, o are stacked on the output channels of `input` and `recurrent`.

    Args:
        channels: C.
        units: channels of the hidden state.
        kernel: side of both convolutions.
    """

    def __init__(self, channels: int, units: int, kernel: int = 5):
        super().__init__()
        self.units = units
        self.input = SameConv2d(channels, 4 * units, kernel)
        self.recurrent = SameConv2d(units, 4 * units, kernel, bias=False)
        nn.init.orthogonal_(self.recurrent.weight)
        nn.init.ones_(self.input.bias[units:2 * units])  # nothing is forgotten at first

    def forward(self, sequence: Tensor) -> Tensor:
        """Return the last hidden state (see the class)."""
        n, steps = sequence.shape[:2]
        inputs = self.input(sequence.flatten(0, 1)).unflatten(0, (n, steps))  # they do not depend on the states
        hidden = cell = inputs.new_zeros(n, self.units, *inputs.shape[3:])
        for step in range(steps):
            i, f, c, o = (inputs[:, step] + self.recurrent(hidden)).chunk(4, 1)
            cell = hard_sigmoid(f) * cell + hard_sigmoid(i) * torch.tanh(c)
            hidden = hard_sigmoid(o) * torch.tanh(cell)
        return hidden


def tiles(images: Tensor, size: int) -> Tensor:
    """Cut images (N, C, H, W) into squares of side `size`, row by row: (N, H W / size^2, C, size, size)."""
    rows = images.unfold(2, size, size).unfold(3, size, size)  # (N, C, H / size, W / size, size, size)
    return rows.permute(0, 2, 3, 1, 4, 5).flatten(1, 2)
