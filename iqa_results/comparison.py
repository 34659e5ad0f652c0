"""Compute criteria of models with intervals, before and after mappings to MOS, and differences of two models."""
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import numpy as np
from scipy.stats import rankdata

from iqa_results import pairs as of_pairs
from iqa_results import raters
from iqa_results.mapping import REGRESSIONS, NoFitError, mapped
from iqa_results.read import Predictions
from iqa_results.significance import dependent, images_needed
from iqa_runtime.bootstrap import interval, percentiles, resampled
from iqa_runtime.errors import UserError
from IQAperformance import CRITERIA

Estimate = tuple[float, float, float]  # value, lower and upper end of its interval
Models = Mapping[str, Predictions]     # label -> predictions of the same images in the same order
CORRELATIONS, STANDARD = ('SROCC', 'PLCC'), '3rd-order monotonic'  # the mapping of ITU-T P.1401
STEP = .01  # difference of correlations for which `images` is computed


def mae(pq: np.ndarray, sq: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the mean absolute error along an axis, in the unit of the MOS `sq`."""
    return np.mean(np.abs(sq - pq), axis)


@dataclass(frozen=True)
class Row:
    """A criterion of mapped predictions and MOS, which may also need std and votes of the ratings.

    Attributes:
        of: function of the predictions, the MOS, the `needs`, and an axis.
        needs: fields of Predictions: std, votes.
        by_rank: whether it depends only on the order of the predictions.
        parameters: whether `of` takes `parameters`, the number of parameters of the mapping.
    """

    of: Callable[..., np.ndarray]
    needs: tuple[str, ...] = ()
    by_rank: bool = False
    parameters: bool = False

    def problem(self, model: Predictions) -> str | None:
        """Return why the criterion cannot be computed, or None."""
        if 'votes' in self.needs:
            return raters.votes_problem(model.mos, model.std, model.votes)
        return raters.std_problem(model.mos, model.std) if self.needs else None

    def value(self, model: Predictions) -> float:
        """Return the value after the mapping STANDARD; nan if it cannot be fitted."""
        try:
            x = mapped(STANDARD, model.pq, model.mos)
        except NoFitError:
            return math.nan
        return float(self._of(REGRESSIONS[STANDARD].parameters)(x, *self._arrays(model)))

    def estimate(self, x: np.ndarray, model: Predictions, parameters: int, count: int, seed: int) -> Estimate:
        """Return the value and the bootstrap interval of mapped predictions x of a model."""
        return _estimate(self._of(parameters), x, *self._arrays(model), count=count, seed=seed)

    def _of(self, parameters: int) -> Callable[..., np.ndarray]:
        return partial(self.of, parameters=parameters) if self.parameters else self.of

    def _arrays(self, model: Predictions) -> list[np.ndarray]:
        return [model.mos, *(getattr(model, name) for name in self.needs)]


CORRELATION_ROWS = {name: Row(CRITERIA[name], by_rank=name != 'PLCC') for name in ('SROCC', 'PLCC', 'KROCC')}
ERROR_ROWS = {'RMSE': Row(CRITERIA['RMSE']), 'MAE': Row(mae), 'outlier ratio': Row(raters.outside_spread, ('std',)),
              'RMSE*': Row(raters.rmse_star, ('std', 'votes'), parameters=True),
              'outliers of the interval': Row(raters.outside_interval, ('std', 'votes'))}
ROWS = CORRELATION_ROWS | ERROR_ROWS


def _estimate(criterion: Callable, *arrays: np.ndarray, **bootstrap: int) -> Estimate:
    return float(criterion(*arrays)), *interval(criterion, *arrays, **bootstrap)


def estimates(model: Predictions, count: int, seed: int = 0) -> dict[str, dict[str, Estimate] | str]:
    """Return {mapping: {criterion of ROWS: (value, low, high)}}, or for a failed mapping {mapping: the reason}.

    `count`, `seed`: see IQAperformance.interval. Criteria whose `needs` the model lacks are left out.
    """
    table, ranked = {}, {}
    rows = {name: row for name, row in ROWS.items() if not row.problem(model)}
    for mapping, regression in REGRESSIONS.items():
        try:
            z = mapped(mapping, model.pq, model.mos)
        except NoFitError as error:
            table[mapping] = str(error)
            continue
        order = z if not regression.monotonic else model.pq if np.vdot(z - z.mean(), model.pq) >= 0 else -model.pq
        found = ranked.setdefault(rankdata(order).tobytes(), {})  # a mapping that keeps the order keeps them
        for name, row in rows.items():
            if name not in found or not row.by_rank:
                found[name] = row.estimate(order if row.by_rank else z, model, regression.parameters, count, seed)
        table[mapping] = dict(found)
    return table


def resamples_of(model: Predictions, count: int, seed: int = 0) -> dict[str, np.ndarray]:
    """Return {criterion of CRITERIA: values (count,)} of bootstrap resamples, of the same images for each model."""
    return {name: resampled(criterion, model.pq, model.mos, count=count, seed=seed)
            for name, criterion in CRITERIA.items()}


def difference(a: Predictions, b: Predictions, of_a: Mapping[str, np.ndarray], of_b: Mapping[str, np.ndarray]
               ) -> dict[str, dict]:
    """Return {criterion: {'difference': (a - b, low, high), 'williams': (t, p), 'steiger': (Z, p), 'images': n}}.

    Only SROCC and PLCC have tests, and `images`, the number of images that a difference of STEP needs to be detected.
    The predictions are of the same images in the same order; `of_a` and `of_b` are their `resamples_of`.
    """
    table = {}
    for name, criterion in CRITERIA.items():
        values = [float(criterion(model.pq, a.mos)) for model in (a, b)]
        table[name] = {'difference': (values[0] - values[1], *percentiles(of_a[name] - of_b[name]))}
        if name in CORRELATIONS:
            needed = images_needed(float(np.mean(np.abs(values))), abs(float(criterion(a.pq, b.pq))), STEP)
            table[name] |= dependent(criterion, a.pq, b.pq, a.mos) | {'images': needed}
    return table


def rising(model: Predictions) -> np.ndarray:
    """Return the scores, negated if they fall as MOS rises."""
    return -model.pq if CRITERIA['SROCC'](model.pq, model.mos) < 0 else model.pq


def aligned(models: Models) -> dict[str, Predictions]:
    """Sort the images of all models in the order of the first; UserError if the images are not the same.

    Files without names (.npy) are compared in their order, which different MOS show to be wrong.
    """
    first_label, first = next(iter(models.items()))
    result = {}
    for label, model in models.items():
        if len(model.mos) != len(first.mos):
            raise UserError(f'{label} has {len(model.mos)} images, {first_label} has {len(first.mos)}; '
                            f'expected the same images')
        if model.names and first.names and model.names != first.names:
            place = {name: i for i, name in enumerate(model.names)}
            missing = [name for name in first.names if name not in place]
            if missing:
                raise UserError(f'{label} lacks {missing[0]!r} of {first_label} ({len(missing)} images in all)')
            model = model.taking(np.array([place[name] for name in first.names]))
        other = np.abs(model.mos - first.mos) > 1e-3 * (np.ptp(first.mos) or 1)
        if other.any():
            row = int(np.argmax(other))
            raise UserError(f'{label} and {first_label} differ in the MOS of image {row + 1} ({model.mos[row]:g}, '
                            f'{first.mos[row]:g}); expected the same images in the same order')
        result[label] = model
    return result


ONCE = ('MAE', 'outlier ratio', 'RMSE*', 'outliers of the interval')
VALUES = (*ONCE, *of_pairs.PAIR_CRITERIA, 'SROCC, % of the ceiling')


def values_of(model: Predictions, most: int = 100_000) -> dict[str, float]:
    """Return {name of VALUES: value} of a model, errors after the mapping STANDARD, from up to `most` pairs; or nan."""
    rated = not raters.votes_problem(model.mos, model.std, model.votes)
    pairs = of_pairs.rated_pairs(model.mos, *((model.std, model.votes) if rated else (None, None)), most=most)
    scores, found = pairs.of(rising(model)), dict.fromkeys(VALUES, np.nan)
    found |= {name: ROWS[name].value(model) for name in ONCE if not ROWS[name].problem(model)}
    found |= {name: criterion(pairs, scores).value for name, criterion in of_pairs.PAIR_CRITERIA.items()
              if rated or name not in of_pairs.OF_SEEN}
    if rated:
        top, *_ = raters.ceiling(CRITERIA['SROCC'], model.mos, model.std, model.votes)
        found[VALUES[-1]] = 100 * abs(float(CRITERIA['SROCC'](model.pq, model.mos))) / top
    return found
