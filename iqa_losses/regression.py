"""Losses of the difference between predictions and MOS. A batch of one, or of equal scores, is nothing special."""
import math

import torch.nn.functional as F
from torch import Tensor

from iqa_losses import loss
from iqa_runtime.option_types import Positive


@loss('mae')
def mae(y_pred: Tensor, y: Tensor) -> Tensor:
    """Return the mean absolute error, in the unit of the MOS."""
    return F.l1_loss(y_pred, y)


@loss('mse')
def mse(y_pred: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared error, in the squared unit of the MOS."""
    return F.mse_loss(y_pred, y)


@loss('huber')
def huber(y_pred: Tensor, y: Tensor, huber_delta: Positive = 1.) -> Tensor:
    """Compute the Huber loss: squared errors while they are small, absolute errors beyond; a scalar >= 0.

    The mean of e^2 / 2 for |e| <= d, and of d (|e| - d / 2) for larger errors e = y_pred - y (P. J. Huber: Robust
    estimation of a location parameter, Annals of Mathematical Statistics 35, 1964).

    >>> huber(torch.tensor([0., 3.]), torch.tensor([1., 0.]))
    tensor(1.5000)

    Args:
        y_pred, y: predictions and MOS, (N, 1) or (N,).
        huber_delta: d, the error above which the loss is linear, in the unit of the MOS.
    """
    return F.huber_loss(y_pred, y, delta=huber_delta)


@loss('charbonnier')
def charbonnier(y_pred: Tensor, y: Tensor, charbonnier_eps: Positive = 1e-3) -> Tensor:
    """Compute the mean of sqrt(e^2 + c^2) with e = y_pred - y: absolute errors without their kink; a scalar >= c.

    P. Charbonnier et al.: Two deterministic half-quadratic regularization algorithms for computed imaging, ICIP 1994.

    >>> charbonnier(torch.tensor([0., 3.]), torch.tensor([0., -1.]), charbonnier_eps=3.)
    tensor(4.)

    Args:
        y_pred, y: predictions and MOS, (N, 1) or (N,).
        charbonnier_eps: c, the error below which the loss is rather a square, in the unit of the MOS.
    """
    return ((y_pred - y).square() + charbonnier_eps ** 2).sqrt().mean()


@loss('logcosh')
def logcosh(y_pred: Tensor, y: Tensor) -> Tensor:
    """Compute the mean of log cosh e with e = y_pred - y; a scalar >= 0.

    About e^2 / 2 for small errors and |e| - log 2 for large ones; the gradient is tanh e, smooth everywhere. The bend
    is at an error of about 1, so that the unit of the MOS matters (P. J. Green: Bayesian reconstructions from emission
    tomography data using a modified EM algorithm, IEEE Transactions on Medical Imaging 9, 1990).

    >>> logcosh(torch.tensor([1.]), torch.tensor([0.]))
    tensor(0.4338)

    Args:
        y_pred, y: predictions and MOS, (N, 1) or (N,).
    """
    error = (y_pred - y).abs()
    return (error + F.softplus(-2 * error) - math.log(2)).mean()
