"""Bootstrap intervals: what a criterion is if images are drawn again, with replacement, from those that were tested."""
import math
import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats


def resampled(criterion: Callable[..., np.ndarray], *arrays: np.ndarray, count: int = 1000,
              seed: int = 0) -> np.ndarray:
    """Return a criterion of `count` bootstrap resamples of images, (count,); nan where it is not defined.

    The same count, seed and number of images give the same resamples, so that values of two models can be subtracted.

    Args:
        criterion: called with the resampled arrays and `axis`, as those of IQAperformance.CRITERIA.
        arrays: arrays (N,) of the same images, which are resampled together.
        count, seed: number of resamples, and the seed of their drawing.
    """
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about constant resamples
        return stats.bootstrap(arrays, criterion, n_resamples=count, batch=max(1, (1 << 22) // len(arrays[0])),
                               paired=True, vectorized=True, method='percentile',
                               random_state=np.random.default_rng(seed)).bootstrap_distribution


def percentiles(samples: np.ndarray, level: float = .95) -> tuple[float, float]:
    """Return the ends of the interval that holds the share `level` of samples; nan if none is finite.

    Samples that are not finite are left out.
    """
    finite = samples[np.isfinite(samples)]
    if not len(finite):
        return math.nan, math.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval(criterion: Callable[..., np.ndarray], *arrays: np.ndarray, count: int = 1000, seed: int = 0,
             level: float = .95) -> tuple[float, float]:
    """Return the percentile bootstrap interval of a criterion over images: see `resampled` and `percentiles`."""
    return percentiles(resampled(criterion, *arrays, count=count, seed=seed), level)
