"""Compute losses from correlations of predictions and MOS: Pearson's (plcc) and Lin's concordance (ccc)."""
import torch
from torch import Tensor

from iqa_losses import loss
from iqa_losses.tensors import in_float32


@in_float32
def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Return Pearson's correlation of two columns, in -1..1; 0 with zero gradient if a column is constant.

        r = sum (x - mean x) (y - mean y) / (||x - mean x||_2 ||y - mean y||_2)

    >>> pearson(torch.tensor([[1.], [2.], [3.]]), torch.tensor([[90.], [50.], [10.]]))
    tensor(-1.)

    Args:
        x: (N, 1).
        y: (N, 1).
    """
    constant = (x == x[0]).all() | (y == y[0]).all()
    x, y = x - x.mean(), y - y.mean()
    norms = torch.linalg.vector_norm(x) * torch.linalg.vector_norm(y)
    constant = constant | (norms == 0)  # deviations below 1e-22 underflow in float32
    return torch.where(constant, 0, (x * y).sum() / torch.where(constant, 1, norms)).clamp(-1, 1)


@loss('plcc')
def plcc(y_pred: Tensor, y: Tensor) -> Tensor:
    """Compute the linear correlation loss, a scalar in 0..1.

        loss = (1 - r) / 2, r = sum (x - mean x) (t - mean t) / (||x - mean x||_2 ||t - mean t||_2)

    A batch of one, equal predictions or equal MOS have no correlation and give 1/2, with zero gradient.

    >>> plcc(torch.tensor([1., 2., 3.]), torch.tensor([50., 60., 70.]))
    tensor(0.)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
    """
    return (1 - pearson(y_pred, y)) / 2


@loss('ccc')
def ccc(y_pred: Tensor, y: Tensor) -> Tensor:
    """Compute 1 - CCC, with Lin's concordance correlation coefficient CCC of the batch; a scalar in 0..2.

        CCC = 2 cov(x, t) / (var x + var t + (mean x - mean t)^2)

    The moments are those of a population. Unlike Pearson's correlation, CCC is 1 only if x = t (L. I. Lin: A
    concordance correlation coefficient to evaluate reproducibility, Biometrics 45, 1989). A batch of one, equal
    predictions or equal MOS give 1; the gradient is zero for a batch of one and for equal MOS.

    >>> ccc(torch.tensor([1., 2., 3.]), torch.tensor([2., 3., 4.]))
    tensor(0.4286)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
    """
    x, t = y_pred - y_pred.mean(), y - y.mean()
    spread = x.square().mean() + t.square().mean() + (y_pred.mean() - y.mean()).square()
    return 1 - 2 * (x * t).mean() / torch.where(spread > 0, spread, 1)
