"""The losses of the paper (Li, Jiang, Jiang: Norm-in-Norm Loss, ACM Multimedia 2020, arXiv 2008.03889), and IQALoss.

Each loss is a plain function of predictions and MOS, (N, 1) or (N,) each. It computes in float32 or float64, returns a
scalar, and raises ValueError if the lengths differ. The other families of losses are in iqa_losses/; every loss is a
row of LOSSES and can be imported from here. The losses depend on torch only.
"""
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from torch import Tensor, nn

from iqa_losses import ALIASES, INPUTS, LOSSES, loss, terms_of
from iqa_losses.correlation import ccc, pearson, plcc
from iqa_losses.distribution import consistency, coral, emd, nll, soft_label
from iqa_losses.normalisations import (
    EPS,
    centre_by_range,
    check_weights,
    compare,
    normalise_by_norm,
    normalise_by_range,
    scale_by_norm,
    standardise,
)
from iqa_losses.pairs import (
    fidelity,
    fidelity_of_raters,
    mixed,
    rank_hinge,
    ranknet,
    thurstone_bce,
    thurstone_bce_of_raters,
    tres,
)
from iqa_losses.ranking import RankFunction, macs_loss, monotonicity_regularization, ranks, unranked
from iqa_losses.regression import charbonnier, epsilon, huber, logcosh, mae, mse
from iqa_losses.soft_ranks import neuralsort, soft_srocc
from iqa_losses.tensors import columns, in_float32
from iqa_runtime.errors import UserError
from iqa_runtime.labels import Labels
from iqa_runtime.option_types import Exponent, TwoWeights

__all__ = ['ALIASES', 'LOSSES', 'IQALoss', 'NotFiniteError', 'bhat', 'build_loss', 'ccc', 'charbonnier', 'columns',
           'consistency', 'coral', 'emd', 'epsilon', 'fidelity', 'fidelity_of_raters', 'huber',
           'linearity_induced_loss', 'logcosh', 'macs_loss', 'mae', 'mixed', 'monotonicity_regularization', 'mse',
           'neuralsort', 'nll', 'norm_loss_with_mean_normalization', 'norm_loss_with_min_max_normalization',
           'norm_loss_with_normalization', 'norm_loss_with_scaling', 'pearson', 'plcc', 'rank_hinge', 'ranknet',
           'ranks', 'soft_label', 'soft_srocc', 'thurstone_bce', 'thurstone_bce_of_raters', 'tres', 'unranked']


class NotFiniteError(ValueError):
    """Predictions, MOS or other labels contain NaN or infinity."""


@in_float32
def bhat(y_pred: Tensor, q: float = 2) -> Tensor:
    """Return the q-norm of the centred predictions, a scalar >= 0: b-hat in the paper's appendix.

        b-hat = ||y_pred - mean(y_pred)||_q

    >>> bhat(torch.tensor([[1.], [2.], [4.]]))
    tensor(2.1602)

    Args:
        y_pred: predictions, (N, 1).
        q: exponent of the norm.
    """
    return torch.linalg.vector_norm(y_pred - y_pred.mean(), q)


# Losses

@loss('norm-in-norm')
def norm_loss_with_normalization(y_pred: Tensor, y: Tensor, alpha: TwoWeights = (1., 0.), p: Exponent = 1.,
                                 q: Exponent = 2., detach: bool = False) -> Tensor:
    """Compute the Norm-in-Norm loss: the p-norm between predictions and MOS normalised by their q-norms, in 0..1.

        loss = (alpha_0 l + alpha_1 l') / (alpha_0 + alpha_1)
        l    = (||x - t||_p / s)^p
        l'   = (||rho x - t||_p / s)^p
        s    = 2^max(1, 1/q) N^max(0, 1/p - 1/q)

    x and t are the predictions and the MOS after `normalise_by_norm`, and rho is the cosine of the angle between them.
    If p < 1, eps is added to the differences. A batch of one gives 0, with zero gradient. Equal MOS give t = 0; equal
    predictions give x = 0, with a gradient as large as 1 / eps.

    >>> norm_loss_with_normalization(torch.tensor([1., 2., 3.]), torch.tensor([90., 50., 10.]))
    tensor(0.8165)

    Args:
        y_pred: predictions, (N, 1) or (N,).
        y: MOS, (N, 1) or (N,).
        alpha: weights of l, the error of the normalised predictions x, and of l', that of rho x.
        p: exponent of the norm that compares predictions with MOS; for the loss scaling, of the norm that divides them.
        q: exponent of the norm that normalises predictions and MOS.
        detach: stop the gradient through the statistics that normalise the predictions, as their mean and norm.
    """
    scale = 2 ** max(1, 1 / q) * y_pred.numel() ** max(0, 1 / p - 1 / q)

    def distance(difference: Tensor) -> Tensor:
        if p < 1:
            difference = difference + EPS  # the gradient of |d|^p has a pole at 0
        return (torch.linalg.vector_norm(difference, p) / scale) ** p

    return compare(y_pred, y, partial(normalise_by_norm, q=q), alpha, detach, distance)


