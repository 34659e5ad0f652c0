"""Normalise columns of predictions and MOS and compare them, for the losses of IQAloss.py."""
import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from iqa_losses.tensors import in_float32

EPS = 1e-8


@in_float32
def normalise_by_norm(values: Tensor, q: float = 2, detach: bool = False) -> Tensor:
    """Centre the values and divide them by their q-norm; equal values become 0.

        (v - mean v) / (eps + ||v - mean v||_q)

    >>> normalise_by_norm(torch.tensor([[1.], [2.], [4.]])).flatten()
    tensor([-0.6172, -0.1543,  0.7715])

    Args:
        values: v, (N, 1).
        q: exponent of the norm.
        detach: stop the gradient through the mean and the norm.
    """
    centred = _centred(values, detach)
    return centred / (EPS + torch.linalg.vector_norm(_fixed(centred, detach), q))


@in_float32
def normalise_by_range(values: Tensor, detach: bool = False) -> Tensor:
    """Map the values to 0..1; equal values become 0.

        (v - min v) / (eps + max v - min v)

    >>> normalise_by_range(torch.tensor([[1.], [2.], [4.]])).flatten()
    tensor([0.0000, 0.3333, 1.0000])

    Args:
        values: v, (N, 1).
        detach: stop the gradient through the minimum and the maximum.
    """
    low, high = _fixed(values, detach).min(), _fixed(values, detach).max()
    return (values - low) / (EPS + (high - low))


@in_float32
def centre_by_range(values: Tensor, detach: bool = False) -> Tensor:
    """Centre the values and divide them by their range; equal values become 0.

        (v - mean v) / (eps + max v - min v)

    >>> centre_by_range(torch.tensor([[1.], [2.], [4.]])).flatten()
    tensor([-0.4444, -0.1111,  0.5556])

    Args:
        values: v, (N, 1).
        detach: stop the gradient through the mean, the minimum and the maximum.
    """
    low, high = _fixed(values, detach).min(), _fixed(values, detach).max()
    return _centred(values, detach) / (EPS + (high - low))


@in_float32
def scale_by_norm(values: Tensor, p: float = 2, detach: bool = False) -> Tensor:
    """Divide the values by their p-norm; zeros stay zeros.

        v / (eps + ||v||_p)

    >>> scale_by_norm(torch.tensor([[1.], [2.], [4.]])).flatten()
    tensor([0.2182, 0.4364, 0.8729])

    Args:
        values: v, (N, 1).
        p: exponent of the norm.
        detach: stop the gradient through the norm.
    """
    return values / (EPS + torch.linalg.vector_norm(_fixed(values, detach), p))


@in_float32
def standardise(values: Tensor, detach: bool = False) -> Tensor:
    """Return the z-scores of the values, with the population standard deviation; equal values become 0.

        (v - mean v) / (eps + std v)

    >>> standardise(torch.tensor([[1.], [2.], [4.]])).flatten()
    tensor([-1.0690, -0.2673,  1.3363])

    Args:
        values: v, (N, 1).
        detach: stop the gradient through the mean and the standard deviation.
    """
    return _centred(values, detach) / (EPS + _fixed(values, detach).std(correction=0))


def _centred(values: Tensor, detach: bool) -> Tensor:
    """Subtract the mean; of equal values nothing is left, even if rounding moves their mean."""
    centred = values - _fixed(values, detach).mean()
    return torch.where((values == values[0]).all(), centred - centred.detach(), centred)


def _fixed(values: Tensor, detach: bool) -> Tensor:
    return values.detach() if detach else values


def check_weights(name: str, weights: Sequence[float]) -> None:
    """Raise ValueError if one of the weights is negative or not finite, or if all are 0.

    Args:
        name: of the weights, for the error message.
        weights: at least one.
    """
    if not all(0 <= weight < math.inf for weight in weights) or not sum(weights) > 0:
        found = ', '.join(f'{weight:g}' for weight in weights)
        raise ValueError(f'{name} ({found}): expected finite weights of at least 0, and one above 0')


def _mean_square(difference: Tensor) -> Tensor:
    return difference.square().mean()


def _cosine(x: Tensor, t: Tensor) -> Tensor:
    return F.cosine_similarity(x, t, dim=0)


def compare(y_pred: Tensor, y: Tensor, normalise: Callable[..., Tensor], alpha: Sequence[float], detach: bool,
            distance: Callable[[Tensor], Tensor] = _mean_square,
            rho: Callable[[Tensor, Tensor], Tensor] = _cosine) -> Tensor:
    """Return (alpha_0 distance(x - t) + alpha_1 distance(rho x - t)) / (alpha_0 + alpha_1), a scalar.

    x and t are the normalised y_pred and y. Terms of weight 0 are not computed; a batch of one gives 0.

    >>> y_pred, y = torch.tensor([[1.], [2.], [4.]]), torch.tensor([[10.], [30.], [20.]])
    >>> compare(y_pred, y, normalise_by_range, (1., 0.), False)
    tensor(0.2315)

    Args:
        y_pred: predictions, (N, 1).
        y: MOS, (N, 1).
        normalise: a normalisation, called with a column and, for predictions, `detach`.
        alpha: weights of the errors of x and of rho x, finite and at least 0, one above 0.
        detach: stop the gradient through the statistics that normalise the predictions.
        distance: of a column of differences, a scalar.
        rho: the factor of x, of x and t; their cosine by default.
    """
    check_weights('alpha', alpha)
    if len(y_pred) == 1:
        return y_pred.sum() * 0
    x, t = normalise(y_pred, detach=detach), normalise(y)
    total = 0
    if alpha[0]:
        total = total + alpha[0] * distance(x - t)
    if alpha[1]:
        total = total + alpha[1] * distance(rho(x, t) * x - t)
    return total / (alpha[0] + alpha[1])
