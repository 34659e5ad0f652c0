"""Compute losses of predicted rating distributions, histograms or normal distributions, and of mirrored images."""
import torch
import torch.nn.functional as F
from torch import Tensor

from iqa_losses import loss
from iqa_runtime.option_types import Exponent


@loss('emd')
def emd(logits: Tensor, ratings: Tensor, emd_r: Exponent = 2.) -> Tensor:
    """Compute the earth mover's distance of predicted and given histograms; a scalar in 0..1.

        loss = mean over images of (1/K sum_k |P_k - Q_k|^r)^(1/r)

    P and Q are the cumulative sums of softmax(logits) and of the ratings. At equal histograms, the gradient is 0. A
    batch of one needs no special case.

    H. Talebi, P. Milanfar: NIMA, neural image assessment, IEEE TIP 2018.

    >>> emd(torch.zeros(1, 2), torch.tensor([[1., 0.]]), emd_r=1)
    tensor(0.2500)

    Args:
        logits: outputs of a histogram head, (N, K).
        ratings: share of the ratings at each level, (N, K).
        emd_r: exponent r; 1 is the distance itself.
    """
    distance = (logits.softmax(1).cumsum(1) - ratings.cumsum(1)).abs().pow(emd_r).mean(1)
    return torch.where(distance > 0, torch.where(distance > 0, distance, 1).pow(1 / emd_r), 0).mean()


@loss('soft-label')
def soft_label(logits: Tensor, ratings: Tensor) -> Tensor:
    """Compute the Kullback-Leibler divergence of the ratings from the predicted histograms; a scalar >= 0.

        loss = mean over images of sum_k q_k log(q_k / p_k), p = softmax(logits)

    It is 0 for equal histograms. A batch of one needs no special case.

    B.-B. Gao et al.: Deep label distribution learning with label ambiguity, IEEE TIP 2017.

    >>> soft_label(torch.zeros(1, 2), torch.tensor([[1., 0.]]))
    tensor(0.6931)

    Args:
        logits: outputs of a histogram head, (N, K).
        ratings: share q of the ratings at each level, (N, K).
    """
    return F.kl_div(logits.log_softmax(1), ratings, reduction='batchmean')


@loss('coral')
def coral(logits: Tensor, ratings: Tensor) -> Tensor:
    """Compute the cross entropy of the questions "is the rating above level k?"; a scalar >= 0.

        loss = mean over images and k < K of -Q_k log P_k - (1 - Q_k) log(1 - P_k)

    P_k and Q_k are the shares above level k, of softmax(logits) and of the ratings. CORAL's own head predicts
    P_k from one number and a bias per level; the P_k of a histogram fall with k, too, as ranks require. A batch of one
    needs no special case.

    W. Cao, V. Mirjalili, S. Raschka: Rank consistent ordinal regression for neural networks, Pattern Recognition
    Letters 2020.

    >>> coral(torch.zeros(1, 2), torch.tensor([[1., 0.]]))
    tensor(0.6931)

    Args:
        logits: outputs of a histogram head, (N, K).
        ratings: share of the ratings at each level, (N, K).
    """
    log_p = logits.log_softmax(1)
    below = log_p.logcumsumexp(1)[:, :-1]
    above = log_p.flip(1).logcumsumexp(1).flip(1)[:, 1:]
    share = ratings.cumsum(1)[:, :-1]
    return -((1 - share) * above + share * below).mean()


@loss('nll')
def nll(y_pred: Tensor, y: Tensor, log_variance: Tensor) -> Tensor:
    """Compute the negative log likelihood of the MOS under N(x, exp(v)), without its constant; any real number.

        loss = mean (v + (x - t)^2 exp(-v)) / 2

    A batch of one, or of equal scores, needs no special case.

    A. Kendall, Y. Gal: What uncertainties do we need in Bayesian deep learning for computer vision?, NeurIPS 2017.

    >>> nll(torch.tensor([1.]), torch.tensor([3.]), torch.tensor([0.]))
    tensor(2.)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
        log_variance: logarithm v of the predicted variance, (N, 1) or (N,).
    """
    return (log_variance + (y_pred - y).square() * (-log_variance).exp()).mean() / 2


@loss('consistency')
def consistency(y_pred: Tensor, flipped: Tensor) -> Tensor:
    """Compute the mean absolute difference between the scores of images and of their mirror images; a scalar >= 0.

        loss = mean |x - x'|, in the unit of the MOS

    It ignores the MOS: add it to a loss that uses them. The gradient at x = x' is 0. A training step with it takes
    twice as many images.

    S. A. Golestaneh, S. Dadsetan, K. M. Kitani: No-reference image quality assessment via transformers, relative
    ranking, and self-consistency (TReS), WACV 2022.

    >>> consistency(torch.tensor([1., 3.]), torch.tensor([2., 3.]))
    tensor(0.5000)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        flipped: predictions x' of the images flipped from left to right, (N, 1) or (N,).
    """
    return (y_pred - flipped).abs().mean()
