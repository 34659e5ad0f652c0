"""The losses of the paper (Li, Jiang, Jiang: Norm-in-Norm Loss, ACM Multimedia 2020, arXiv 2008.03889), and IQALoss.

Each loss is a plain function of predictions and MOS, each (N, 1) or (N,), and returns a scalar; ValueError if their
lengths differ. It computes in float32 at least. The other families of losses lie in iqa_losses/; all of them are rows
of LOSSES, and can be imported from here. They need torch alone.
"""
import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqa_losses import ALIASES, LOSSES, loss, terms_of
from iqa_losses.correlation import ccc, pearson, plcc
from iqa_losses.pairs import fidelity, mixed, rank_hinge, ranknet, thurstone_bce, tres
from iqa_losses.ranking import Ranker, macs_loss, monotonicity_regularization, ranks, unranked
from iqa_losses.regression import charbonnier, huber, logcosh, mae, mse
from iqa_losses.soft_ranks import neuralsort, soft_srocc
from iqa_losses.tensors import columns, in_float32
from iqa_runtime.errors import UserError
from iqa_runtime.option_types import Exponent, TwoWeights

__all__ = ['ALIASES', 'LOSSES', 'IQALoss', 'NotFiniteError', 'bhat', 'build_loss', 'ccc', 'charbonnier', 'columns',
           'fidelity', 'huber', 'linearity_induced_loss', 'logcosh', 'macs_loss', 'mae', 'mixed',
           'monotonicity_regularization', 'mse', 'neuralsort', 'norm_loss_with_mean_normalization',
           'norm_loss_with_min_max_normalization', 'norm_loss_with_normalization', 'norm_loss_with_scaling', 'pearson',
           'plcc', 'rank_hinge', 'ranknet', 'ranks', 'soft_srocc', 'thurstone_bce', 'tres', 'unranked']

EPS = 1e-8


class NotFiniteError(ValueError):
    """Predictions or MOS hold NaN or infinity."""


@in_float32
def bhat(y_pred: Tensor, q: float = 2) -> Tensor:
    """Return the q-norm of the centred predictions (N, 1), a scalar >= 0: b-hat of the paper's appendix."""
    return torch.linalg.vector_norm(y_pred - y_pred.mean(), q)


# Normalisations of the predictions or of the MOS (N, 1); `detach` stops the gradient through their statistics

@in_float32
def normalise_by_norm(values: Tensor, q: float = 2, detach: bool = False) -> Tensor:
    """Centre, and divide by the q-norm: (v - mean) / (eps + ||v - mean||_q). Equal values become 0."""
    centred = values - _fixed(values, detach).mean()
    return centred / (EPS + torch.linalg.vector_norm(_fixed(centred, detach), q))


@in_float32
def normalise_by_range(values: Tensor, detach: bool = False) -> Tensor:
    """Map to 0..1: (v - min) / (eps + max - min). Equal values become 0."""
    low, high = _fixed(values, detach).min(), _fixed(values, detach).max()
    return (values - low) / (EPS + (high - low))


@in_float32
def centre_by_range(values: Tensor, detach: bool = False) -> Tensor:
    """Centre, and divide by the range: (v - mean) / (eps + max - min). Equal values become 0."""
    low, high = _fixed(values, detach).min(), _fixed(values, detach).max()
    return (values - _fixed(values, detach).mean()) / (EPS + (high - low))


@in_float32
def scale_by_norm(values: Tensor, p: float = 2, detach: bool = False) -> Tensor:
    """Divide by the p-norm: v / (eps + ||v||_p). Zeros stay zeros."""
    return values / (EPS + torch.linalg.vector_norm(_fixed(values, detach), p))


@in_float32
def standardise(values: Tensor, detach: bool = False) -> Tensor:
    """Return z-scores, with the population standard deviation. Equal values become 0."""
    return (values - _fixed(values, detach).mean()) / (EPS + _fixed(values, detach).std(correction=0))


def _fixed(values: Tensor, detach: bool) -> Tensor:
    return values.detach() if detach else values


# Losses

