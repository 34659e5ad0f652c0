"""The losses of the paper (Li, Jiang, Jiang: Norm-in-Norm Loss, ACM Multimedia 2020, arXiv 2008.03889), and ASNA's.

Each loss is a plain function of predictions and MOS, each (N, 1) or (N,), and returns a scalar; ValueError if their
lengths differ. This file needs torch alone and can be copied into another project.
"""
import math
from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

EPS = 1e-8
Ranker = Callable[[Tensor], Tensor]


class NotFiniteError(ValueError):
    """Predictions or MOS hold NaN or infinity."""


def bhat(y_pred: Tensor, q: float = 2) -> Tensor:
    """Return the q-norm of the centred predictions (N, 1), a scalar >= 0: b-hat of the paper's appendix."""
    return torch.linalg.vector_norm(y_pred - y_pred.mean(), q)


# Normalisations of the predictions or of the MOS (N, 1); `detach` stops the gradient through their statistics

def normalise_by_norm(values: Tensor, q: float = 2, detach: bool = False) -> Tensor:
    """Centre, and divide by the q-norm: (v - mean) / (eps + ||v - mean||_q). Equal values become 0."""
    centred = values - _fixed(values, detach).mean()
    return centred / (EPS + torch.linalg.vector_norm(_fixed(centred, detach), q))


def normalise_by_range(values: Tensor, detach: bool = False) -> Tensor:
    """Map to 0..1: (v - min) / (eps + max - min). Equal values become 0."""
    low, high = _fixed(values, detach).min(), _fixed(values, detach).max()
    return (values - low) / (EPS + (high - low))


def centre_by_range(values: Tensor, detach: bool = False) -> Tensor:
    """Centre, and divide by the range: (v - mean) / (eps + max - min). Equal values become 0."""
    low, high = _fixed(values, detach).min(), _fixed(values, detach).max()
    return (values - _fixed(values, detach).mean()) / (EPS + (high - low))


def scale_by_norm(values: Tensor, p: float = 2, detach: bool = False) -> Tensor:
    """Divide by the p-norm: v / (eps + ||v||_p). Zeros stay zeros."""
    return values / (EPS + torch.linalg.vector_norm(_fixed(values, detach), p))


def standardise(values: Tensor, detach: bool = False) -> Tensor:
    """Return z-scores, with the population standard deviation. Equal values become 0."""
    return (values - _fixed(values, detach).mean()) / (EPS + _fixed(values, detach).std(correction=0))


def _fixed(values: Tensor, detach: bool) -> Tensor:
    return values.detach() if detach else values


# Losses

def norm_loss_with_normalization(y_pred: Tensor, y: Tensor, alpha: Sequence[float] = (1, 0), p: float = 1, q: float = 2,
                                 detach: bool = False) -> Tensor:
    """Centre, divide by the q-norm, compare in the p-norm: Norm-in-Norm, a scalar in 0..1.

    x, t: predictions and MOS after `normalise_by_norm`; s = 2^max(1, 1/q) N^max(0, 1/p - 1/q);
    l = (||x - t||_p / s)^p, l' the same of rho x - t with rho the cosine of x and t;
    the loss is (alpha0 l + alpha1 l') / (alpha0 + alpha1). For p < 1, eps is added to the difference.

    A batch of one gives 0 with zero gradient. Equal scores give t = 0. Equal predictions give x = 0, with a gradient as
    large as 1 / eps. `detach` stops the gradient through the mean and the norm of the predictions.
    """
    _check_exponents(p, q)
    scale = 2 ** max(1, 1 / q) * y_pred.numel() ** max(0, 1 / p - 1 / q)

    def distance(difference: Tensor) -> Tensor:
        if p < 1:
            difference = difference + EPS  # the gradient of |d|^p has a pole at 0
        return (torch.linalg.vector_norm(difference, p) / scale) ** p

    return _compare(y_pred, y, partial(normalise_by_norm, q=q), alpha, detach, distance)


def norm_loss_with_min_max_normalization(y_pred: Tensor, y: Tensor, alpha: Sequence[float] = (1, 0),
                                         detach: bool = False) -> Tensor:
    """Compute MSE after `normalise_by_range` on both sides; alpha as in Norm-in-Norm; a scalar in 0..1.

    A batch of one gives 0 with zero gradient; equal values are mapped to 0.
    """
    return _compare(y_pred, y, normalise_by_range, alpha, detach)


