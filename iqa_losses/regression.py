"""Compute losses of the errors, predictions minus MOS. A batch of one and equal scores need no special case."""
import math

import torch.nn.functional as F
from torch import Tensor

from iqa_losses import loss
from iqa_runtime.option_types import Positive


@loss('mae')
def mae(y_pred: Tensor, y: Tensor) -> Tensor:
    """Compute the mean absolute error, a scalar >= 0 in the unit of the MOS.

        loss = mean |x - t|

    >>> mae(torch.tensor([0., 3.]), torch.tensor([1., 0.]))
    tensor(2.)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
    """
    return F.l1_loss(y_pred, y)


@loss('mse')
def mse(y_pred: Tensor, y: Tensor) -> Tensor:
    """Compute the mean squared error, a scalar >= 0 in the squared unit of the MOS.

        loss = mean (x - t)^2

    >>> mse(torch.tensor([0., 3.]), torch.tensor([1., 0.]))
    tensor(5.)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
    """
    return F.mse_loss(y_pred, y)


@loss('huber')
def huber(y_pred: Tensor, y: Tensor, huber_delta: Positive = 1.) -> Tensor:
    """Compute the Huber loss, quadratic for small errors and linear for large ones; a scalar >= 0.

        loss = mean h(x - t), h(e) = e^2 / 2 if |e| <= d, else d (|e| - d / 2)

    P. J. Huber: Robust estimation of a location parameter, Annals of Mathematical Statistics 35, 1964.

    >>> huber(torch.tensor([0., 3.]), torch.tensor([1., 0.]))
    tensor(1.5000)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
        huber_delta: error d above which the loss is linear, in the unit of the MOS.
    """
    return F.huber_loss(y_pred, y, delta=huber_delta)


@loss('charbonnier')
def charbonnier(y_pred: Tensor, y: Tensor, charbonnier_eps: Positive = 1e-3) -> Tensor:
    """Compute the Charbonnier loss, an absolute error that is smooth at 0; a scalar >= c.

        loss = mean sqrt((x - t)^2 + c^2)

    P. Charbonnier et al.: Two deterministic half-quadratic regularization algorithms for computed imaging, ICIP 1994.

    >>> charbonnier(torch.tensor([0., 3.]), torch.tensor([0., -1.]), charbonnier_eps=3.)
    tensor(4.)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
        charbonnier_eps: error c below which the loss is about quadratic, in the unit of the MOS.
    """
    return ((y_pred - y).square() + charbonnier_eps ** 2).sqrt().mean()


@loss('logcosh')
def logcosh(y_pred: Tensor, y: Tensor) -> Tensor:
    """Compute the log-cosh loss, a scalar >= 0.

        loss = mean log cosh(x - t)

    It is about e^2 / 2 for small errors e = x - t and |e| - log 2 for large ones; its derivative tanh e is smooth. The
    transition is at an error of about 1, so that the unit of the MOS matters (P. J. Green: Bayesian reconstructions
    from emission tomography data using a modified EM algorithm, IEEE Transactions on Medical Imaging 9, 1990).

    >>> logcosh(torch.tensor([1.]), torch.tensor([0.]))
    tensor(0.4338)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
    """
    error = (y_pred - y).abs()
    return (error + F.softplus(-2 * error) - math.log(2)).mean()


@loss('epsilon')
def epsilon(y_pred: Tensor, y: Tensor, interval: Tensor) -> Tensor:
    """Compute the mean square of the part of each error that lies outside the confidence interval of its MOS.

        loss = mean max(0, |x - t| - c)^2, a scalar >= 0 in the squared unit of the MOS

    It is the square of RMSE* of ITU-T P.1401, without its correction for degrees of freedom. Inside the interval, and
    at its ends, the gradient is 0.

    >>> epsilon(torch.tensor([3., 1.]), torch.tensor([1., 1.]), torch.tensor([.5, .5]))
    tensor(1.1250)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
        interval: half the width c of the 95 % interval of each MOS, at least 0, (N, 1) or (N,).
    """
    return F.relu((y_pred - y).abs() - interval).square().mean()