@loss('norm-in-norm')
def norm_loss_with_normalization(y_pred: Tensor, y: Tensor, alpha: TwoWeights = (1., 0.), p: Exponent = 1.,
                                 q: Exponent = 2., detach: bool = False) -> Tensor:
    """Centre, divide by the q-norm, compare in the p-norm: Norm-in-Norm, a scalar in 0..1.

    x, t: predictions and MOS after `normalise_by_norm`; s = 2^max(1, 1/q) N^max(0, 1/p - 1/q);
    l = (||x - t||_p / s)^p, l' the same of rho x - t with rho the cosine of x and t;
    the loss is (alpha0 l + alpha1 l') / (alpha0 + alpha1). For p < 1, eps is added to the difference.

    A batch of one gives 0 with zero gradient. Equal scores give t = 0. Equal predictions give x = 0, with a gradient as
    large as 1 / eps.

    >>> norm_loss_with_normalization(torch.tensor([1., 2., 3.]), torch.tensor([90., 50., 10.]))
    tensor(0.8165)

    Args:
        y_pred, y: predictions and MOS, (N, 1) or (N,).
        alpha: weights of l and of its variant l'.
        p: norm that compares predictions with scores.
        q: norm that normalises them.
        detach: no gradient through the statistics of the predictions, here their mean and norm.
    """
    _check_exponents(p, q)
    scale = 2 ** max(1, 1 / q) * y_pred.numel() ** max(0, 1 / p - 1 / q)

    def distance(difference: Tensor) -> Tensor:
        if p < 1:
            difference = difference + EPS  # the gradient of |d|^p has a pole at 0
        return (torch.linalg.vector_norm(difference, p) / scale) ** p

    return _compare(y_pred, y, partial(normalise_by_norm, q=q), alpha, detach, distance)


@loss('min-max-norm')
def norm_loss_with_min_max_normalization(y_pred: Tensor, y: Tensor, alpha: TwoWeights = (1., 0.),
                                         detach: bool = False) -> Tensor:
    """Compute MSE after `normalise_by_range` on both sides; alpha as in Norm-in-Norm; a scalar in 0..1.

    A batch of one gives 0 with zero gradient; equal values are mapped to 0.
    """
    return _compare(y_pred, y, normalise_by_range, alpha, detach)


@loss('mean-norm')
def norm_loss_with_mean_normalization(y_pred: Tensor, y: Tensor, alpha: TwoWeights = (1., 0.),
                                      detach: bool = False) -> Tensor:
    """Compute MSE / 4 after `centre_by_range` on both sides; alpha as in Norm-in-Norm; in 0..1.

    A batch of one gives 0 with zero gradient; equal values are mapped to 0.
    """
    return _compare(y_pred, y, centre_by_range, alpha, detach) / 4


@loss('scaling', p=1)
def norm_loss_with_scaling(y_pred: Tensor, y: Tensor, alpha: TwoWeights = (1., 0.), p: Exponent = 2.,
                           detach: bool = False) -> Tensor:
    """Compute MSE / 4 after `scale_by_norm` on both sides; alpha as in Norm-in-Norm; in 0..1.

    A batch of one gives 0 with zero gradient; zeros stay zeros.
    """
    _check_exponents(p)
    return _compare(y_pred, y, partial(scale_by_norm, p=p), alpha, detach) / 4


@loss('linearity')
def linearity_induced_loss(y_pred: Tensor, y: Tensor, alpha: TwoWeights = (1., 0.), detach: bool = False) -> Tensor:
    """Compute MSE / 4 of z-scores (`standardise`); rho = mean(x t); a scalar in 0..1.

    With alpha = (1, 0) it is (1 - PLCC) / 2. A batch of one gives 0 with zero gradient; equal values are mapped to 0.
    """
    return _compare(y_pred, y, standardise, alpha, detach, rho=lambda x, t: (x * t).mean()) / 4


def _check_exponents(*exponents: float) -> None:
    if not all(0 < exponent < math.inf for exponent in exponents):
        found = ', '.join(f'{exponent:g}' for exponent in exponents)
        raise ValueError(f'exponents of norms ({found}): expected finite numbers above 0')


def _check_weights(name: str, weights: Sequence[float]) -> None:
    if not all(0 <= weight < math.inf for weight in weights) or not sum(weights) > 0:
        found = ', '.join(f'{weight:g}' for weight in weights)
        raise ValueError(f'{name} ({found}): expected finite weights of at least 0, and one above 0')


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


