"""The losses of the paper (Li, Jiang, Jiang: Norm-in-Norm Loss, ACM Multimedia 2020, arXiv 2008.03889).

Each loss is a plain function of two (N, 1) tensors, predictions and MOS, and returns a scalar. This file needs torch
alone and can be copied into another project.
"""
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

EPS = 1e-8
Fixed = Callable[[Tensor], Tensor]  # what a statistic is taken of: the values, or the values without their gradient


def bhat(y_pred: Tensor, q: float = 2) -> Tensor:
    """The q-norm of the centred predictions (N, 1), a scalar >= 0: b-hat of the paper's appendix."""
    return torch.linalg.vector_norm(y_pred - y_pred.mean(), q)


def norm_loss_with_normalization(y_pred: Tensor, y: Tensor, alpha: Sequence[float] = (1, 0), p: float = 1, q: float = 2,
                                 detach: bool = False) -> Tensor:
    """Norm-in-Norm: centre, divide by the q-norm, compare in the p-norm; a scalar in 0..1.

    x = (y_pred - mean) / (eps + ||y_pred - mean||_q), t likewise of y, s = 2^max(1, 1/q) N^max(0, 1/p - 1/q);
    l = (||x - t||_p / s)^p, l' the same of rho x - t with rho the cosine of x and t;
    the loss is (alpha0 l + alpha1 l') / (alpha0 + alpha1). For p < 1, eps is added to the difference.

    A batch of one gives 0 with zero gradient. Equal scores give t = 0. Equal predictions give x = 0, with a gradient as
    large as 1 / eps. `detach` stops the gradient through the mean and the norm of the predictions.
    """
    scale = 2 ** max(1, 1 / q) * len(y_pred) ** max(0, 1 / p - 1 / q)

    def normalise(values: Tensor, fixed: Fixed) -> Tensor:
        centred = values - fixed(values).mean()
        return centred / (EPS + torch.linalg.vector_norm(fixed(centred), q))

    def distance(difference: Tensor) -> Tensor:
        if p < 1:
            difference = difference + EPS  # the gradient of |d|^p has a pole at 0
        return (torch.linalg.vector_norm(difference, p) / scale) ** p

    return _compare(y_pred, y, alpha, detach, normalise, distance)


def norm_loss_with_min_max_normalization(y_pred: Tensor, y: Tensor, alpha: Sequence[float] = (1, 0),
                                         detach: bool = False) -> Tensor:
    """MSE after x = (y_pred - min) / (eps + max - min) on both sides; alpha as in Norm-in-Norm; a scalar in 0..1.

    A batch of one gives 0 with zero gradient; equal values are mapped to 0.
    """
    def normalise(values: Tensor, fixed: Fixed) -> Tensor:
        low, high = fixed(values).min(), fixed(values).max()
        return (values - low) / (EPS + (high - low))

    return _compare(y_pred, y, alpha, detach, normalise)


def norm_loss_with_mean_normalization(y_pred: Tensor, y: Tensor, alpha: Sequence[float] = (1, 0),
                                      detach: bool = False) -> Tensor:
    """MSE / 4 after x = (y_pred - mean) / (eps + max - min) on both sides; alpha as in Norm-in-Norm; in 0..1.

    A batch of one gives 0 with zero gradient; equal values are mapped to 0.
    """
    def normalise(values: Tensor, fixed: Fixed) -> Tensor:
        low, high = fixed(values).min(), fixed(values).max()
        return (values - fixed(values).mean()) / (EPS + (high - low))

    return _compare(y_pred, y, alpha, detach, normalise) / 4


def norm_loss_with_scaling(y_pred: Tensor, y: Tensor, alpha: Sequence[float] = (1, 0), p: float = 2,
                           detach: bool = False) -> Tensor:
    """MSE / 4 after x = y_pred / (eps + ||y_pred||_p) on both sides; alpha as in Norm-in-Norm; in 0..1.

    A batch of one gives 0 with zero gradient; zeros stay zeros.
    """
    def normalise(values: Tensor, fixed: Fixed) -> Tensor:
        return values / (EPS + torch.linalg.vector_norm(fixed(values), p))

    return _compare(y_pred, y, alpha, detach, normalise) / 4


def linearity_induced_loss(y_pred: Tensor, y: Tensor, alpha: Sequence[float] = (1, 0), detach: bool = False) -> Tensor:
    """MSE / 4 of z-scores with the population standard deviation; rho = mean(x t); a scalar in 0..1.

    With alpha = (1, 0) it is (1 - PLCC) / 2. A batch of one gives 0 with zero gradient; equal values are mapped to 0.
    """
    def normalise(values: Tensor, fixed: Fixed) -> Tensor:
        return (values - fixed(values).mean()) / (EPS + fixed(values).std(correction=0))

    return _compare(y_pred, y, alpha, detach, normalise, rho=lambda x, t: (x * t).mean()) / 4


