"""Measure how predictions agree with opinion scores: line to MOS, criteria, ignite metric, evaluation, results."""
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import ignite.distributed as idist
import numpy as np
import torch
import torch.distributed as dist
from ignite.exceptions import NotComputableError
from ignite.handlers import ProgressBar
from ignite.metrics import Metric
from scipy import stats
from torch import Tensor
from torch.utils.data import DataLoader

from iqa_networks.network import Network, scored_first
from iqa_runtime.bootstrap import interval
from iqa_runtime.labels import Labels
from iqa_runtime.reliability import reliability

MORE = ('spread', 'uncertainty')  # further numbers of a Performance, (N,) in MOS units each


def fit_line(raw: np.ndarray, mos: np.ndarray) -> tuple[float, float]:
    """Return the least-squares k, b of mos ~ k raw + b; both (N,) float64. A constant `raw` gives k = 0, b = mean.

    Values that differ by no more than the rounding of their mean count as constant.
    """
    centred = raw - raw.mean()
    variance = centred @ centred
    differ = np.ptp(raw) > 8 * np.finfo(float).eps * np.abs(raw).max() and variance > 0
    k = float(centred @ mos / variance) if differ else 0.
    return k, float(mos.mean() - k * raw.mean())


def plcc(pq: np.ndarray, sq: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return Pearson's correlation along an axis, -1..1; nan for a constant."""
    a, b = (values - values.mean(axis, keepdims=True) for values in (pq, sq))
    norms = np.linalg.norm(a, axis=axis) * np.linalg.norm(b, axis=axis)
    defined = (np.ptp(pq, axis) > 0) & (np.ptp(sq, axis) > 0) & (norms > 0)
    return np.where(defined, np.clip((a * b).sum(axis) / np.where(defined, norms, 1), -1, 1), np.nan)


def srocc(pq: np.ndarray, sq: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return Spearman's rank correlation along an axis, -1..1; equal values share their mean rank."""
    return plcc(stats.rankdata(pq, axis=axis), stats.rankdata(sq, axis=axis), axis)


def krocc(pq: np.ndarray, sq: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return Kendall's tau-b along an axis, -1..1; nan for a constant."""
    a, b = (np.moveaxis(values, axis, -1) for values in (pq, sq))
    rows = zip(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), strict=True)
    return np.reshape([stats.kendalltau(*row)[0] for row in rows], a.shape[:-1])


def rmse(pq: np.ndarray, sq: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the root of the mean squared error along an axis, in the unit of the MOS `sq`."""
    return np.sqrt(np.mean((sq - pq) ** 2, axis))


@dataclass(frozen=True)
class Criterion:
    """A criterion of agreement, called with the predictions, the MOS and optionally the axis of the images.

    Attributes:
        of: the function that computes it.
        correlation: True for a value in -1..1, nan for a constant, whose magnitude says how good the predictions are;
            False for an error, at least 0, in the unit of the MOS.
        fast: whether it computes all resamples of a bootstrap at once.
    """

    of: Callable[..., np.ndarray]
    correlation: bool
    fast: bool = True

    def __call__(self, pq: np.ndarray, sq: np.ndarray, axis: int = -1) -> np.ndarray:
        return self.of(pq, sq, axis)

    @property
    def direction(self) -> int:
        """Return 1 if a higher value is better, -1 if a lower one is."""
        return 1 if self.correlation else -1

    def merit(self, value: float) -> float:
        """Return a number that is higher the better the predictions are: a magnitude, or an error negated."""
        return abs(value) if self.correlation else -value


CRITERIA: dict[str, Criterion] = {
    'SROCC': Criterion(srocc, correlation=True),
    'PLCC': Criterion(plcc, correlation=True),
    'RMSE': Criterion(rmse, correlation=False),
    'KROCC': Criterion(krocc, correlation=True, fast=False),
}


def criterion_title(name: str) -> str:
    """Return the name of a criterion as a table shows it: correlations between bars, because magnitudes are shown."""
    return f'|{name}|' if CRITERIA[name].correlation else name


def intervals(pq: np.ndarray, sq: np.ndarray) -> dict[str, list[float]]:
    """Return {criterion: [low, high]} by `interval`, for the fast criteria whose interval is defined."""
    fast = {name: criterion for name, criterion in CRITERIA.items() if criterion.fast}
    found = {name: interval(criterion, pq, sq) for name, criterion in fast.items()} if len(pq) > 1 else {}
    return {name: list(ends) for name, ends in found.items() if np.isfinite(ends).all()}


def agreement(pq: np.ndarray, sq: np.ndarray) -> dict[str, float]:
    """Return all criteria of predictions and MOS, both (N,).

    The correlations of a constant, of non-finite values or of fewer than two images are nan.
    """
    undefined = len(pq) < 2 or not np.isfinite(pq).all() or np.ptp(pq) == 0 or np.ptp(sq) == 0
    return {name: math.nan if undefined and criterion.correlation else float(criterion(pq, sq))
            for name, criterion in CRITERIA.items()}


@dataclass(frozen=True, eq=False)
class HeadPerformance:
    """The predictions of one head, and how they agree with the opinion scores.

    Attributes:
        raw: (N,) the head's outputs.
        pq: (N,) its predictions in MOS units.
        k, b: the line to MOS, pq = k raw + b.
        criteria: name in CRITERIA -> its value.
    """

    raw: np.ndarray
    pq: np.ndarray
    k: float
    b: float
    criteria: dict[str, float]

    @classmethod
    def of(cls, raw: np.ndarray, sq: np.ndarray, k: float = 1., b: float = 0.) -> 'HeadPerformance':
        """Return the performance of outputs `raw` with a line to MOS, on images with MOS `sq`, both (N,)."""
        pq = k * raw + b  # with k = 0 the scores are constant, and the correlations nan, as they should be
        return cls(raw, pq, k, b, agreement(pq, sq))


@dataclass(frozen=True, eq=False, repr=False)
class Performance:
    """How predictions of N images agree with their opinion scores: the result of `evaluate` and of IQAPerformance.

    `srocc`, `plcc`, `krocc`, `rmse`, `pq` (the predictions in MOS units) are those of the head that is scored.

    Attributes:
        sq, sq_std: (N,) mean and standard deviation of the opinions.
        heads: the performance of each head: the scored one first, the others in the network's order (levels 6 and 7).
        loss: the loss of all images as one batch, if one was given.
        spread: (N,) standard deviation of the scored head's predictions over the crops of an image, in MOS units, if
            images are scored by crops.
        uncertainty: (N,) the standard deviation that a network which predicts distributions gives, in MOS units.
    """

    sq: np.ndarray
    sq_std: np.ndarray
    heads: tuple[HeadPerformance, ...]
    loss: float | None = None
    spread: np.ndarray | None = None
    uncertainty: np.ndarray | None = None

    srocc = property(lambda self: self.heads[0].criteria['SROCC'])
    plcc = property(lambda self: self.heads[0].criteria['PLCC'])
    krocc = property(lambda self: self.heads[0].criteria['KROCC'])
    rmse = property(lambda self: self.heads[0].criteria['RMSE'])
    pq = property(lambda self: self.heads[0].pq)
    k = property(lambda self: [head.k for head in self.heads])
    b = property(lambda self: [head.b for head in self.heads])

    def __len__(self) -> int:
        return len(self.sq)

    def __repr__(self) -> str:
        values = ', '.join(f'{name} {value:.4f}' for name, value in self.heads[0].criteria.items())
        return f'Performance({len(self)} images: {values})'

    @property
    def criteria(self) -> dict[str, float]:
        """Return all criteria, as they are stored: SROCC ... of the scored head, SROCC1 ... of the others, loss.

        And, of an uncertainty, what iqa_runtime.reliability.reliability returns.
        """
        values = {f'{name}{i or ""}': value for i, head in enumerate(self.heads)
                  for name, value in head.criteria.items()}
        values |= {} if self.uncertainty is None else reliability(self.pq, self.sq, self.uncertainty)
        return values if self.loss is None else values | {'loss': self.loss}

    def columns(self) -> dict[str, np.ndarray]:
        """Return the columns of the table of results (see write_results), without the names."""
        return {'mos': self.sq, 'std': self.sq_std,
                **{f'pq{i or ""}': head.pq for i, head in enumerate(self.heads)},
                **{f'pq{i or ""}_before': head.raw for i, head in enumerate(self.heads)},
                **{name: values for name in MORE if (values := getattr(self, name)) is not None}}

    def mapped(self, mapping: Callable[[np.ndarray], np.ndarray]) -> 'Performance':
        """Return the performance with the scored head's outputs mapped by a curve instead of the line k, b.

        It has no `spread`, which a curve does not map; the uncertainty is half of what the curve rises or falls from
        one standard deviation below to one above.
        """
        first, *others = self.heads
        pq, uncertainty = mapping(first.raw), None
        if self.uncertainty is not None and first.k:
            deviation = self.uncertainty / abs(first.k)
            uncertainty = np.abs(mapping(first.raw + deviation) - mapping(first.raw - deviation)) / 2
        return replace(self, heads=(replace(first, pq=pq, criteria=agreement(pq, self.sq)), *others), spread=None,
                       uncertainty=uncertainty)

    def in_order(self, order: Sequence[int]) -> 'Performance':
        """Return the performance with the images put back in order; `order`: the position of each image as it came."""
        place = np.argsort(order)
        heads = tuple(replace(head, raw=head.raw[place], pq=head.pq[place]) for head in self.heads)
        more = {name: values[place] for name in MORE if (values := getattr(self, name)) is not None}
        return replace(self, sq=self.sq[place], sq_std=self.sq_std[place], heads=heads, **more)


class IQAPerformance(Metric):
    """Ignite's metric of all criteria of all heads, computed once at the end in float64.

    `update((outputs, (mos, std)))` takes the (N, 1) or (N,) predictions of each head, and the scores; a tensor alone is
    one head, or the MOS. A third item is a dictionary: `spread`, the standard deviation (N,) of the scored head's
    outputs over crops, of which the predictions are the means, and `uncertainty` (N,), that of its distribution.
    `compute()` takes the images of all processes and returns a Performance. It can be attached to any engine of
    ignite's whose output, or the `output_transform` of it, is this pair:

    >>> from ignite.engine import create_supervised_evaluator
    >>> evaluator = create_supervised_evaluator(torch.nn.Linear(2, 1, bias=False))
    >>> IQAPerformance().attach(evaluator, 'performance')
    >>> images = torch.tensor([[[1., 2.], [3., 4.]], [[5., 6.], [8., 7.]]])  # two batches of two "images"
    >>> state = evaluator.run([(x, x.sum(1)) for x in images])
    >>> len(state.metrics['performance'])
    4
    >>> 0 <= abs(state.metrics['performance'].srocc) <= 1
    True

    Args:
        status: 'train' fits k, b on the images seen; 'test' applies those given.
        k, b: the lines of the heads for status 'test', the scored head first (default: 1 and 0). Never changed.
        mapping: False leaves the predictions as they are.
        scored: position of the head that is scored; the last is the network's final one.
        loss_fn: (outputs, (mos, std)) -> the loss of all images as a batch, with MOS in the units of `update`.
        output_transform, device: see ignite.metrics.Metric; the images' results are kept on the CPU.
    """

    def __init__(self, status: str = 'train', k: Sequence[float] = (1, 1, 1), b: Sequence[float] = (0, 0, 0),
                 mapping: bool = True, scored: int = -1, loss_fn: Callable | None = None,
                 output_transform: Callable = lambda output: output, device: str | torch.device = 'cpu'):
        if status not in ('train', 'test'):
            raise ValueError(f"status must be 'train' or 'test', got {status!r}")
        self.status, self.k, self.b, self.mapping = status, tuple(k), tuple(b), mapping
        self.scored, self.loss_fn = scored, loss_fn
        super().__init__(output_transform, device=device, skip_unrolling=True)

    def reset(self) -> None:
        """Forget all images."""
        self._heads, self._scores, self._more = [], [], []

    def update(self, output: tuple) -> None:
        """Add a batch (see the class)."""
        outputs, scores, *more = output
        heads, scores = _columns(outputs), _columns(Labels.of(scores))
        if len(heads) != len(scores):
            raise ValueError(f'predictions of {len(heads)} images, scores of {len(scores)}')
        self._heads.append(heads)
        self._scores.append(scores)
        self._more += [{name: _columns(values) for name, values in more[0].items()} if more else {}]

    def compute(self) -> Performance:
        """Return the performance on the images of all processes; NotComputableError if there are none."""
        heads, scores, more = (everywhere(batches) for batches in (self._heads, self._scores, self._more))
        if not heads:
            raise NotComputableError('IQAPerformance needs at least one image')
        outputs, scores = torch.cat(heads), torch.cat(scores)
        sq, sq_std = scores.numpy().T
        performances = [HeadPerformance.of(raw, sq, *self._line(i, raw, sq))
                        for i, raw in enumerate(scored_first(outputs.numpy().T, self.scored))]
        loss = float(self.loss_fn(outputs.split(1, 1), scores.split(1, 1)).detach()) if self.loss_fn else None
        deviations = {name: abs(performances[0].k) * torch.cat([batch[name] for batch in more])[:, 0].numpy()
                      for name in more[0]}
        result = Performance(sq, sq_std, tuple(performances), loss, **deviations)
        _warn_of_nan(result)
        return result

    def _line(self, head: int, raw: np.ndarray, sq: np.ndarray) -> tuple[float, float]:
        if not self.mapping:
            return 1., 0.
        if self.status == 'train':
            return fit_line(raw, sq)
        if head >= min(len(self.k), len(self.b)):
            raise ValueError(f'{len(self.k)} k and {len(self.b)} b; expected both for each head of the network')
        return float(self.k[head]), float(self.b[head])


def _columns(values: Tensor | Sequence[Tensor]) -> Tensor:
    """Return (N, heads) float64 on the CPU of tensors (N, 1) or (N,); ValueError for other shapes."""
    values = [values] if isinstance(values, Tensor) else list(values)
    wrong = [tuple(value.shape) for value in values if value.ndim not in (1, 2) or value.shape[1:] not in ((), (1,))]
    if wrong:
        raise ValueError(f'expected tensors (N, 1) or (N,), got {wrong[0]}')
    return torch.cat([value.detach().reshape(-1, 1) for value in values], 1).cpu().double()


def _warn_of_nan(performance: Performance) -> None:
    undefined = [name for name, value in performance.criteria.items() if np.isnan(value)]
    if undefined:
        warnings.warn(f'{", ".join(undefined)} not defined (constant or non-finite predictions or scores, '
                      f'{len(performance)} images): reported as nan', RuntimeWarning, stacklevel=3)


def everywhere(batches: list) -> list:
    """Return the batches of all processes, those of rank 0 first; a process may have none."""
    if idist.get_world_size() == 1:
        return batches
    gathered = [None] * idist.get_world_size()
    dist.all_gather_object(gathered, batches)
    return [batch for of_rank in gathered for batch in of_rank]


def evaluate(model: Network, loader: DataLoader, metric: IQAPerformance | None = None, pbar: str = '',
             crops: Callable | None = None) -> Performance:
    """Return the performance of a network on a loader's images, in the data set's order.

    The network runs on the device of its parameters, in float32 and in eval mode, in which it stays.

    Args:
        model: the network.
        loader: as IQAdataset.Data.loader returns it: batches ((image, ...), (mos, std)) of uint8 images.
        metric: default: IQAPerformance(), which fits the line to MOS on these images.
        pbar: title of a progress bar; '': none.
        crops: an iqa_data.crops.Crops, if images are scored by crops instead of whole.
    """
    from modified_ignite_engine import (  # the criteria need no engine
        batch_of,
        create_supervised_evaluator,
        limits_explained,
    )
    metric = IQAPerformance() if metric is None else metric
    engine = create_supervised_evaluator(model, metric, crops)
    if pbar:
        ProgressBar(desc=pbar, persist=False).attach(engine)
    if len(loader):  # another process may have all images
        with limits_explained(model, lambda: batch_of(engine, model)):
            engine.run(loader)
    performance = metric.compute()
    order = getattr(loader.batch_sampler, 'order', None)
    return performance if order is None else performance.in_order(order)
