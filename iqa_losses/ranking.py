"""Compute losses of the order of images: the monotonicity regularization, and ASNA's loss with a learned ranker."""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from iqa_losses import loss
from iqa_losses.correlation import pearson
from iqa_runtime.option_types import RankerFile, Share, Weight

RankFunction = Callable[[Tensor], Tensor]


@loss('monotonicity')
def monotonicity_regularization(y_pred: Tensor, y: Tensor, detach: bool = False) -> Tensor:
    """Penalise pairs of images whose predictions are in the wrong order; a scalar in 0..1, 0 for a batch of one.

        R_ij = relu((x_i - x_j) sign(t_j - t_i))
        loss = sum R_ij / (N (N - 1) (1 + max R_ij))

    >>> monotonicity_regularization(torch.tensor([1., 3.]), torch.tensor([4., 2.]))
    tensor(0.6667)

    Args:
        y_pred: predictions x, (N, 1) or (N,).
        y: MOS t, (N, 1) or (N,).
        detach: stop the gradient through max R_ij.
    """
    n = len(y_pred)
    if n == 1:
        return y_pred.sum() * 0
    difference = y.T - y
    order = torch.sign(difference) + 0 * difference  # the sign of NaN is 0
    wrong = F.relu((y_pred - y_pred.T) * order)
    largest = wrong.max().detach() if detach else wrong.max()
    return wrong.sum() / (n * (n - 1)) / (1 + largest)


@loss('macs')
def macs_loss(y_pred: Tensor, y: Tensor, ranker: RankerFile = None, mse_factor: Share = .5,
              spearman_factor: Weight = .1) -> Tensor:
    """Add squared error, linear correlation and a learned rank correlation: ASNA's loss (team MACS, NTIRE 2021).

        loss = m MSE(x, t) + (1 - m) (1 - r^2) + s mean (R(t) - R(x))^2

    A scalar >= 0. r is Pearson's correlation of the batch, and R the ranks that the ranker returns; its weights
    get no gradient. The ranker takes n numbers at a time: the batch is divided into groups of n, and the last term
    ignores the remainder (see `unranked`). Without a ranker, the last term is left out. If the predictions or
    the MOS are equal, as in a batch of one, r is 0, with zero gradient. r^2 ignores the sign of the correlation; the
    other terms do not.

    In Python, the ranker is a function (groups, n) -> ranks 1..n of each group, or a network, which is used in eval
    mode; n is its attribute `n`, or 16.

    >>> macs_loss(torch.tensor([0., 1., 2.]), torch.tensor([0., 1., 3.]))
    tensor(0.1845)

    Args:
        y_pred: predictions x, (N, 1) or (N,), as z-scores: the ranker is trained on numbers of about -10 to 10.
        y: MOS t, (N, 1) or (N,), as z-scores.
        ranker: ranker that iqa_training/train_ranker.py wrote (default: CHECKPOINT_DIR/asna_ranker.pth, which is
            trained first if it is missing).
        mse_factor: weight m of the squared error; 1 - PLCC^2 has the weight 1 - m.
        spearman_factor: weight s of the squared difference of the ranks.
    """
    loss = mse_factor * F.mse_loss(y_pred, y) + (1 - mse_factor) * (1 - pearson(y_pred, y).square())
    ranked = len(y) - unranked(len(y), ranker)
    if spearman_factor and ranker is not None and ranked:
        of_y, of_y_pred = (ranks(ranker, values[:ranked]) for values in (y, y_pred))
        loss = loss + spearman_factor * F.mse_loss(of_y_pred, of_y)
    return loss


def unranked(scores: int, ranker: RankFunction | None) -> int:
    """Return the number of scores that remain after dividing a batch into the ranker's groups.

    >>> unranked(35, None)
    3

    Args:
        scores: number of scores in the batch.
        ranker: the ranker, whose attribute `n` is the size of a group (default: 16).
    """
    return scores % getattr(ranker, 'n', 16)


def ranks(ranker: RankFunction, values: Tensor) -> Tensor:
    """Return the ranks (groups, n) of the values within each group, without gradients for the ranker's weights.

    >>> def exact(groups):
    ...     return groups.argsort(1).argsort(1) + 1
    >>> ranks(exact, torch.arange(16, 0, -1)[:, None])
    tensor([[16, 15, 14, 13, 12, 11, 10,  9,  8,  7,  6,  5,  4,  3,  2,  1]])

    Args:
        ranker: function or network (groups, n) -> ranks; a network is used in eval mode.
        values: (groups n, 1).
    """
    groups = values.view(-1, getattr(ranker, 'n', 16))
    if not isinstance(ranker, nn.Module):
        return ranker(groups)
    frozen = {name: tensor.detach() for name, tensor in ranker.state_dict(keep_vars=True).items()}
    weight = next(iter(frozen.values()))
    training = ranker.training
    try:
        return functional_call(ranker.eval(), frozen, groups.to(weight)).to(values)
    finally:
        ranker.train(training)
