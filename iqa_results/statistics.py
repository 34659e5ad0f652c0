"""Summarise values over splits: spread and interval, tests of paired values, mean ranks."""
import math
import warnings
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

FEWEST = 3  # values for a useful interval: that of two values is 13 times as wide as their distance
SCALES: dict[str, tuple[Callable, Callable]] = {  # (to the scale on which an interval is symmetric, and back)
    'linear': (np.positive, np.positive),
    'correlation': (np.arctanh, np.tanh),  # Fisher's z
    'error': (np.log, np.exp),
}


class Spread(NamedTuple):
    """Values over splits; `low` and `high` are the ends of the interval of the mean. Undefined numbers are nan."""

    defined: int  # number of finite values, of `count` in all
    count: int
    median: float = math.nan
    mean: float = math.nan
    std: float = math.nan
    low: float = math.nan
    high: float = math.nan


def spread(values: Sequence[float], scale: str = 'linear', level: float = .95) -> Spread:
    """Return the spread of values over splits: std with n - 1, Student's t interval of the mean.

    The interval is computed on `scale`, a name in SCALES: 'correlation' keeps it in -1..1, 'error' above 0. Values that
    are not finite are left out and counted. A single value has no std. There is no interval for fewer than FEWEST
    values, or if one is at the end of the scale, such as a correlation of 1. Splits of one data set share training
    images, so that their values are not independent, and the interval tends to be too short.
    """
    values = np.asarray(values, float)
    finite = values[np.isfinite(values)]
    n = len(finite)
    if n < 2:
        return Spread(n, len(values), *finite, *finite)
    found = map(float, (np.median(finite), finite.mean(), finite.std(ddof=1)))
    return Spread(n, len(values), *found, *_interval(finite, *SCALES[scale], level))


def _interval(values: np.ndarray, scaled: Callable, back: Callable, level: float) -> tuple[float, float]:
    """Return the ends of Student's t interval of the mean of finite values (n,); nan if there is none."""
    n = len(values)
    with np.errstate(divide='ignore', invalid='ignore'):
        z = scaled(values)
    if n < FEWEST or not np.isfinite(z).all():
        return math.nan, math.nan
    half = stats.t.ppf((1 + level) / 2, n - 1) * z.std(ddof=1) / math.sqrt(n)
    return float(back(z.mean() - half)), float(back(z.mean() + half))


def signed_rank(a: np.ndarray, b: np.ndarray) -> float:
    """Return the two-sided p of Wilcoxon's signed-rank test of paired values (n,); 1 if all are equal, nan if none.

    With n pairs it is at least 2 / 2^n: fewer than six cannot reach .05.
    """
    difference = np.asarray(a, float) - np.asarray(b, float)
    difference = difference[np.isfinite(difference)]
    if not difference.any():
        return 1. if len(difference) else math.nan
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about few pairs: see the docstring
        return float(stats.wilcoxon(difference).pvalue)


def over_splits(p: Sequence[float]) -> float:
    """Combine the p values of a test on several splits, whose images overlap, into one: twice the median, at most 1.

    It keeps its level however the p values depend on each other (Rueschendorf 1982; Meinshausen, Meier and Buehlmann
    2009, with gamma 1/2). A single p is returned unchanged; nan if none is defined.
    """
    finite = [value for value in p if math.isfinite(value)]
    if len(finite) < 2:
        return finite[0] if finite else math.nan
    return min(1., 2 * float(np.median(finite)))


class Ranking(NamedTuple):
    """Mean ranks of settings (1 is best), the p value of equal ranks, and the critical difference of two ranks."""

    ranks: np.ndarray
    p: float
    critical: float


def nemenyi(values: np.ndarray, level: float = .05) -> Ranking:
    """Rank 3 or more settings in each of 2 or more splits: values (splits, settings), finite, higher is better.

    Friedman's test, and the critical difference of Nemenyi's (Demsar 2006, section 3.2.2).
    """
    n, k = values.shape
    alike = (np.ptp(values, 1) == 0).all()
    quantile = stats.studentized_range.ppf(1 - level, k, np.inf) / math.sqrt(2)
    return Ranking(stats.rankdata(-values, axis=1).mean(0),
                   1. if alike else float(stats.friedmanchisquare(*values.T).pvalue),
                   float(quantile * math.sqrt(k * (k + 1) / (6 * n))))
