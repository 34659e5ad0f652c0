"""Compute differentiable ranks and sorting, and the losses soft-srocc and neuralsort from them."""
import torch
import torch.nn.functional as F
from torch import Tensor

from iqa_losses import loss
from iqa_losses.correlation import pearson
from iqa_runtime.errors import pick
from iqa_runtime.option_types import Positive, SoftRanks


@loss('soft-srocc')
def soft_srocc(y_pred: Tensor, y: Tensor, soft_ranks: SoftRanks = 'sigmoid', temperature: Positive = .1) -> Tensor:
    """Compute a differentiable approximation of (1 - SROCC) / 2, a scalar in 0..1.

        loss = (1 - r) / 2

    r is Pearson's correlation between the soft ranks of the predictions x and the ranks of the MOS; equal MOS share
    their mean rank. The predictions are standardised first, so that the loss is invariant to x -> a x + b, a > 0. As
    the temperature T falls to 0, the soft ranks become the ranks. A batch of one, equal predictions or equal MOS give
    1/2, with zero gradient. The soft ranks are

        sigmoid     1/2 + sum_j s((x_i - x_j) / T), s the logistic function: T. Qin, T.-Y. Liu, H. Li: A general
                    approximation framework for direct optimization of information retrieval measures, 2010
        erf         the same with the normal distribution function: M. Taylor et al.: SoftRank, WSDM 2008
        projection  the point nearest to x / T in the convex hull of all orders of 1..N (the permutahedron): M. Blondel
                    et al.: Fast differentiable sorting and ranking, ICML 2020

    >>> soft_srocc(torch.tensor([1., 2., 3.]), torch.tensor([10., 20., 15.]))
    tensor(0.2500)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS, (N, 1) or (N,).
        soft_ranks: sigmoid, erf or projection.
        temperature: temperature T of the soft ranks: for soft-srocc, in standard deviations of the predictions; for
            neuralsort, in the unit of the predictions.
    """
    x = y_pred - y_pred.mean()
    variance = x.square().mean()
    x = x / torch.where(variance > 0, variance, 1).sqrt()
    soft = SOFT_RANKS[pick(SOFT_RANKS, soft_ranks, 'soft ranks')](x.flatten(), temperature)
    return (1 - pearson(soft[:, None], exact_ranks(y.flatten())[:, None].to(soft))) / 2


@loss('neuralsort')
def neuralsort(y_pred: Tensor, y: Tensor, temperature: Positive = 1.) -> Tensor:
    """Compute the cross entropy between a soft sorting of the predictions and the sorting of the MOS; a scalar >= 0.

        P_kj = softmax over j of ((N + 1 - 2 k) x_j - sum_i |x_j - x_i|) / T
        loss = mean over k = 1..N of -log P_kj, j the image with the k-th largest MOS

    P_kj is the probability that image j has the k-th largest prediction. Images of equal MOS share their rows k. A
    batch of one gives 0, equal predictions log N (A. Grover et al.: Stochastic optimization of sorting networks via
    continuous relaxations, ICLR 2019).

    >>> neuralsort(torch.tensor([1., 2., 3.]), torch.tensor([10., 20., 15.]))
    tensor(1.0682)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS, (N, 1) or (N,).
        temperature: temperature T of the soft sorting, in the unit of the predictions.
    """
    x, t, n = y_pred.flatten(), y.flatten(), len(y)
    rows = n + 1 - 2 * torch.arange(1, n + 1, device=x.device, dtype=x.dtype)
    spread = (x[:, None] - x).abs().sum(1)
    log_shares = F.log_softmax((rows[:, None] * x - spread) / temperature, 1)
    same = t.sort(descending=True).values[:, None] == t
    return -(same / same.sum(1, keepdim=True) * log_shares).sum(1).mean()


# Ranks

def exact_ranks(values: Tensor) -> Tensor:
    """Return the ranks 1..N along the last dimension, (..., N), 1 the smallest; equal values share their mean rank.

    >>> exact_ranks(torch.tensor([10., 30., 30.]))
    tensor([1.0000, 2.5000, 2.5000])

    Args:
        values: (..., N).
    """
    one, other = values[..., :, None], values[..., None, :]
    ranks = (other < one).sum(-1) + ((other == one).sum(-1) + 1) / 2
    return ranks.to(torch.promote_types(values.dtype, torch.float32))


def sigmoid_ranks(values: Tensor, temperature: float) -> Tensor:
    """Return the soft ranks of the values by the logistic function s, (N,).

        r_i = 1/2 + sum_j s((v_i - v_j) / T)

    >>> sigmoid_ranks(torch.tensor([1., 2., 4.]), .1)
    tensor([1.0000, 2.0000, 3.0000])

    Args:
        values: v, (N,).
        temperature: T, in the unit of the values.
    """
    return torch.sigmoid((values[:, None] - values) / temperature).sum(1) + .5


def erf_ranks(values: Tensor, temperature: float) -> Tensor:
    """Return the soft ranks of the values by the normal distribution function Phi, (N,).

        r_i = 1/2 + sum_j Phi((v_i - v_j) / T)

    >>> erf_ranks(torch.tensor([1., 2., 4.]), 1.)
    tensor([1.1600, 1.8641, 2.9759])

    Args:
        values: v, (N,).
        temperature: T, in the unit of the values.
    """
    return torch.special.ndtr((values[:, None] - values) / temperature).sum(1) + .5


def projected_ranks(values: Tensor, temperature: float) -> Tensor:
    """Return the point of the permutahedron of (1, ..., N) that is nearest to v / T, (N,).

    With z = v / T in descending order, it is z less the isotonic regression of z - (N, ..., 1). The gradient flows
    through the means of the regression's blocks, which gives the exact Jacobian.

    >>> projected_ranks(torch.tensor([1., 2., 4.]), 10.)
    tensor([1.8667, 1.9667, 2.1667])

    Args:
        values: v, (N,).
        temperature: T, in the unit of the values.
    """
    z, order = (values / temperature).sort(descending=True)
    wanted = torch.arange(len(z), 0, -1, device=z.device, dtype=z.dtype)
    ranks = z - falling_regression(z - wanted)
    return torch.empty_like(ranks).scatter(0, order, ranks)


SOFT_RANKS = {'sigmoid': sigmoid_ranks, 'erf': erf_ranks, 'projection': projected_ranks}


def falling_regression(values: Tensor) -> Tensor:
    """Return the non-increasing sequence nearest to the values in least squares, (N,), by pooling adjacent violators.

    >>> falling_regression(torch.tensor([3., 1., 2.]))
    tensor([3.0000, 1.5000, 1.5000])

    Args:
        values: (N,).
    """
    blocks: list[tuple[float, int]] = []  # mean and length
    for value in values.detach().double().tolist():
        mean, length = value, 1
        while blocks and blocks[-1][0] < mean:
            before, count = blocks.pop()
            mean, length = (before * count + mean * length) / (count + length), count + length
        blocks.append((mean, length))
    lengths = torch.tensor([length for _, length in blocks], device=values.device)
    block = torch.repeat_interleave(torch.arange(len(blocks), device=values.device), lengths)
    means = torch.zeros(len(blocks), device=values.device, dtype=values.dtype).index_add(0, block, values) / lengths
    return means[block]
