"""Evaluate predictions with the raters' uncertainty: P.1401's errors, the ceiling of correlations, resolving power.

`votes` (N,) is the number of ratings of each image, `std` (N,) their population standard deviation.
"""
from collections.abc import Callable

import numpy as np
from scipy.optimize import isotonic_regression
from scipy.special import ndtr

from iqa_data.info import half_interval

STD_SHARE = .02  # share of the range of the MOS: a smaller std indicates another scale
FEWEST_VOTES = 2  # votes of an image that a confidence interval of its MOS needs


def std_problem(mos: np.ndarray, std: np.ndarray) -> str | None:
    """Return why the std cannot be compared with errors in MOS units, or None if it can.

    The ratings of an image spread over a tenth of the scale or more; a std far below that is on a shorter scale, such
    as KonIQ-10k's std of marks 1..5 with its MOS in 0..100, and would make nearly every image an outlier.
    """
    if not np.isfinite(std).all() or not np.any(std > 0):
        return 'no standard deviations of the ratings'
    middle, scale = float(np.median(std)), float(np.ptp(mos))
    if STD_SHARE * scale <= middle <= scale:
        return None
    return f'std is on another scale than MOS (median std {middle:.3g}, MOS from {mos.min():.3g} to {mos.max():.3g})'


def votes_problem(mos: np.ndarray, std: np.ndarray, votes: np.ndarray | None) -> str | None:
    """Return why the MOS have no confidence intervals, or None if all have."""
    if problem := std_problem(mos, std):
        return problem
    few = np.count_nonzero(~(votes >= FEWEST_VOTES)) if votes is not None else len(mos)
    if few == len(mos):
        return f'no numbers of votes (of {FEWEST_VOTES} or more)'
    return f'{few} images have fewer than {FEWEST_VOTES} votes' if few else None


def standard_error(std: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Return the standard error of each MOS, (N,): s / sqrt(votes), with s^2 = std^2 votes / (votes - 1)."""
    return std / np.sqrt(votes - 1)


def rmse_star(x: np.ndarray, y: np.ndarray, std: np.ndarray, votes: np.ndarray, axis: int = -1,
              parameters: int = 1) -> np.ndarray:
    """Return the epsilon-insensitive RMSE, RMSE*, along an axis, in MOS units.

    ITU-T P.1401 (2012): sqrt(sum max(0, |y - x| - half)^2 / (N - d)), `half` is half the width of the 95 %
    confidence interval of each MOS, and d, at least 1, is the number of `parameters` of the mapping that made x.
    """
    excess = np.maximum(np.abs(y - x) - half_interval(std, votes), 0)
    return np.sqrt(np.sum(excess ** 2, axis) / (x.shape[axis] - max(1, parameters)))


def outlier_ratio(x: np.ndarray, y: np.ndarray, limit: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the share of the images whose absolute error exceeds their limit, 0..1."""
    return np.mean(np.abs(x - y) > limit, axis)


def outside_spread(x: np.ndarray, y: np.ndarray, std: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the outlier ratio with twice the standard deviation of an image's ratings as limit (VQEG 2003)."""
    return outlier_ratio(x, y, 2 * std, axis)


def outside_interval(x: np.ndarray, y: np.ndarray, std: np.ndarray, votes: np.ndarray, axis: int = -1) -> np.ndarray:
    """Return the outlier ratio with half the 95 % confidence interval of the MOS as limit (ITU-T P.1401)."""
    return outlier_ratio(x, y, half_interval(std, votes), axis)


def ceiling(criterion: Callable[..., np.ndarray], mos: np.ndarray, std: np.ndarray, votes: np.ndarray,
            count: int = 200, seed: int = 0) -> tuple[float, float, float]:
    """Estimate the correlation of true qualities with their MOS: mean and 95 % interval over the raters' noise.

    True qualities are unknown. The MOS stand in for them, shrunk towards their mean until their variance is the MOS's
    minus the mean squared standard error; MOS are sampled from them `count` times with normal errors. If MOS and errors
    are normal, the ceiling of PLCC is the root of the reliability (Spearman 1904).
    """
    error = standard_error(std, votes)
    share = max(0., 1 - np.mean(error ** 2) / mos.var())
    truth = mos.mean() + np.sqrt(share) * (mos - mos.mean())
    drawn = truth + error * np.random.default_rng(seed).normal(size=(count, len(mos)))
    found = criterion(np.broadcast_to(truth, drawn.shape), drawn)
    return float(found.mean()), *map(float, np.quantile(found, [.025, .975]))


def resolving_power(scores: np.ndarray, z: np.ndarray, level: float = .95) -> float:
    """Return the smallest difference of scores at which people see the better image with probability `level`.

    ITU-T J.149 (2004). For a pair, Phi(z) is the probability that the image with the higher score is better. Isotonic
    regression fits it as a non-decreasing function of the difference of scores (J.149 averages in bins instead). The
    result is nan if this function does not reach the level.

    Args:
        scores: (P,) differences of the scores of pairs, by a model whose scores rise with quality.
        z: (P,) differences of their MOS in the same order, divided by the standard error of the difference.
        level: the probability.
    """
    distances, group, counts = np.unique(np.abs(scores), return_inverse=True, return_counts=True)
    means = np.bincount(group, ndtr(np.where(scores < 0, -z, z))) / counts
    seen = isotonic_regression(means, weights=counts).x >= level
    return float(distances[np.argmax(seen)]) if seen.any() else np.nan