@loss('min-max-norm')
def norm_loss_with_min_max_normalization(y_pred: Tensor, y: Tensor, alpha: TwoWeights = (1., 0.),
                                         detach: bool = False) -> Tensor:
    """Compute the mean squared error between predictions and MOS that are both mapped to 0..1; a scalar in 0..1.

        loss = (alpha_0 mean (x - t)^2 + alpha_1 mean (rho x - t)^2) / (alpha_0 + alpha_1)

    x and t are the predictions and the MOS after `normalise_by_range`, and rho is the cosine of the angle between them.
    A batch of one gives 0, with zero gradient; equal values are mapped to 0.

    >>> norm_loss_with_min_max_normalization(torch.tensor([1., 2., 3.]), torch.tensor([90., 50., 10.]))
    tensor(0.6667)

    Args:
        y_pred: predictions, (N, 1) or (N,).
        y: MOS, (N, 1) or (N,).
        alpha: weights of the errors of x and of rho x.
        detach: stop the gradient through the minimum and the maximum of the predictions.
    """
    return compare(y_pred, y, normalise_by_range, alpha, detach)


@loss('mean-norm')
def norm_loss_with_mean_normalization(y_pred: Tensor, y: Tensor, alpha: TwoWeights = (1., 0.),
                                      detach: bool = False) -> Tensor:
    """Compute a quarter of the mean squared error between predictions and MOS, centred and divided by their ranges.

        loss = (alpha_0 mean (x - t)^2 + alpha_1 mean (rho x - t)^2) / (4 (alpha_0 + alpha_1))

    A scalar in 0..1. x and t are the predictions and the MOS after `centre_by_range`, and rho is the cosine of the
    angle between them. A batch of one gives 0, with zero gradient; equal values are mapped to 0.

    >>> norm_loss_with_mean_normalization(torch.tensor([1., 2., 3.]), torch.tensor([90., 50., 10.]))
    tensor(0.1667)

    Args:
        y_pred: predictions, (N, 1) or (N,).
        y: MOS, (N, 1) or (N,).
        alpha: weights of the errors of x and of rho x.
        detach: stop the gradient through the mean, the minimum and the maximum of the predictions.
    """
    return compare(y_pred, y, centre_by_range, alpha, detach) / 4


@loss('scaling', p=1)
def norm_loss_with_scaling(y_pred: Tensor, y: Tensor, alpha: TwoWeights = (1., 0.), p: Exponent = 2.,
                           detach: bool = False) -> Tensor:
    """Compute a quarter of the mean squared error between predictions and MOS, each divided by its p-norm.

        loss = (alpha_0 mean (x - t)^2 + alpha_1 mean (rho x - t)^2) / (4 (alpha_0 + alpha_1))

    A scalar in 0..1. x and t are the predictions and the MOS after `scale_by_norm`, and rho is the cosine of the angle
    between them. A batch of one gives 0, with zero gradient; zeros stay zeros.

    >>> norm_loss_with_scaling(torch.tensor([1., 2., 3.]), torch.tensor([90., 50., 10.]))
    tensor(0.0719)

    Args:
        y_pred: predictions, (N, 1) or (N,).
        y: MOS, (N, 1) or (N,).
        alpha: weights of the errors of x and of rho x.
        p: exponent of the norm.
        detach: stop the gradient through the norm of the predictions.
    """
    return compare(y_pred, y, partial(scale_by_norm, p=p), alpha, detach) / 4


