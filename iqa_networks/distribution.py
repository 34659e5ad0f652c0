"""Heads that predict a distribution of ratings: its mean is the score, its standard deviation the uncertainty."""
import torch
from torch import Tensor, nn

from iqa_networks import head
from iqa_runtime.errors import UserError
from iqa_runtime.option_types import Levels


@head('score')
def score() -> None:
    """Predict a score alone: one number."""


@head('histogram')
class Histogram(nn.Module):
    """Predict the share of the ratings at each of K levels: softmax of K numbers.

    Args:
        levels: number K of levels, those that the data set counts the ratings at, if it does.
    """

    needs = 'logits'

    def __init__(self, levels: Levels = 5):
        super().__init__()
        if levels < 2:
            raise UserError(f'--levels {levels}: expected at least 2')
        self.outputs = levels
        self.register_buffer('values', torch.arange(1., levels + 1))  # on the scale of the target

    def mean(self, raw: Tensor) -> Tensor:
        """Return the means (..., 1) of outputs (..., K)."""
        return raw.float().softmax(-1) @ self.values[:, None]

    def deviation(self, raw: Tensor) -> Tensor:
        """Return the standard deviations (..., 1) of outputs (..., K)."""
        variance = (self.values - self.mean(raw)).square() * raw.float().softmax(-1)
        return variance.sum(-1, keepdim=True).sqrt()

    @torch.no_grad()
    def fit(self, mos: Tensor, std: Tensor, ratings: Tensor | None) -> Tensor:
        """Set the values of the levels on the scale of the MOS; return the shares of the ratings, (N, K).

        With ratings, MOS = a level + b by least squares says what level 1..K is worth. Without, the levels divide the
        range of the MOS evenly, and the shares are those of N(MOS, std), of which the ends take the tails.

        Args:
            mos, std: (N, 1) of the training images, std at least 0.
            ratings: (N, levels) their shares at each level, or None.
        """
        levels = torch.arange(1., self.outputs + 1)
        if ratings is not None:
            mean = ratings @ levels[:, None]
            x, t = mean - mean.mean(), mos - mos.mean()
            slope = (x * t).sum() / x.square().sum().clamp_min(torch.finfo(x.dtype).tiny)
            self.values.copy_(mos.mean() + slope * (levels - mean.mean()))
            return ratings
        values = torch.linspace(mos.min().item(), mos.max().item(), self.outputs)
        self.values.copy_(values)
        edges = (values[1:] + values[:-1]) / 2
        below = torch.special.ndtr((edges - mos) / std.clamp_min(1e-6))
        ends = below.new_zeros(len(mos), 1), below.new_ones(len(mos), 1)
        return torch.cat([ends[0], below, ends[1]], 1).diff(dim=1)


@head('gaussian')
class Gaussian(nn.Module):
    """Predict a normal distribution: its mean and the logarithm of its variance, on the scale of the target."""

    needs = 'log_variance'
    outputs = 2

    def mean(self, raw: Tensor) -> Tensor:
        """Return the means (..., 1) of outputs (..., 2)."""
        return raw[..., :1]

    def deviation(self, raw: Tensor) -> Tensor:
        """Return the standard deviations (..., 1) of outputs (..., 2), at most e^20."""
        return (raw[..., 1:].float() / 2).clamp(-20, 20).exp()
