"""Losses of the order of the images: the monotonicity, and ranks that a network learned to compute."""
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from iqa_losses import loss
from iqa_losses.correlation import pearson
from iqa_runtime.option_types import RankerFile, Share, Weight

Ranker = Callable[[Tensor], Tensor]


@loss('monotonicity')
def monotonicity_regularization(y_pred: Tensor, y: Tensor, detach: bool = False) -> Tensor:
    """Penalise pairs in the wrong order: R_ij = relu((x_i - x_j) sign(t_j - t_i)), sum R / (N (N - 1)) / (1 + max R).

    A scalar in 0..1; a batch of one gives 0.

    Args:
        y_pred, y: predictions x and MOS t, (N, 1) or (N,).
        detach: stop the gradient through max R.
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

    m MSE + (1 - m) (1 - r^2) + s mean (R(y) - R(y_pred))^2, a scalar >= 0, with m = mse_factor, s = spearman_factor,
    r Pearson's correlation over the batch, and R the ranker, whose weights get no gradient. R takes n numbers at a
    time: the batch is cut into groups of n, and the last term leaves out a remainder (see `unranked`), or a batch
    below n; without a ranker there is none. r is 0, with zero gradient, if the predictions or the MOS are equal, as in
    a batch of one. r^2 does not see the sign; the other terms do.

    In Python, the ranker is a function (groups, n) -> their ranks 1..n, or a network, which is used in inference mode;
    `ranker.n` is n, or else 16.

    Args:
        y_pred, y: (N, 1) or (N,), z-scores: the ranker knows numbers of about -10 to 10.
        ranker: the ranker that iqa_training/train_ranker.py wrote (default: CHECKPOINT_DIR/asna_ranker.pth, trained
            first if it is missing).
        mse_factor: weight of the squared error; 1 - PLCC^2 has the rest.
        spearman_factor: weight of the squared difference of ranks.
    """
    loss = mse_factor * F.mse_loss(y_pred, y) + (1 - mse_factor) * (1 - pearson(y_pred, y).square())
    ranked = len(y) - unranked(len(y), ranker)
    if spearman_factor and ranker is not None and ranked:
        of_y, of_y_pred = (ranks(ranker, values[:ranked]) for values in (y, y_pred))
        loss = loss + spearman_factor * F.mse_loss(of_y_pred, of_y)
    return loss


def unranked(scores: int, ranker: Ranker | None) -> int:
    """Return how many scores are left over when a batch of them is cut into the ranker's groups."""
    return scores % getattr(ranker, 'n', 16)


def ranks(ranker: Ranker, values: Tensor) -> Tensor:
    """Return the ranks (groups, n) that a ranker gives a column, without a gradient of the ranker's own weights."""
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
