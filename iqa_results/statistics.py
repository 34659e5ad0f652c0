"""Compute statistics that reviewers ask for: logistic mappings, spread over splits, tests of models, mean ranks."""
import math
import warnings
from collections.abc import Callable, Sequence
from itertools import product
from typing import NamedTuple

import numpy as np
from scipy import stats
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.special import expit

STD_SHARE = .02  # share of the range of the MOS: ratings with a smaller std are on another scale


class NoFitError(ValueError):
    """A mapping that cannot be fitted, or whose fit did not converge."""


def outlier_ratio(x: np.ndarray, y: np.ndarray, std: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the share of the images whose error is larger than twice the standard deviation of their ratings, 0..1."""
    return np.mean(np.abs(x - y) > 2 * std, axis)


def std_problem(mos: np.ndarray, std: np.ndarray) -> str | None:
    """Return why the std cannot be compared with errors in MOS units, or None if it can.

    The ratings of an image spread over a tenth of the scale or more; a std far below that is on a shorter scale, as
    KonIQ-10k's of 1..5 beside its MOS of 0..100, and would call nearly every image an outlier.
    """
    if not np.isfinite(std).all() or not np.any(std > 0):
        return 'no standard deviations of the ratings'
    middle, scale = float(np.median(std)), float(np.ptp(mos))
    if STD_SHARE * scale <= middle <= scale:
        return None
    return f'std is on another scale than MOS (median std {middle:.3g}, MOS from {mos.min():.3g} to {mos.max():.3g})'


def logistic4(x: np.ndarray, top: float, bottom: float, centre: float, width: float) -> np.ndarray:
    """Return VQEG's monotonic curve of 4 parameters: bottom + (top - bottom) / (1 + exp(-(x - centre) / |width|))."""
    return bottom + (top - bottom) * expit((x - centre) / np.maximum(np.abs(width), 1e-9))


def logistic5(x: np.ndarray, height: float, slope: float, centre: float, tilt: float, offset: float) -> np.ndarray:
    """Return the curve of 5 parameters: height (1/2 - 1 / (1 + exp(slope (x - centre)))) + tilt x + offset."""
    return height * (expit(slope * (x - centre)) - .5) + tilt * x + offset


# Starts for standardised x and y, rising and falling. Where the best curve is nearly a line or an exponential, its
# parameters run off to infinity without changing it: hence the tolerance, relative to the squared error.
STARTS = {
    logistic4: [(2, -2, 0, .7), (-2, 2, 0, .7)],
    logistic5: [(2, 1.5, 0, .1, 0), (-2, 1.5, 0, -.1, 0), (.1, 1, 0, 1, 0), (.1, 1, 0, -1, 0)],
}
TOLERANCE, MOST_CALLS = 1e-6, 5000
QUARTILES = 1.349  # standard deviations between the quartiles of a normal distribution


def standardised(x: np.ndarray) -> list[np.ndarray]:
    """Return (x - mean) / std and (x - median) / std, in the latter with the std estimated from the quartiles.

    A single outlier makes all other values of the first nearly equal, but not those of the second, which is left out if
    the quartiles are equal.
    """
    low, middle, high = np.quantile(x, [.25, .5, .75])
    scales = [(x.mean(), x.std()), (middle, (high - low) / QUARTILES)]
    return [(x - centre) / spread for centre, spread in scales if spread > 0]


def _identity(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x


def _linear(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    if np.ptp(x) == 0:
        raise NoFitError('constant predictions')
    return np.polynomial.Polynomial.fit(x, y, 1)(x)


def _logistic(curve: Callable) -> Callable:
    def fit(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return _fit_curve(curve, x, y)
    return fit


def _fit_curve(curve: Callable, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    starts = STARTS[curve]
    if len(x) <= len(starts[0]):
        raise NoFitError(f'{len(x)} images for {len(starts[0])} parameters')
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise NoFitError('constant predictions or scores')
    v = (y - y.mean()) / y.std()
    fits = []
    for start, u in product(starts, standardised(x)):  # so that the starts suit any scale
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', OptimizeWarning)  # the covariance of the parameters is not used
            try:
                parameters, _ = curve_fit(curve, u, v, p0=start, ftol=TOLERANCE, maxfev=MOST_CALLS)
            except RuntimeError:  # no convergence from this start
                continue
        fits.append(curve(u, *parameters))
    if not fits:
        raise NoFitError('did not converge')
    return min(fits, key=lambda fitted: np.sum((fitted - v) ** 2)) * y.std() + y.mean()


REGRESSIONS: dict[str, Callable] = {'as saved': _identity, 'linear': _linear,
                                    '4-parameter logistic': _logistic(logistic4),
                                    '5-parameter logistic': _logistic(logistic5)}


def mapped(mapping: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return x mapped to the MOS y by one of REGRESSIONS, fitted by least squares; NoFitError if it fails."""
    return REGRESSIONS[mapping](x, y)


def williams(r_ay: float, r_by: float, r_ab: float, n: int) -> tuple[float, float]:
    """Return Williams' t and its two-sided p (n - 3 degrees of freedom) for two correlations that share y.

    r_ay and r_by are the correlations of models a and b with y, r_ab that between the models. Williams (1959), as
    recommended by Steiger (1980), equation 7. nan if n < 4 or the models are the same.
    """
    determinant = 1 - r_ay ** 2 - r_by ** 2 - r_ab ** 2 + 2 * r_ay * r_by * r_ab
    mean = (r_ay + r_by) / 2
    if n < 4 or abs(r_ab) >= 1:
        return np.nan, np.nan
    scale = 2 * (n - 1) / (n - 3) * determinant + mean ** 2 * (1 - r_ab) ** 3
    t = (r_ay - r_by) * np.sqrt((n - 1) * (1 + r_ab) / scale)
    return float(t), float(2 * stats.t.sf(abs(t), n - 3))


def steiger(r_ay: float, r_by: float, r_ab: float, n: int) -> tuple[float, float]:
    """Return Steiger's Z and its two-sided p for the same question, on Fisher's z with the pooled correlation.

    Steiger (1980), equation 14. nan if n < 4 or a correlation is 1.
    """
    if n < 4 or max(abs(r_ay), abs(r_by), abs(r_ab)) >= 1:
        return np.nan, np.nan
    mean = (r_ay + r_by) / 2
    psi = r_ab * (1 - 2 * mean ** 2) - mean ** 2 * (1 - 2 * mean ** 2 - r_ab ** 2) / 2
    shared = psi / (1 - mean ** 2) ** 2
    z = (np.arctanh(r_ay) - np.arctanh(r_by)) * np.sqrt((n - 3) / (2 - 2 * shared))
    return float(z), float(2 * stats.norm.sf(abs(z)))


def dependent(criterion: Callable, a: np.ndarray, b: np.ndarray, y: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return {'williams': (t, p), 'steiger': (Z, p)} of two models' scores a, b of the same images with the MOS y.

    All (N,). `criterion` is a correlation: the tests suppose normally distributed scores, so that with SROCC they are
    an approximation. Models that agree on all images give statistic 0 and p 1.
    """
    correlations = [float(criterion(x, z)) for x, z in ((a, y), (b, y), (a, b))]
    if correlations[2] > 1 - 1e-12:
        return {'williams': (0., 1.), 'steiger': (0., 1.)}
    return {test.__name__: test(*correlations, len(y)) for test in (williams, steiger)}


# Over splits

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


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected for testing all of them (Holm 1979), in their order; nan stays, and does not count."""
    p = np.asarray(p, float)
    order = np.argsort(p)[:np.isfinite(p).sum()]  # nan comes last
    corrected = np.full(len(p), math.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return corrected.tolist()


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