def monotonicity_regularization(y_pred: Tensor, y: Tensor, detach: bool = False) -> Tensor:
    """Penalise pairs in the wrong order: R_ij = relu((x_i - x_j) sign(t_j - t_i)), sum R / (N (N - 1)) / (1 + max R).

    A scalar in 0..1; a batch of one gives 0. `detach` stops the gradient through max R.
    """
    n = len(y_pred)
    if n == 1:
        return y_pred.sum() * 0
    wrong = F.relu((y_pred - y_pred.T) * torch.sign(y.T - y))
    largest = wrong.max().detach() if detach else wrong.max()
    return wrong.sum() / (n * (n - 1)) / (1 + largest)


def _mean_square(difference: Tensor) -> Tensor:
    return difference.square().mean()


def _cosine(x: Tensor, t: Tensor) -> Tensor:
    return F.cosine_similarity(x, t, dim=0)


def _compare(y_pred: Tensor, y: Tensor, alpha: Sequence[float], detach: bool,
             normalise: Callable[[Tensor, Fixed], Tensor], distance: Callable[[Tensor], Tensor] = _mean_square,
             rho: Callable[[Tensor, Tensor], Tensor] = _cosine) -> Tensor:
    """(alpha0 distance(x - t) + alpha1 distance(rho x - t)) / (alpha0 + alpha1), terms of weight 0 left out.

    x, t are predictions and scores after `normalise(values, fixed)`, where `fixed` stops the gradient if `detach`;
    a batch of one gives 0.
    """
    if len(y_pred) == 1:
        return y_pred.sum() * 0
    x, t = (normalise(values, Tensor.detach if detach else lambda values: values) for values in (y_pred, y))
    total = 0
    if alpha[0]:
        total = total + alpha[0] * distance(x - t)
    if alpha[1]:
        total = total + alpha[1] * distance(rho(x, t) * x - t)
    return total / (alpha[0] + alpha[1])


# name -> the loss of one head, with the options that it takes from IQALoss
LOSSES = {
    'norm-in-norm': (norm_loss_with_normalization, ('alpha', 'p', 'q', 'detach')),
    'mae': (F.l1_loss, ()),
    'mse': (F.mse_loss, ()),
    'min-max-norm': (norm_loss_with_min_max_normalization, ('alpha', 'detach')),
    'mean-norm': (norm_loss_with_mean_normalization, ('alpha', 'detach')),
    'scaling': (norm_loss_with_scaling, ('alpha', 'p', 'detach')),
    'linearity': (linearity_induced_loss, ('alpha', 'detach')),
}
ALIASES = {'Lp': 'norm-in-norm'}  # the original's older name


class IQALoss(nn.Module):
    """The weighted sum of one loss over the heads; always computed in float32, under autocast too.

    `loss([pq6, pq7, pq], (mos, std))` = beta[2] L(pq) + beta[0] L(pq6) + beta[1] L(pq7), all (N, 1) in MOS units; heads
    of weight 0 are skipped. A network with another number of heads gets as many weights.

    Args:
        loss_type: a name in LOSSES (or ALIASES); ValueError lists them.
        alpha, p, q, detach: see norm_loss_with_normalization.
        beta: the weight of each head, in the order of the outputs.
        monotonicity_regularization: add gamma times the function of that name to each head's loss.
    """

    def __init__(self, loss_type: str = 'norm-in-norm', alpha: Sequence[float] = (1, 0),
                 beta: Sequence[float] = (.1, .1, 1), p: float = 1, q: float = 2,
                 monotonicity_regularization: bool = False, gamma: float = .1, detach: bool = False):
        super().__init__()
        loss_type = ALIASES.get(loss_type, loss_type)
        if loss_type not in LOSSES:
            raise ValueError(f'unknown loss {loss_type!r}; expected one of: {", ".join(LOSSES)}')
        self.function, names = LOSSES[loss_type]
        values = {'alpha': tuple(alpha), 'p': p, 'q': q, 'detach': detach}
        self.arguments = {name: values[name] for name in names}
        self.beta, self.monotonicity, self.gamma = tuple(beta), monotonicity_regularization, gamma

    def forward(self, outputs: Sequence[Tensor], scores: tuple[Tensor, Tensor]) -> Tensor:
        """Return the total loss, a float32 scalar."""
        if len(outputs) != len(self.beta):
            raise ValueError(f'beta has {len(self.beta)} weights for a network with {len(outputs)} heads')
        with torch.autocast(outputs[0].device.type, enabled=False):
            y = scores[0].float()
            return sum(weight * self._head(output.float(), y)
                       for output, weight in zip(outputs, self.beta, strict=True) if weight)

    def _head(self, y_pred: Tensor, y: Tensor) -> Tensor:
        loss = self.function(y_pred, y, **self.arguments)
        if self.monotonicity:
            loss = loss + self.gamma * monotonicity_regularization(y_pred, y, self.arguments.get('detach', False))
        return loss
