"""Ranks and orders with a gradient, and the losses that are made of them."""
import torch
import torch.nn.functional as F
from torch import Tensor

from iqa_losses import loss
from iqa_losses.correlation import pearson
from iqa_runtime.errors import pick
from iqa_runtime.option_types import Positive, SoftRanks


@loss('soft-srocc')
def soft_srocc(y_pred: Tensor, y: Tensor, soft_ranks: SoftRanks = 'sigmoid', temperature: Positive = .1) -> Tensor:
    """Compute (1 - r) / 2, r Pearson's correlation of the soft ranks of the predictions and the ranks of the MOS.

    A smooth SROCC, in 0..1. Predictions are standardised first, so that x -> a x + b, a > 0, changes nothing. As the
    temperature falls, the soft ranks become the ranks, and the loss (1 - SROCC) / 2. Equal MOS share their mean rank. A
    batch of one, equal predictions or equal MOS give 1/2, with zero gradient. The sources are those of the ranks:

        sigmoid     1/2 + sum_j s((x_i - x_j) / T), s the logistic function: T. Qin, T.-Y. Liu, H. Li: A general
                    approximation framework for direct optimization of information retrieval measures, 2010
        erf         the same with the normal distribution function: M. Taylor et al.: SoftRank, WSDM 2008
        projection  the nearest point to x / T among the mean orders of 1..N (the permutahedron): M. Blondel et al.:
                    Fast differentiable sorting and ranking, ICML 2020

    Args:
        y_pred, y: predictions and MOS, (N, 1) or (N,).
        soft_ranks: sigmoid, erf or projection.
        temperature: T; of soft-srocc, in standard deviations of the predictions; of neuralsort, in their unit.
    """
    x = y_pred - y_pred.mean()
    variance = x.square().mean()
    x = x / torch.where(variance > 0, variance, 1).sqrt()
    soft = SOFT_RANKS[pick(SOFT_RANKS, soft_ranks, 'soft ranks')](x.flatten(), temperature)
    return (1 - pearson(soft[:, None], ranks_of(y.flatten())[:, None].to(soft))) / 2


@loss('neuralsort')
def neuralsort(y_pred: Tensor, y: Tensor, temperature: Positive = 1.) -> Tensor:
    """Compute the cross entropy of a soft sorting of the predictions and the sorting of the MOS; a scalar >= 0.

    Row k = 1..N of the soft permutation says which image has the k-th largest prediction: softmax over j of
    ((N + 1 - 2 k) x_j - sum_i |x_j - x_i|) / T. The mean over k of -log of the share of the image with the k-th largest
    MOS; images of equal MOS share their rows. A batch of one gives 0, equal predictions log N (A. Grover et al.:
    Stochastic optimization of sorting networks via continuous relaxations, ICLR 2019).

    Args:
        y_pred, y: predictions x and MOS, (N, 1) or (N,).
        temperature: T; of soft-srocc, in standard deviations of the predictions; of neuralsort, in their unit.
    """
    x, t, n = y_pred.flatten(), y.flatten(), len(y)
    rows = n + 1 - 2 * torch.arange(1, n + 1, device=x.device, dtype=x.dtype)
    spread = (x[:, None] - x).abs().sum(1)
    log_shares = F.log_softmax((rows[:, None] * x - spread) / temperature, 1)
    same = t.sort(descending=True).values[:, None] == t
    return -(same / same.sum(1, keepdim=True) * log_shares).sum(1).mean()


# Ranks

def ranks_of(values: Tensor) -> Tensor:
    """Return the ranks 1..N of (N,) values; equal values share their mean rank."""
    below, equal = values < values[:, None], values == values[:, None]
    return below.sum(1) + (equal.sum(1) + 1) / 2


def sigmoid_ranks(values: Tensor, temperature: float) -> Tensor:
    """Return 1/2 + sum over j of s((v_i - v_j) / T), s the logistic function, of (N,) values."""
    return torch.sigmoid((values[:, None] - values) / temperature).sum(1) + .5


def erf_ranks(values: Tensor, temperature: float) -> Tensor:
    """Return 1/2 + sum over j of Phi((v_i - v_j) / T), Phi the normal distribution function, of (N,) values."""
    return torch.special.ndtr((values[:, None] - values) / temperature).sum(1) + .5


def projected_ranks(values: Tensor, temperature: float) -> Tensor:
    """Return the point of the permutahedron of (1, ..., N) that is nearest to v / T, of (N,) values.

    It is z less the isotonic regression of z - (N, ..., 1), z = v / T in descending order. The gradient flows through
    the means of the regression's blocks, which is its exact Jacobian.
    """
    z, order = (values / temperature).sort(descending=True)
    wanted = torch.arange(len(z), 0, -1, device=z.device, dtype=z.dtype)
    ranks = z - falling_regression(z - wanted)
    return torch.empty_like(ranks).scatter(0, order, ranks)


SOFT_RANKS = {'sigmoid': sigmoid_ranks, 'erf': erf_ranks, 'projection': projected_ranks}


def falling_regression(values: Tensor) -> Tensor:
    """Return the nearest sequence (N,) that does not rise: least squares, by pooling adjacent violators."""
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
