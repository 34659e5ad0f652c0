"""Measure how predictions agree with opinion scores: the line to MOS, the criteria, the ignite metric, the results."""
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import pandas as pd
import torch
import torch.distributed as dist
from ignite.exceptions import NotComputableError
from ignite.metrics import Metric
from scipy import stats

from iqa_networks.network import scored_first
from iqa_runtime.checks import json_text
from iqa_runtime.files import replacing, write_text
from iqa_runtime.names import cell


def fit_line(raw: np.ndarray, mos: np.ndarray) -> tuple[float, float]:
    """Return the least-squares k, b of mos ~ k raw + b; both (N,) float64. A constant `raw` gives k = 0, b = mean."""
    centred = raw - raw.mean()
    variance = centred @ centred
    k = float(centred @ mos / variance) if variance > 0 else 0.
    return k, float(mos.mean() - k * raw.mean())


def plcc(pq: np.ndarray, sq: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return Pearson's correlation along an axis, -1..1; nan for a constant."""
    a, b = (values - values.mean(axis, keepdims=True) for values in (pq, sq))
    norms = np.linalg.norm(a, axis=axis) * np.linalg.norm(b, axis=axis)
    defined = (np.ptp(pq, axis) > 0) & (np.ptp(sq, axis) > 0) & (norms > 0)
    return np.where(defined, np.clip((a * b).sum(axis) / np.where(defined, norms, 1), -1, 1), np.nan)


def srocc(pq: np.ndarray, sq: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return Spearman's rank correlation along an axis, -1..1; equal values share their middle rank."""
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
    """A criterion of agreement, called with the predictions, the MOS and perhaps the axis of the images.

    Attributes:
        of: the function that computes it.
        correlation: True for a value in -1..1, nan for a constant, whose magnitude says how good the predictions are;
            False for an error, at least 0, in the unit of the MOS.
        fast: whether it takes all resamples of a bootstrap at once.
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


def interval(criterion: Callable[..., np.ndarray], *arrays: np.ndarray, count: int = 1000, seed: int = 0,
             level: float = .95) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a criterion over images.

    Args:
        criterion: called with the resampled arrays and `axis`, as those of CRITERIA.
        arrays: each (N,), of the same images, which are drawn together.
        count, seed: resamples, and the seed that they are drawn from.
        level: share of the resamples inside. Resamples whose criterion is not defined are left out; nan if all are.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # of resamples that are constant
        samples = stats.bootstrap(arrays, criterion, n_resamples=count, batch=max(1, (1 << 22) // len(arrays[0])),
                                  paired=True, vectorized=True, method='percentile',
                                  random_state=np.random.default_rng(seed)).bootstrap_distribution
    finite = samples[np.isfinite(samples)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(pq: np.ndarray, sq: np.ndarray) -> dict[str, list[float]]:
    """Return [low, high] of the criteria that are computed fast, as `interval`; without those that are not defined."""
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


class IQAPerformance(Metric):
    """All criteria of all heads, computed once at the end in float64.

    `update((outputs, (mos, std)))` takes a sequence of (N, 1) predictions, and (N, 1) scores. `compute()` takes the
    images of all processes and returns a dictionary: SROCC, PLCC, KROCC, RMSE of the head that is scored, with suffix
    1, 2, ... of the other heads in their order (levels 6 and 7); the arrays (images,) sq, sq_std, pq, pq1, pq2 in MOS
    units and pq_before, ... raw; the lists k, b, the scored head first; with `loss_fn`, the loss.

    Args:
        status: 'train' fits k, b on the images seen; 'test' applies those given.
        k, b: the lines of the heads for status 'test', the scored head first (default: 1 and 0). Never changed.
        mapping: False leaves the predictions as they are.
        scored: position of the head that is scored; the last is the network's final one.
        loss_fn: (outputs, (mos, std)) -> the loss of all images as a batch, with MOS in the units of `update`.
    """

    def __init__(self, status: str = 'train', k: Sequence[float] = (1, 1, 1), b: Sequence[float] = (0, 0, 0),
                 mapping: bool = True, scored: int = -1, loss_fn: Callable | None = None,
                 device: str | torch.device = 'cpu'):
        if status not in ('train', 'test'):
            raise ValueError(f"status must be 'train' or 'test', got {status!r}")
        self.status, self.k, self.b, self.mapping = status, tuple(k), tuple(b), mapping
        self.scored, self.loss_fn = scored, loss_fn
        super().__init__(device=device, skip_unrolling=True)

    def reset(self) -> None:
        """Forget all images."""
        self._heads, self._scores = [], []

    def update(self, output: tuple[Sequence[torch.Tensor], tuple[torch.Tensor, torch.Tensor]]) -> None:
        """Take one batch (see the class)."""
        outputs, scores = output
        self._heads.append(torch.cat([head.detach().reshape(-1, 1) for head in outputs], 1).cpu().double())
        self._scores.append(torch.cat([score.detach().reshape(-1, 1) for score in scores], 1).cpu().double())

    def compute(self) -> dict:
        """Return the criteria, the arrays and k, b (see the class); NotComputableError if no image came."""
        heads, scores = (everywhere(batches) for batches in (self._heads, self._scores))
        if not heads:
            raise NotComputableError('IQAPerformance needs at least one image')
        outputs, scores = torch.cat(heads), torch.cat(scores)
        sq, sq_std = scores.numpy().T
        result = {'sq': sq, 'sq_std': sq_std, 'k': [], 'b': []}
        for i, before in enumerate(scored_first(outputs.numpy().T, self.scored)):
            k, b = self._line(i, before, sq)
            suffix = str(i or '')
            result[f'pq{suffix}'], result[f'pq{suffix}_before'] = k * before + b, before
            result['k'].append(k)
            result['b'].append(b)
            # with k = 0 the mapped scores are constant, and the correlations nan, as they should be
            result.update({name + suffix: value for name, value in agreement(k * before + b, sq).items()})
        if self.loss_fn:
            result['loss'] = float(self.loss_fn(outputs.split(1, 1), scores.split(1, 1)).detach())
        _warn_of_nan(result)
        return result

    def _line(self, head: int, raw: np.ndarray, sq: np.ndarray) -> tuple[float, float]:
        if not self.mapping:
            return 1., 0.
        return fit_line(raw, sq) if self.status == 'train' else (float(self.k[head]), float(self.b[head]))


def _warn_of_nan(performance: dict) -> None:
    undefined = [name for name, value in performance.items() if isinstance(value, float) and np.isnan(value)]
    if undefined:
        warnings.warn(f'{", ".join(undefined)} not defined (constant or non-finite predictions or scores, '
                      f'{len(performance["sq"])} images): reported as nan', RuntimeWarning, stacklevel=3)


def everywhere(batches: list[torch.Tensor]) -> list[torch.Tensor]:
    """Return the batches of all processes, those of rank 0 first; a process may have none."""
    if idist.get_world_size() == 1:
        return batches
    gathered = [None] * idist.get_world_size()
    dist.all_gather_object(gathered, batches)
    return [batch for of_rank in gathered for batch in of_rank]


def in_order(performance: dict, order: Sequence[int]) -> dict:
    """Return a performance whose arrays are put back in the data set's order; `order`: the positions as they came."""
    place = np.argsort(order)
    return {name: value[place] if isinstance(value, np.ndarray) else value for name, value in performance.items()}


def criteria_of(performance: dict) -> dict[str, float]:
    """Return the criteria of a result of IQAPerformance, without its arrays and lists, in the order of the table."""
    names = [name + str(head or '') for head in range(len(performance['k'])) for name in CRITERIA]
    return {name: performance[name] for name in (*names, 'loss') if name in performance}


# Results on disk and screen

def write_results(folder: str | Path, name: str, names: list[str], performance: dict, about: dict) -> list[Path]:
    """Write FOLDER/NAME.csv (per image) and FOLDER/NAME.json (metrics, k, b, and `about`); return both paths.

    The table's columns: name; mos and std of the opinions; pq, pq1, pq2 the scores of the scored head and of the others
    in MOS units; the same with _before, raw. All digits are kept: iqa_studies/check.py computes the metrics again from
    them. A metric that is not defined is null in the JSON file.
    """
    table = pd.DataFrame({'name': list(map(cell, names)), 'mos': performance['sq'], 'std': performance['sq_std']})
    for column in (f'pq{head or ""}{raw}' for raw in ('', '_before') for head in range(len(performance['k']))):
        table[column] = performance[column]
    csv, summary = (Path(folder, f'{name}.{kind}') for kind in ('csv', 'json'))
    with replacing(csv) as temporary:
        table.to_csv(temporary, index=False)
    content = {'metrics': criteria_of(performance), 'k': performance['k'], 'b': performance['b'],
               'images': len(names), **about}
    write_text(summary, json_text(content, indent=2) + '\n')
    return [csv, summary]


def results_table(performance: dict, heads: Sequence[str]) -> str:
    """Return the criteria of all heads as lines of text; `heads`: their names, the scored head first.

    Of correlations the magnitude is shown, and a last line names the heads whose scores fall as MOS rises.
    """
    lines = [f'{"":12}' + ''.join(f'{criterion_title(name):>9}' for name in CRITERIA)]
    for i, head in enumerate(heads):
        lines.append(f'{head:12}' + ''.join(f'{abs(performance[name + str(i or "")]):9.4f}' for name in CRITERIA))
    falling = [head for i, head in enumerate(heads) if performance[f'SROCC{i or ""}'] < 0]
    if falling:
        lines.append(f'SROCC is negative, the scores fall as MOS rises: {", ".join(falling)}')
    return '\n'.join(lines)