class IQALoss(nn.Module):
    """The weighted sum of losses over the heads; always computed in float32, under autocast too.

    `loss([pq6, pq7, pq], (mos, std))` = beta[2] L(pq) + beta[0] L(pq6) + beta[1] L(pq7), each (N, 1) or (N,), in MOS
    units; heads of weight 0 are skipped. A network with another number of heads gets as many weights. NotFiniteError
    if predictions or MOS hold NaN or infinity.

    Args:
        loss_type: a name in LOSSES (or ALIASES), or a sum of them: 'mse+plcc:.5' is MSE + .5 PLCC. ValueError lists
            the names.
        beta: the weight of each head, in the order of the outputs.
        monotonicity_regularization: add `gamma` times the loss of that name.
        penalty: what is added to the loss, as a penalty of the network's weights.
        options: alpha, p, q, detach ... of the losses in the sum, each of which gets those that it takes. So one set of
            options fits all losses; ValueError for an option that no loss takes.

    Attributes:
        parts: name -> value of each loss of a sum in the last batch, over all heads, without its weight in the sum.
    """

    def __init__(self, loss_type: str = 'norm-in-norm', beta: Sequence[float] = (.1, .1, 1),
                 monotonicity_regularization: bool = False, gamma: float = .1,
                 penalty: Callable[[], Tensor] | None = None, **options):
        super().__init__()
        _check_weights('beta', beta)
        if unknown := sorted(set(options) - set(LOSSES.parameters)):
            raise ValueError(f'no loss takes an option {unknown[0]}; there are: {", ".join(LOSSES.parameters)}')
        self.weights = terms_of(loss_type)
        if monotonicity_regularization and gamma:
            self.weights['monotonicity'] = self.weights.get('monotonicity', 0) + gamma
        self.functions = {name: _with_options(name, options) for name in self.weights}
        self.beta, self.penalty, self.parts = tuple(beta), penalty, {}

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
        self.parts = dict.fromkeys(self.weights if len(self.weights) > 1 else (), 0.)
        with torch.autocast(outputs[0].device.type, enabled=False):
            y = scores[0].to(outputs[0].device).float()
            total = sum(weight * self._head(output.float(), y, weight)
                        for output, weight in zip(outputs, self.beta, strict=True) if weight)
            if self.penalty:
                total = total + self.penalty()
            total = total + 0 * (y.sum() + sum(head.detach().sum() for head in self._trained(outputs)))  # NaN in: NaN
        if not torch.isfinite(total):
            self._explain(outputs, y)
        return total

    def _head(self, y_pred: Tensor, y: Tensor, beta: float) -> Tensor:
        """Return the sum of the losses of a head; count them in `parts`."""
        values = {name: function(y_pred, y) for name, function in self.functions.items()}
        for name in self.parts:
            self.parts[name] = self.parts[name] + beta * values[name].detach()
        return sum(self.weights[name] * value for name, value in values.items())

    def _trained(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        return [output.float() for output, weight in zip(outputs, self.beta, strict=True) if weight]

    def _explain(self, outputs: Sequence[Tensor], y: Tensor) -> None:
        """Raise NotFiniteError if the inputs of a loss that is not finite are to blame."""
        for values, name in ((y, 'MOS'), *((output, 'predictions') for output in self._trained(outputs))):
            if not torch.isfinite(values).all():
                raise NotFiniteError(f'the {name} hold NaN or infinity')


def _with_options(name: str, options: Mapping[str, object]) -> Callable[[Tensor, Tensor], Tensor]:
    """Return a loss with those of the options that it takes; ValueError if it cannot be computed with them."""
    row = LOSSES[name]
    function = partial(row.build, **{option: value for option, value in options.items() if option in row.options()})
    function(torch.zeros(2, 1), torch.zeros(2, 1))
    return function


def build_loss(args, heads: int, ranker: Ranker | None = None,
               penalty: Callable[[], Tensor] | None = None) -> IQALoss:
    """Return the loss that the options ask for, of a network with so many heads: one head has the last weight.

    `ranker`: see macs_loss; `penalty`: see IQALoss.
    """
    beta = args.beta if len(args.beta) == heads or 'beta' in args.given else args.beta[-heads:]
    if len(beta) != heads:
        raise UserError(f'--beta has {len(beta)} weights, the network {heads} heads')
    options = {name: getattr(args, name) for name in LOSSES.parameters} | {'ranker': ranker}
    return IQALoss(args.loss_type, beta=beta, monotonicity_regularization=args.monotonicity_regularization,
                   gamma=args.gamma, penalty=penalty,
                   **{name: value for name, value in options.items() if value is not None})
