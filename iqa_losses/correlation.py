"""Pearson's correlation of a batch, and its loss."""
import torch
from torch import Tensor

from iqa_losses import loss
from iqa_losses.tensors import in_float32


@in_float32
def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Return Pearson's correlation of two columns, clamped to -1..1; 0 with zero gradient if a column is constant."""
    constant = (x == x[0]).all() | (y == y[0]).all()
    x, y = x - x.mean(), y - y.mean()
    norms = torch.linalg.vector_norm(x) * torch.linalg.vector_norm(y)
    return torch.where(constant, 0, (x * y).sum() / torch.where(constant, 1, norms)).clamp(-1, 1)


@loss('plcc')
def plcc(y_pred: Tensor, y: Tensor) -> Tensor:
    """Compute (1 - r) / 2 with Pearson's correlation r of the batch; a scalar in 0..1.

    A batch of one, or of equal predictions or MOS, has no correlation: 1/2, with zero gradient.

    >>> plcc(torch.tensor([1., 2., 3.]), torch.tensor([50., 60., 70.]))
    tensor(0.)

    Args:
        y_pred, y: predictions and MOS, (N, 1) or (N,).
    """
    return (1 - pearson(y_pred, y)) / 2
