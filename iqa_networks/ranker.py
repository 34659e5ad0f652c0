"""The ranker of ASNA's loss: a network that predicts ranks, which makes Spearman's correlation differentiable."""
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from iqa_networks.keras import EPS, MOMENTUM, Dense, SameConv1d, channels_last_flat
from iqa_runtime.checkpoint import read_tensors
from iqa_runtime.checks import checked_value, tensors
from iqa_runtime.errors import UserError
from iqa_runtime.option_types import Count, Share

# channels, kernel size, with batch normalisation or not
LAYERS = ((8, 2, False), (16, 3, True), (32, 5, True), (64, 7, True), (96, 10, False), (128, 7, True), (256, 7, True))


class Ranker(nn.Module):
    """Predict the ranks 1..n of n numbers, 1 the smallest; (N, n) -> (N, n), neither rounded nor limited to 1..n.

    The network has seven convolutions along the n numbers, each with a PReLU that has a slope for every channel and
    position, and a dense layer (team MACS, NTIRE 2021 challenge; n = 16).

    Args:
        n: number of values to rank.
        momentum: momentum of batch normalisation: the weight of a batch in the running statistics.
    """

    def __init__(self, n: Count = 16, momentum: Share = MOMENTUM):
        super().__init__()
        self.n = n
        before = 1
        for i, (channels, kernel, normalised) in enumerate(LAYERS, 1):
            self.add_module(f'conv{i}', SameConv1d(before, channels, kernel))
            if normalised:
                self.add_module(f'bn{i}', nn.BatchNorm1d(channels, EPS, momentum))
            self.add_module(f'prelu{i}', PositionPReLU(channels, n))
            before = channels
        self.dense = Dense(n * before, n)

    def forward(self, values: Tensor) -> Tensor:
        """Return the predicted ranks (see the class)."""
        x = values[:, None]
        for name, layer in self.named_children():
            if name != 'dense':
                x = layer(x)
        return self.dense(channels_last_flat(x))


class PositionPReLU(nn.Module):
    """A PReLU, max(x, 0) + w min(x, 0), x (N, C, L), with a slope w for every channel and position, initially 0."""

    def __init__(self, channels: int, length: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(channels, length))

    def forward(self, x: Tensor) -> Tensor:
        """Return the activation (see the class)."""
        return x.clamp_min(0) + self.weight * x.clamp_max(0)


def load_ranker(path: str | Path) -> Ranker:
    """Load a ranker, of any size n, in eval mode; UserError if the file is not a ranker."""
    content = read_tensors(path)
    state = content.get('model') if isinstance(content, Mapping) else None
    state = checked_value(path, 'model', tensors, state)
    try:
        ranker = Ranker(len(state['dense.bias']))
        ranker.load_state_dict(state)
    except (KeyError, TypeError, RuntimeError) as error:
        reason = (str(error).strip().splitlines() or [''])[-1].strip()
        raise UserError(f'{path}: not a ranker, which iqa_training/train_ranker.py trains ({reason[:200]})') from None
    return ranker.eval()
