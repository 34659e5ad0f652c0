"""Test whether correlations, errors or shares of two models differ, and correct the p values of multiple tests."""
import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import stats


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
    """Return Steiger's Z and its two-sided p for two correlations that share y, by their Fisher z.

    Steiger (1980), equation 14. nan if n < 4 or a correlation is 1.
    """
    if n < 4 or max(abs(r_ay), abs(r_by), abs(r_ab)) >= 1:
        return np.nan, np.nan
    mean = (r_ay + r_by) / 2
    z = (np.arctanh(r_ay) - np.arctanh(r_by)) * np.sqrt((n - 3) / (2 - 2 * _shared(mean, r_ab)))
    return float(z), float(2 * stats.norm.sf(abs(z)))


def _shared(r: float, between: float) -> float:
    """Return the covariance of Fisher's z of two correlations r that share y, times N - 3: Steiger's s."""
    psi = between * (1 - 2 * r ** 2) - r ** 2 * (1 - 2 * r ** 2 - between ** 2) / 2
    return psi / (1 - r ** 2) ** 2


def dependent(criterion: Callable, a: np.ndarray, b: np.ndarray, y: np.ndarray) -> dict[str, tuple[float, float]]:
    """Return {'williams': (t, p), 'steiger': (Z, p)} of two models' scores a, b of the same images with the MOS y.

    All (N,). `criterion` is a correlation: the tests assume normally distributed scores and are an
    approximation for SROCC. Models that agree on all images give statistic 0 and p 1.
    """
    correlations = [float(criterion(x, z)) for x, z in ((a, y), (b, y), (a, b))]
    if correlations[2] > 1 - 1e-12:
        return {'williams': (0., 1.), 'steiger': (0., 1.)}
    return {test.__name__: test(*correlations, len(y)) for test in (williams, steiger)}


def holm(p: Sequence[float]) -> list[float]:
    """Correct p values for multiple tests (Holm 1979); nan stays nan and does not count as a test."""
    p = np.asarray(p, float)
    order = np.argsort(p)[:np.isfinite(p).sum()]  # nan comes last
    corrected = np.full(len(p), math.nan)
    corrected[order] = np.minimum(np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)), 1)
    return corrected.tolist()


# Tests of ITU-T P.1401, which assume independent samples: on the same images they are conservative

def fisher_z(r_a: float, r_b: float, n_a: int, n_b: int) -> tuple[float, float]:
    """Return z and its two-sided p of the difference of two correlations, of n_a and n_b images.

    ITU-T P.1401 (2012): (atanh r_a - atanh r_b) / sqrt(1 / (n_a - 3) + 1 / (n_b - 3)). nan if a sample
    has fewer than 4 images, or a correlation is 1.
    """
    if min(n_a, n_b) < 4 or max(abs(r_a), abs(r_b)) >= 1:
        return math.nan, math.nan
    z = (math.atanh(r_a) - math.atanh(r_b)) / math.sqrt(1 / (n_a - 3) + 1 / (n_b - 3))
    return z, float(2 * stats.norm.sf(abs(z)))


def f_test(rmse_a: float, rmse_b: float, freedom_a: int, freedom_b: int) -> tuple[float, float]:
    """Return F and its two-sided p of the ratio of two mean squared errors with their degrees of freedom.

    ITU-T P.1401 (2012): the larger squared RMSE (or RMSE*) over the smaller. The standard compares F with the 95 %
    quantile, which is a two-sided level of .1. The test supposes normal errors: with RMSE*, whose errors are mostly 0,
    it finds far too many differences. nan if one is 0, or not defined.
    """
    if not (rmse_a > 0 and rmse_b > 0 and min(freedom_a, freedom_b) > 0):
        return math.nan, math.nan
    larger, smaller = sorted([(rmse_a, freedom_a), (rmse_b, freedom_b)], reverse=True)
    ratio = (larger[0] / smaller[0]) ** 2
    return ratio, min(1., float(2 * stats.f.sf(ratio, larger[1], smaller[1])))


def shares_test(share_a: float, share_b: float, n_a: int, n_b: int) -> tuple[float, float]:
    """Return z and its two-sided p of the difference of two shares, such as outlier ratios.

    ITU-T P.1401 (2012): the difference over sqrt(p (1 - p) (1 / n_a + 1 / n_b)), p the share in both.
    Equal shares give z 0 and p 1.
    """
    both = (n_a * share_a + n_b * share_b) / (n_a + n_b)
    if share_a == share_b:
        return 0., 1.
    z = (share_a - share_b) / math.sqrt(both * (1 - both) * (1 / n_a + 1 / n_b))
    return z, float(2 * stats.norm.sf(abs(z)))


# Power

def images_needed(r: float, between: float, difference: float = .01, level: float = .05, power: float = .8) -> float:
    """Return the number of images at which Steiger's Z detects a difference of two models' correlations with the MOS.

    Args:
        r: mean of the two correlations.
        between: correlation of the two models' scores.
        difference: the difference; the correlations are r + difference / 2 and r - difference / 2.
        level: significance level of the two-sided test.
        power: its power, the probability of detecting the difference.

    Returns: a whole number, or nan if a correlation is 1, or not defined.
    """
    high, low = abs(r) + difference / 2, abs(r) - difference / 2
    if not (high < 1 and abs(between) < 1):
        return math.nan
    quantiles = stats.norm.ppf(1 - level / 2) + stats.norm.ppf(power)
    step = quantiles / (math.atanh(high) - math.atanh(low))
    return float(max(4, math.ceil(3 + step ** 2 * (2 - 2 * _shared(r, between)))))