def norm_loss_with_mean_normalization(y_pred: Tensor, y: Tensor, alpha: Sequence[float] = (1, 0),
                                      detach: bool = False) -> Tensor:
    """Compute MSE / 4 after `centre_by_range` on both sides; alpha as in Norm-in-Norm; in 0..1.

    A batch of one gives 0 with zero gradient; equal values are mapped to 0.
    """
    return _compare(y_pred, y, centre_by_range, alpha, detach) / 4


def norm_loss_with_scaling(y_pred: Tensor, y: Tensor, alpha: Sequence[float] = (1, 0), p: float = 2,
                           detach: bool = False) -> Tensor:
    """Compute MSE / 4 after `scale_by_norm` on both sides; alpha as in Norm-in-Norm; in 0..1.

    A batch of one gives 0 with zero gradient; zeros stay zeros.
    """
    _check_exponents(p)
    return _compare(y_pred, y, partial(scale_by_norm, p=p), alpha, detach) / 4


def linearity_induced_loss(y_pred: Tensor, y: Tensor, alpha: Sequence[float] = (1, 0), detach: bool = False) -> Tensor:
    """Compute MSE / 4 of z-scores (`standardise`); rho = mean(x t); a scalar in 0..1.

    With alpha = (1, 0) it is (1 - PLCC) / 2. A batch of one gives 0 with zero gradient; equal values are mapped to 0.
    """
    return _compare(y_pred, y, standardise, alpha, detach, rho=lambda x, t: (x * t).mean()) / 4


def mae(y_pred: Tensor, y: Tensor) -> Tensor:
    """Return the mean absolute error, in the unit of the MOS."""
    return F.l1_loss(*columns(y_pred, y))


def mse(y_pred: Tensor, y: Tensor) -> Tensor:
    """Return the mean squared error, in the squared unit of the MOS."""
    return F.mse_loss(*columns(y_pred, y))


def monotonicity_regularization(y_pred: Tensor, y: Tensor, detach: bool = False) -> Tensor:
    """Penalise pairs in the wrong order: R_ij = relu((x_i - x_j) sign(t_j - t_i)), sum R / (N (N - 1)) / (1 + max R).

    A scalar in 0..1; a batch of one gives 0. `detach` stops the gradient through max R.
    """
    y_pred, y = columns(y_pred, y)
    n = len(y_pred)
    if n == 1:
        return y_pred.sum() * 0
    wrong = F.relu((y_pred - y_pred.T) * torch.sign(y.T - y))
    return wrong.sum() / (n * (n - 1)) / (1 + _fixed(wrong.max(), detach))


def macs_loss(y_pred: Tensor, y: Tensor, ranker: Ranker | None = None, mse_factor: float = .5,
              spearman_factor: float = .1) -> Tensor:
    """Add squared error, linear correlation and a learned rank correlation: ASNA's loss (team MACS, NTIRE 2021).

    m MSE + (1 - m) (1 - r^2) + s mean (R(y) - R(y_pred))^2, a scalar >= 0, with m = mse_factor, s = spearman_factor,
    r Pearson's correlation over the batch, and R the ranker, whose weights get no gradient. R takes n numbers at a
    time: the batch is cut into groups of n, and a remainder (see `unranked`) has no part in the last term, nor has a
    batch below n. r is 0, with zero gradient, if the predictions or the MOS are equal, as in a batch of one. r^2 does
    not see the sign; the other terms do.

    Args:
        y_pred, y: (N, 1) or (N,), z-scores: the ranker knows numbers of about -10 to 10.
        ranker: (groups, n) -> their ranks 1..n; a network is used in inference mode. `ranker.n` is n, or else 16.
        mse_factor: m, in 0..1.
        spearman_factor: s; ValueError if it is above 0 without a ranker.
    """
    y_pred, y = columns(y_pred, y)
    if spearman_factor and ranker is None:
        raise ValueError(f'spearman_factor {spearman_factor:g}: expected 0 without a ranker')
    loss = mse_factor * F.mse_loss(y_pred, y) + (1 - mse_factor) * (1 - pearson(y_pred, y).square())
    ranked = len(y) - unranked(len(y), ranker)
    if spearman_factor and ranked:
        of_y, of_y_pred = (ranks(ranker, values[:ranked]) for values in (y, y_pred))
        loss = loss + spearman_factor * F.mse_loss(of_y_pred, of_y)
    return loss


