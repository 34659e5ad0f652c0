"""Normalise a column of predictions or MOS, for the losses of IQAloss.py."""
import torch
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
    centred = values - _fixed(values, detach).mean()
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
    return (values - _fixed(values, detach).mean()) / (EPS + (high - low))


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
    return (values - _fixed(values, detach).mean()) / (EPS + _fixed(values, detach).std(correction=0))


def _fixed(values: Tensor, detach: bool) -> Tensor:
    return values.detach() if detach else values
