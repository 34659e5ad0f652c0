"""Compute losses over pairs and triplets of images, from the order, distance or preference probability of each."""
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from iqa_losses import loss
from iqa_losses.correlation import plcc
from iqa_losses.ranking import monotonicity_regularization
from iqa_runtime.option_types import Positive


def pairwise_differences(values: Tensor) -> Tensor:
    """Return the differences v_i - v_j of all pairs i < j, (N (N - 1) / 2,).

    >>> pairwise_differences(torch.tensor([[1.], [2.], [4.]]))
    tensor([-1., -3., -2.])

    Args:
        values: v, (N, 1).
    """
    i, j = torch.triu_indices(len(values), len(values), 1, device=values.device)
    return (values[i] - values[j]).flatten()


@loss('rank-hinge')
def rank_hinge(y_pred: Tensor, y: Tensor, hinge_margin: Positive | None = None) -> Tensor:
    """Penalise pairs of images whose predictions differ by less than a margin; a scalar >= 0, in the unit of the MOS.

        loss = mean over pairs with t_i > t_j of relu(m - (x_i - x_j))

    Pairs of equal MOS are left out; if no pair remains, as in a batch of one, the loss is 0. At the kink
    x_i - x_j = m, the gradient is 0. The fixed margin is due to X. Liu, J. van de Weijer, A. D. Bagdanov: RankIQA, ICCV
    2017.

    >>> rank_hinge(torch.tensor([3., 1.]), torch.tensor([4., 1.]))
    tensor(1.)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
        hinge_margin: margin m, in the unit of the MOS (default: t_i - t_j, for each pair).
    """
    wanted = pairwise_differences(y)
    margin = wanted.abs() if hinge_margin is None else hinge_margin
    missing = F.relu(margin - pairwise_differences(y_pred) * wanted.sign())
    ordered = wanted != 0
    return (missing * ordered).sum() / ordered.sum().clamp_min(1)


@loss('ranknet')
def ranknet(y_pred: Tensor, y: Tensor, ranknet_scale: Positive = 1.) -> Tensor:
    """Compute the cross entropy of the order of pairs, with a logistic model of the differences; a scalar >= 0.

        loss = mean over i < j of -p log s(d) - (1 - p) log s(-d), d = scale (x_i - x_j)

    s is the logistic function, and p is 1, 1/2 or 0 if t_i is above, equal to or below t_j. Equal predictions give
    log 2, a batch of one 0 (C. Burges et al.: Learning to rank using gradient descent, ICML 2005).

    >>> ranknet(torch.tensor([2., 2.]), torch.tensor([4., 1.]))
    tensor(0.6931)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
        ranknet_scale: factor of the differences, per unit of the MOS.
    """
    d = ranknet_scale * pairwise_differences(y_pred)
    return _mean(F.softplus(d) - _order(pairwise_differences(y)) * d, y_pred)


@loss('fidelity')
def fidelity(y_pred: Tensor, y: Tensor) -> Tensor:
    """Compute the fidelity loss of predicted and true preference probabilities of pairs; a scalar in 0..1.

        loss = mean over i < j of 1 - sqrt(p q) - sqrt((1 - p) (1 - q)), q = Phi((x_i - x_j) / sqrt 2)

    Phi is the normal distribution function (Thurstone's model with unit variances), and p is 1, 1/2 or 0 if t_i is
    above, equal to or below t_j. A batch of one gives 0. The gradient of the root of 0 is taken as 0.

    M.-F. Tsai et al.: FRank, a ranking method with fidelity loss, SIGIR 2007; L. L. Thurstone: A law of comparative
    judgment, 1927; as in W. Zhang et al.: Blind image quality assessment via vision-language correspondence (LIQE),
    CVPR 2023.

    >>> fidelity(torch.tensor([3., 1.]), torch.tensor([4., 1.]))
    tensor(0.0401)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
    """
    return _infidelity(_order(pairwise_differences(y)), y_pred)


@loss('thurstone-bce')
def thurstone_bce(y_pred: Tensor, y: Tensor) -> Tensor:
    """Compute the cross entropy of the order of pairs, with Thurstone's model of the differences; a scalar >= 0.

        loss = mean over i < j of -p log q - (1 - p) log(1 - q)

    p and q are those of `fidelity`. Equal predictions give log 2, a batch of one 0 (L. L. Thurstone: A law of
    comparative judgment, 1927).

    >>> thurstone_bce(torch.tensor([3., 1.]), torch.tensor([4., 1.]))
    tensor(0.0819)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
    """
    return _cross_entropy(_order(pairwise_differences(y)), y_pred)


@loss('fidelity-std')
def fidelity_of_raters(y_pred: Tensor, y: Tensor, std: Tensor) -> Tensor:
    """Compute the fidelity loss against preference probabilities from the raters' spread; a scalar in 0..1.

        loss = that of `fidelity` with p = Phi((t_i - t_j) / sqrt(std_i^2 + std_j^2))

    A pair whose std are 0 is compared by its order. A batch of one gives 0.

    W. Zhang et al.: Uncertainty-aware blind image quality assessment in the laboratory and wild (UNIQUE), IEEE TIP
    2021, whose network also predicts standard deviations; here these are 1.

    >>> fidelity_of_raters(torch.tensor([3., 1.]), torch.tensor([4., 1.]), torch.tensor([1., 1.]))
    tensor(0.0118)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
        std: standard deviations of the ratings of each image, at least 0, (N, 1) or (N,).
    """
    return _infidelity(_probability(y, std), y_pred)