def pearson(x: Tensor, y: Tensor) -> Tensor:
    """Return Pearson's correlation of two columns, clamped to -1..1; 0 with zero gradient if a column is constant."""
    constant = (x == x[0]).all() | (y == y[0]).all()
    x, y = x - x.mean(), y - y.mean()
    norms = torch.linalg.vector_norm(x) * torch.linalg.vector_norm(y)
    return torch.where(constant, 0, (x * y).sum() / torch.where(constant, 1, norms)).clamp(-1, 1)


def unranked(scores: int, ranker: Ranker | None) -> int:
    """Return how many of so many scores are left over when they are cut into the ranker's groups."""
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


def columns(y_pred: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return predictions and MOS as (N, 1); ValueError that states both shapes if they are not (N,) or (N, 1)."""
    shapes = tuple(y_pred.shape), tuple(y.shape)
    if any(len(shape) not in (1, 2) or shape[1:] not in ((), (1,)) for shape in shapes) \
            or shapes[0][0] != shapes[1][0] or not shapes[0][0]:
        raise ValueError(f'predictions {shapes[0]} and MOS {shapes[1]}: expected (N, 1) or (N,), of the same N, at '
                         'least 1')
    return y_pred.reshape(-1, 1), y.reshape(-1, 1)


def _check_exponents(*exponents: float) -> None:
    if not all(0 < exponent < math.inf for exponent in exponents):
        raise ValueError(f'exponents of norms {exponents}: expected finite numbers above 0')


def _check_weights(name: str, weights: Sequence[float]) -> None:
    if not all(0 <= weight < math.inf for weight in weights) or not sum(weights) > 0:
        raise ValueError(f'{name} {tuple(weights)}: expected finite weights of at least 0, and one above 0')


def _mean_square(difference: Tensor) -> Tensor:
    return difference.square().mean()


def _cosine(x: Tensor, t: Tensor) -> Tensor:
    return F.cosine_similarity(x, t, dim=0)


def _compare(y_pred: Tensor, y: Tensor, normalise: Callable[..., Tensor], alpha: Sequence[float], detach: bool,
             distance: Callable[[Tensor], Tensor] = _mean_square,
             rho: Callable[[Tensor, Tensor], Tensor] = _cosine) -> Tensor:
    """Return (alpha0 distance(x - t) + alpha1 distance(rho x - t)) / (alpha0 + alpha1), x, t the normalised y_pred, y.

    Terms of weight 0 are left out; a batch of one gives 0.
    """
    y_pred, y = columns(y_pred, y)
    _check_weights('alpha', alpha)
    if len(y_pred) == 1:
        return y_pred.sum() * 0
    x, t = normalise(y_pred, detach=detach), normalise(y)
    total = 0
    if alpha[0]:
        total = total + alpha[0] * distance(x - t)
    if alpha[1]:
        total = total + alpha[1] * distance(rho(x, t) * x - t)
    return total / (alpha[0] + alpha[1])


# name -> the loss of one head, with the options that it takes from IQALoss
LOSSES = {
    'norm-in-norm': (norm_loss_with_normalization, ('alpha', 'p', 'q', 'detach')),
    'mae': (mae, ()),
    'mse': (mse, ()),
    'min-max-norm': (norm_loss_with_min_max_normalization, ('alpha', 'detach')),
    'mean-norm': (norm_loss_with_mean_normalization, ('alpha', 'detach')),
    'scaling': (norm_loss_with_scaling, ('alpha', 'p', 'detach')),
    'linearity': (linearity_induced_loss, ('alpha', 'detach')),
    'macs': (macs_loss, ('ranker', 'mse_factor', 'spearman_factor')),
}
ALIASES = {'Lp': 'norm-in-norm'}  # the original's older name


class IQALoss(nn.Module):
    """The weighted sum of one loss over the heads; always computed in float32, under autocast too.

    `loss([pq6, pq7, pq], (mos, std))` = beta[2] L(pq) + beta[0] L(pq6) + beta[1] L(pq7), each (N, 1) or (N,), in MOS
    units; heads of weight 0 are skipped. A network with another number of heads gets as many weights. NotFiniteError
    if predictions or MOS hold NaN or infinity.

    Args:
        loss_type: a name in LOSSES (or ALIASES); ValueError lists them.
        alpha, p, q, detach: see norm_loss_with_normalization; `detach` holds for the monotonicity too.
        beta: the weight of each head, in the order of the outputs.
        monotonicity_regularization: add gamma times the function of that name to each head's loss.
        ranker, mse_factor, spearman_factor: see macs_loss.
        penalty: what is added to the loss, as a penalty of the network's weights.
    """

    def __init__(self, loss_type: str = 'norm-in-norm', alpha: Sequence[float] = (1, 0),
                 beta: Sequence[float] = (.1, .1, 1), p: float = 1, q: float = 2,
                 monotonicity_regularization: bool = False, gamma: float = .1, detach: bool = False,
                 ranker: Ranker | None = None, mse_factor: float = .5, spearman_factor: float = 0,
                 penalty: Callable[[], Tensor] | None = None):
        super().__init__()
        loss_type = ALIASES.get(loss_type, loss_type)
        if loss_type not in LOSSES:
            raise ValueError(f'unknown loss {loss_type!r}; expected one of: {", ".join(LOSSES)}')
        _check_exponents(p, q)
        _check_weights('alpha', alpha)
        _check_weights('beta', beta)
        self.function, names = LOSSES[loss_type]
        values = {'alpha': tuple(alpha), 'p': p, 'q': q, 'detach': detach, 'ranker': ranker, 'mse_factor': mse_factor,
                  'spearman_factor': spearman_factor}
        self.arguments = {name: values[name] for name in names}
        self.beta, self.detach = tuple(beta), detach
        self.monotonicity, self.gamma = monotonicity_regularization, gamma
        self.penalty = penalty

    @property
    def scored_head(self) -> int:
        """Return the position of the head to score: the final if it is trained, else that of the largest weight."""
        return len(self.beta) - 1 if self.beta[-1] else self.beta.index(max(self.beta))

    def forward(self, outputs: Sequence[Tensor], scores: tuple[Tensor, Tensor]) -> Tensor:
        """Return the total loss, a float32 scalar."""
        if isinstance(outputs, Tensor):
            raise ValueError(f'outputs must be a sequence of heads, got one tensor {tuple(outputs.shape)}')
        if len(outputs) != len(self.beta):
            raise ValueError(f'beta has {len(self.beta)} weights for a network with {len(outputs)} heads')
        with torch.autocast(outputs[0].device.type, enabled=False):
            y = scores[0].float()
            total = sum(weight * self._head(output.float(), y)
                        for output, weight in zip(outputs, self.beta, strict=True) if weight)
            if self.penalty:
                total = total + self.penalty()
        if not torch.isfinite(total):
            self._explain(outputs, y)
        return total

    def _head(self, y_pred: Tensor, y: Tensor) -> Tensor:
        loss = self.function(y_pred, y, **self.arguments)
        if self.monotonicity:
            loss = loss + self.gamma * monotonicity_regularization(y_pred, y, self.detach)
        return loss

    def _explain(self, outputs: Sequence[Tensor], y: Tensor) -> None:
        """Raise NotFiniteError if the inputs of a loss that is not finite are to blame."""
        trained = [output for output, weight in zip(outputs, self.beta, strict=True) if weight]
        for values, name in ((y, 'MOS'), *((output, 'predictions') for output in trained)):
            if not torch.isfinite(values).all():
                raise NotFiniteError(f'the {name} hold NaN or infinity')


def build_loss(args, heads: int, ranker: Ranker | None = None,
               penalty: Callable[[], Tensor] | None = None) -> IQALoss:
    """Return the loss that the options ask for, of a network with so many heads: one head has the last weight.

    `ranker`, `penalty`: see IQALoss.
    """
    beta = args.beta if len(args.beta) == heads or 'beta' in args.given else args.beta[-heads:]
    if len(beta) != heads:
        from iqa_runtime.errors import UserError  # this file needs torch alone
        raise UserError(f'--beta has {len(beta)} weights, the network {heads} heads')
    return IQALoss(args.loss_type, args.alpha, beta, args.p, args.q, args.monotonicity_regularization, args.gamma,
                   args.detach, ranker, args.mse_factor, args.spearman_factor if ranker else 0, penalty)
