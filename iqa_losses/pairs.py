"""Losses of pairs and triplets of images: which is better, by how much, how probably."""
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from iqa_losses import loss
from iqa_losses.correlation import plcc
from iqa_losses.ranking import monotonicity_regularization
from iqa_runtime.option_types import Positive


def differences(values: Tensor) -> Tensor:
    """Return v_i - v_j of a column (N, 1) for all pairs i < j, (N (N - 1) / 2,)."""
    i, j = torch.triu_indices(len(values), len(values), 1, device=values.device)
    return (values[i] - values[j]).flatten()


@loss('rank-hinge')
def rank_hinge(y_pred: Tensor, y: Tensor, hinge_margin: Positive | None = None) -> Tensor:
    """Penalise pairs that are not apart by a margin: the mean of relu(m - (x_i - x_j)) over pairs with t_i > t_j.

    A scalar >= 0, in the unit of the MOS. Pairs of equal MOS are left out; without another pair, as in a batch of one,
    it is 0. At the kink x_i - x_j = m the gradient is 0. The fixed margin is that of X. Liu, J. van de Weijer, A. D.
    Bagdanov: RankIQA, ICCV 2017.

    >>> rank_hinge(torch.tensor([3., 1.]), torch.tensor([4., 1.]))
    tensor(1.)

    Args:
        y_pred, y: predictions x and MOS t, (N, 1) or (N,).
        hinge_margin: m, in the unit of the MOS (default: of each pair, t_i - t_j).
    """
    wanted = differences(y)
    margin = wanted.abs() if hinge_margin is None else hinge_margin
    missing = F.relu(margin - differences(y_pred) * wanted.sign())
    ordered = wanted != 0
    return (missing * ordered).sum() / ordered.sum().clamp_min(1)


@loss('ranknet')
def ranknet(y_pred: Tensor, y: Tensor, ranknet_scale: Positive = 1.) -> Tensor:
    """Compute the cross entropy of the order of pairs: the mean of -p log s(d) - (1 - p) log s(-d) over i < j.

    d = scale (x_i - x_j), s the logistic function, and p = 1, 1/2 or 0 if t_i is above, equal to or below t_j. A scalar
    >= 0; equal predictions give log 2, a batch of one 0 (C. Burges et al.: Learning to rank using gradient descent,
    ICML 2005).

    >>> ranknet(torch.tensor([2., 2.]), torch.tensor([4., 1.]))
    tensor(0.6931)

    Args:
        y_pred, y: predictions x and MOS t, (N, 1) or (N,).
        ranknet_scale: scale of the differences, per unit of the MOS.
    """
    d = ranknet_scale * differences(y_pred)
    return _mean(F.softplus(d) - _order(differences(y)) * d, y_pred)


@loss('fidelity')
def fidelity(y_pred: Tensor, y: Tensor) -> Tensor:
    """Compute 1 - sqrt(p q) - sqrt((1 - p) (1 - q)) of the probabilities that an image is the better one of a pair.

    The mean over the pairs i < j, a scalar in 0..1; a batch of one gives 0. q = Phi((x_i - x_j) / sqrt 2), Thurstone's
    model with unit variances; p = 1, 1/2 or 0 if t_i is above, equal to or below t_j. Where p q or (1 - p) (1 - q) is
    0, the gradient of its root is 0.

    M.-F. Tsai et al.: FRank, a ranking method with fidelity loss, SIGIR 2007; L. L. Thurstone: A law of comparative
    judgment, 1927; as in W. Zhang et al.: Blind image quality assessment via vision-language correspondence (LIQE),
    CVPR 2023.

    >>> fidelity(torch.tensor([3., 1.]), torch.tensor([4., 1.]))
    tensor(0.0401)

    Args:
        y_pred, y: predictions x and MOS t, (N, 1) or (N,).
    """
    return _infidelity(_order(differences(y)), y_pred)