@loss('linearity')
def linearity_induced_loss(y_pred: Tensor, y: Tensor, alpha: TwoWeights = (1., 0.), detach: bool = False) -> Tensor:
    """Compute a quarter of the mean squared error between the z-scores of predictions and MOS; a scalar in 0..1.

        loss = (alpha_0 mean (x - t)^2 + alpha_1 mean (rho x - t)^2) / (4 (alpha_0 + alpha_1))

    x and t are the predictions and the MOS after `standardise`, and rho = mean (x t). With alpha = (1, 0), the loss
    equals (1 - PLCC) / 2. A batch of one gives 0, with zero gradient; equal values are mapped to 0.

    >>> linearity_induced_loss(torch.tensor([1., 2., 3.]), torch.tensor([90., 50., 10.]))
    tensor(1.0000)

    Args:
        y_pred: predictions, (N, 1) or (N,).
        y: MOS, (N, 1) or (N,).
        alpha: weights of the errors of x and of rho x.
        detach: stop the gradient through the mean and the standard deviation of the predictions.
    """
    return compare(y_pred, y, standardise, alpha, detach, rho=lambda x, t: (x * t).mean()) / 4


class IQALoss(nn.Module):
    """Add up losses over the heads of a network, with weights; computed in float32, under autocast too.

        IQALoss()([pq6, pq7, pq], (mos, std)) = beta[0] L(pq6, mos) + beta[1] L(pq7, mos) + beta[2] L(pq, mos)

    Predictions and MOS are (N, 1) or (N,), in MOS units. Instead of the pair (mos, std), the MOS alone can be given, or
    Labels, which contain further labels that some losses need. Heads of weight 0 are skipped. `beta` has a weight for
    each head of the network. Raises NotFiniteError if predictions or labels that the losses need contain NaN or
    infinity, and ValueError for an unknown loss or option, or for a value that the command line refuses.

    >>> loss = IQALoss('mse+plcc:.5', beta=[1])
    >>> loss([torch.tensor([1., 2.])], (torch.tensor([1., 4.]), torch.tensor([1., 1.])))
    tensor(2.)

    Args:
        loss_type: a name in LOSSES or ALIASES, or a sum: 'mse+plcc:.5' is MSE + .5 (1 - PLCC) / 2.
        beta: weight of each head, in the order of the outputs.
        monotonicity_regularization: add `gamma` times the loss monotonicity.
        gamma: weight of the monotonicity regularization.
        distribution: what the heads predict, Network.distribution, of outputs (N, C); None: a score (N, 1).
        penalty: function whose value is added to the loss, such as a penalty on the network's weights.
        options: alpha, p, q, detach ... Each loss of the sum gets the options that it takes, so that one set of options
            fits all losses; an option that no loss takes is an error.

    Attributes:
        parts: name -> value of each loss of a sum in the last batch, over all heads, without its weight in the sum.
    """

    def __init__(self, loss_type: str = 'norm-in-norm', beta: Sequence[float] = (.1, .1, 1),
                 monotonicity_regularization: bool = False, gamma: float = .1,
                 penalty: Callable[[], Tensor] | None = None, distribution: nn.Module | None = None, **options):
        super().__init__()
        check_weights('beta', beta)
        if unknown := sorted(set(options) - set(LOSSES.parameters)):
            raise ValueError(f'no loss takes an option {unknown[0]}; options of losses: {", ".join(LOSSES.parameters)}')
        self.weights = terms_of(loss_type)
        if monotonicity_regularization and gamma:
            check_weights('gamma', [gamma])
            self.weights['monotonicity'] = self.weights.get('monotonicity', 0) + gamma
        self.functions = {name: _with_options(name, options) for name in self.weights}
        self.beta, self.penalty, self.parts, self.distribution = tuple(beta), penalty, {}, distribution

    @property
    def scored_head(self) -> int:
        """Return the index of the head to score: the last if it is trained, else the head with the largest weight."""
        return len(self.beta) - 1 if self.beta[-1] else self.beta.index(max(self.beta))

    @property
    def needs(self) -> set[str]:
        """Return the names of iqa_losses.INPUTS that the losses take."""
        return {need for name in self.weights for need in LOSSES[name].needs()}

    def forward(self, outputs: Sequence[Tensor], scores: Labels | tuple[Tensor, Tensor] | Tensor) -> Tensor:
        """Return the total loss, a float32 scalar.

        Args:
            outputs: predictions of each head, (N, 1) or (N,), or the parameters (N, C) of its distribution; for the
                loss consistency, followed by those of the mirror images.
            scores: Labels, the pair of MOS and standard deviations, or the MOS alone, (N, 1) or (N,) each.
        """
        if isinstance(outputs, Tensor):
            raise ValueError(f'outputs: expected a sequence of heads, got one tensor {tuple(outputs.shape)}')
        heads = len(outputs) // (1 + ('flipped' in self.needs))
        if heads != len(self.beta):
            raise ValueError(f'beta has {len(self.beta)} weights, the network {heads} heads; expected as many')
        self.parts = dict.fromkeys(self.weights if len(self.weights) > 1 else (), 0.)
        with torch.autocast(outputs[0].device.type, enabled=False):
            labels = Labels.of(scores).map(lambda values: values.to(outputs[0].device).float())
            y, mirrored = labels.mos, [*outputs[len(self.beta):], *[None] * len(outputs)]
            outputs = outputs[:len(self.beta)]
            total = sum(weight * self._head(output.float(), mirror, labels, weight)
                        for output, mirror, weight in zip(outputs, mirrored, self.beta, strict=False) if weight)
            if self.penalty:
                total = total + self.penalty()
            total = total + 0 * (y.sum() + sum(head.detach().sum() for head in self._trained(outputs)))  # NaN in: NaN
        if not torch.isfinite(total):
            self._explain(outputs, labels)
        return total

    def means(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        """Return the predictions (N, 1) of each head.

        Args:
            outputs: as of `forward`.
        """
        return [self._mean(output) for output in outputs[:len(self.beta)]]

    def _mean(self, output: Tensor) -> Tensor:
        return output if self.distribution is None else self.distribution.mean(output)

    def _head(self, output: Tensor, mirrored: Tensor | None, labels: Labels, beta: float) -> Tensor:
        """Return the sum of the losses of a head, and add each loss, times the head's weight, to `parts`."""
        known = {'y_pred': self._mean(output), 'y': labels.mos, 'std': labels.std, **labels.more}
        if self.distribution is not None:
            known |= {'logits': output, 'log_variance': output[:, 1:]}
        if mirrored is not None:
            known['flipped'] = self._mean(mirrored.float())
        for name in self.functions:
            missing = [INPUTS[need] for need in LOSSES[name].needs() if need not in known]
            if missing:
                raise ValueError(f'--loss_type {name} needs {" and ".join(missing)}')
        values = {name: function(**{need: known[need] for need in LOSSES[name].needs()})
                  for name, function in self.functions.items()}
        for name in self.parts:
            self.parts[name] = self.parts[name] + beta * values[name].detach()
        return sum(self.weights[name] * value for name, value in values.items())

    def _trained(self, outputs: Sequence[Tensor]) -> list[Tensor]:
        return [output.float() for output, weight in zip(outputs, self.beta, strict=True) if weight]

    def _explain(self, outputs: Sequence[Tensor], labels: Labels) -> None:
        """Raise NotFiniteError if the loss is not finite because the labels that it needs or the predictions are not.
        """
        more = {'std': labels.std, **labels.more}
        for values, name in ((labels.mos, 'the MOS'), *((one, INPUTS['y_pred']) for one in self._trained(outputs)),
                             *((more[need], INPUTS[need]) for need in sorted(self.needs & set(more)))):
            if not torch.isfinite(values).all():
                raise NotFiniteError(f'{name} contain NaN or infinity')


def _with_options(name: str, options: Mapping[str, object]) -> Callable[..., Tensor]:
    """Bind the options that a loss takes, and return the loss; ValueError if it cannot be computed with them."""
    row = LOSSES[name]
    function = partial(row.build, **{option: value for option, value in options.items() if option in row.options()})
    function(**{need: torch.zeros(2, 1) for need in row.needs()})
    return function


def build_loss(args, heads: int, ranker: RankFunction | None = None,
               penalty: Callable[[], Tensor] | None = None, distribution: nn.Module | None = None) -> IQALoss:
    """Return the loss that the options describe; UserError if --beta does not fit the number of heads.

    Args:
        args: the options of a command.
        heads: number of heads of the network; with fewer heads than the default --beta, its last weights are used.
        ranker: ranker of the loss macs (see macs_loss).
        penalty, distribution: see IQALoss.
    """
    beta = args.beta if len(args.beta) == heads or 'beta' in args.given else args.beta[-heads:]
    if len(beta) != heads:
        raise UserError(f'--beta has {len(beta)} weights, the network {heads} heads; expected one weight for each head')
    options = {name: getattr(args, name) for name in LOSSES.parameters} | {'ranker': ranker}
    return IQALoss(args.loss_type, beta=beta, monotonicity_regularization=args.monotonicity_regularization,
                   gamma=args.gamma, penalty=penalty, distribution=distribution,
                   **{name: value for name, value in options.items() if value is not None})