@loss('thurstone-bce-std')
def thurstone_bce_of_raters(y_pred: Tensor, y: Tensor, std: Tensor) -> Tensor:
    """Compute the cross entropy against preference probabilities from the raters' spread; a scalar >= 0.

        loss = that of `thurstone-bce` with p of `fidelity-std`

    The smallest possible value is the mean entropy of p. A batch of one gives 0.

    >>> thurstone_bce_of_raters(torch.tensor([3., 1.]), torch.tensor([4., 1.]), torch.tensor([1., 1.]))
    tensor(0.1236)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
        std: standard deviations of the ratings of each image, at least 0, (N, 1) or (N,).
    """
    return _cross_entropy(_probability(y, std), y_pred)


@loss('tres')
def tres(y_pred: Tensor, y: Tensor) -> Tensor:
    """Compute TReS's relative ranking loss from two triplets, of the best and the worst images of a batch.

        loss =   relu(|x_N - x_(N-1)| - |x_N - x_1| + t_(N-1) - t_1)
               + relu(|x_1 - x_2|     - |x_N - x_1| + t_N     - t_2)

    The images are numbered by ascending MOS, t_1 <= t_2 <= ... <= t_N; equal MOS keep their order in the batch. A
    scalar >= 0, in the unit of the MOS; a batch of one or two gives 0. TReS adds this loss to `mae` and `consistency`
    (S. A. Golestaneh, S. Dadsetan, K. M. Kitani: No-reference image quality assessment via transformers, relative
    ranking, and self-consistency, WACV 2022).

    >>> tres(torch.tensor([0., 1., 4.]), torch.tensor([0., 1., 5.]))
    tensor(1.)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
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
    """Add a monotonicity loss, a linearity loss and an error relative to the range of the MOS; a scalar >= 0.

        loss = monotonicity(x, t) + (1 - PLCC(x, t)) / 2 + mean |x - t| / s

    D. Li, T. Jiang, M. Jiang: Unified quality assessment of in-the-wild videos with mixed datasets training (MDTVSFA),
    IJCV 2021. If the MOS are equal and s is not given, the last term is left out; for a batch of one, equal predictions
    or equal MOS, the second term is 1/2 (see `plcc`).

    >>> mixed(torch.tensor([1., 2., 3.]), torch.tensor([1., 2., 5.]))
    tensor(0.1863)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
        mixed_scale: range s of the MOS (default: the range in the batch).
    """
    span = y.max() - y.min() if mixed_scale is None else y.new_tensor(mixed_scale)
    error = torch.where(span > 0, (y_pred - y).abs().mean() / torch.where(span > 0, span, 1), 0)
    return monotonicity_regularization(y_pred, y) + plcc(y_pred, y) + error


def _order(difference: Tensor) -> Tensor:
    """Return 1, 1/2 or 0 for differences above 0, equal to 0 or below 0."""
    return (difference.sign() + 1) / 2


def _probability(y: Tensor, std: Tensor) -> Tensor:
    """Return the probability that image i of each pair is rated above image j, by Thurstone's model."""
    difference, variance = pairwise_differences(y), std.square().flatten()
    i, j = torch.triu_indices(len(y), len(y), 1, device=y.device)
    spread = (variance[i] + variance[j]).sqrt()
    return torch.where(spread == 0, _order(difference),
                       torch.special.ndtr(difference / torch.where(spread == 0, 1, spread)))


def _infidelity(p: Tensor, y_pred: Tensor) -> Tensor:
    q = torch.special.ndtr(pairwise_differences(y_pred) / math.sqrt(2))
    return _mean(1 - _root(p * q) - _root((1 - p) * (1 - q)), y_pred)


def _cross_entropy(p: Tensor, y_pred: Tensor) -> Tensor:
    z = pairwise_differences(y_pred) / math.sqrt(2)
    return _mean(-p * _log_phi(z) - (1 - p) * _log_phi(-z), y_pred)


def _log_phi(z: Tensor) -> Tensor:
    """Return log Phi(z); the gradient of torch's log_ndtr in float32 is 1 % off at z = -700, and NaN from -1e5 on."""
    tail = z < -1
    low = torch.where(tail, z, -1)
    of_tail = torch.special.erfcx(-low / math.sqrt(2)).log() - math.log(2) - low.square() / 2
    return torch.where(tail, of_tail, torch.special.log_ndtr(torch.where(tail, -1, z)))


def _root(product: Tensor) -> Tensor:
    """Return the square root, with the gradient 0 at 0 instead of infinity."""
    zero = product == 0
    return torch.where(zero, 0, torch.where(zero, 1, product).sqrt())


def _mean(of_pairs: Tensor, y_pred: Tensor) -> Tensor:
    return of_pairs.mean() if len(of_pairs) else y_pred.sum() * 0