@loss('thurstone-bce')
def thurstone_bce(y_pred: Tensor, y: Tensor) -> Tensor:
    """Compute the cross entropy of the order of pairs with Thurstone's model: -p log q - (1 - p) log(1 - q).

    The mean over the pairs i < j, with p and q of `fidelity`; a scalar >= 0. Equal predictions give log 2, a batch of
    one 0. The model is that of L. L. Thurstone: A law of comparative judgment, 1927.

    Args:
        y_pred, y: predictions and MOS, (N, 1) or (N,).
    """
    return _cross_entropy(_order(differences(y)), y_pred)


@loss('tres')
def tres(y_pred: Tensor, y: Tensor) -> Tensor:
    """Order the extremes of a batch by two triplets of images: the relative ranking of TReS.

    With the MOS t_1 <= t_2 <= ... <= t_N in ascending order, and x_i the predictions of these images, the sum of

        relu(|x_N - x_(N-1)| - |x_N - x_1| + t_(N-1) - t_1)  and  relu(|x_1 - x_2| - |x_N - x_1| + t_N - t_2).

    A scalar >= 0, in the unit of the MOS. A batch below three gives 0; of equal MOS, the place in the batch decides.
    TReS adds it to `mae` and `consistency` (S. A. Golestaneh, S. Dadsetan, K. M. Kitani: No-reference image quality
    assessment via transformers, relative ranking, and self-consistency, WACV 2022).

    >>> tres(torch.tensor([0., 1., 4.]), torch.tensor([0., 1., 5.]))
    tensor(1.)

    Args:
        y_pred, y: predictions x and MOS t, (N, 1) or (N,).
    """
    if len(y) < 3:
        return y_pred.sum() * 0
    order = y.flatten().argsort(stable=True)
    lowest, low, high, highest = order[[0, 1, -2, -1]]
    span = (y_pred[highest] - y_pred[lowest]).abs()
    top = F.relu((y_pred[highest] - y_pred[high]).abs() - span + y[high] - y[lowest])
    bottom = F.relu((y_pred[lowest] - y_pred[low]).abs() - span + y[highest] - y[low])
    return (top + bottom).squeeze()


@loss('mixed')
def mixed(y_pred: Tensor, y: Tensor, mixed_scale: Positive | None = None) -> Tensor:
    """Add the losses of monotonicity, of linearity, and of scaled errors: a scalar >= 0.

    monotonicity + (1 - PLCC) / 2 + mean |x - t| / s (D. Li, T. Jiang, M. Jiang: Unified quality assessment of
    in-the-wild videos with mixed datasets training, MDTVSFA, IJCV 2021). If the MOS are equal and s is not given, the
    last term is left out; a batch of one, or of equal scores, has the 1/2 of `plcc`.

    Args:
        y_pred, y: predictions x and MOS t, (N, 1) or (N,).
        mixed_scale: s, the range of the MOS (default: that of the batch).
    """
    span = y.max() - y.min() if mixed_scale is None else y.new_tensor(mixed_scale)
    error = torch.where(span > 0, (y_pred - y).abs().mean() / torch.where(span > 0, span, 1), 0)
    return monotonicity_regularization(y_pred, y) + plcc(y_pred, y) + error


def _order(difference: Tensor) -> Tensor:
    """Return 1, 1/2 or 0 for differences above, at or below 0."""
    return (difference.sign() + 1) / 2


def _infidelity(p: Tensor, y_pred: Tensor) -> Tensor:
    q = torch.special.ndtr(differences(y_pred) / math.sqrt(2))
    return _mean(1 - _root(p * q) - _root((1 - p) * (1 - q)), y_pred)


def _cross_entropy(p: Tensor, y_pred: Tensor) -> Tensor:
    z = differences(y_pred) / math.sqrt(2)
    return _mean(-p * torch.special.log_ndtr(z) - (1 - p) * torch.special.log_ndtr(-z), y_pred)


def _root(product: Tensor) -> Tensor:
    """Return the square root, with the gradient 0 at 0 instead of infinity."""
    positive = product > 0
    return torch.where(positive, torch.where(positive, product, 1).sqrt(), 0)


def _mean(of_pairs: Tensor, y_pred: Tensor) -> Tensor:
    return of_pairs.mean() if len(of_pairs) else y_pred.sum() * 0
