"""Statistics that reviewers ask for: criteria with bootstrap intervals, logistic mappings, tests between two models.

A resample of N images is a row of counts (how often each image was drawn), so that all resamples are computed at once;
one row of ones gives the plain value. All criteria below take x, the predictions (N,), y, the MOS (N,), and counts
(R, N), and return (R,) numbers; a correlation with a constant is nan.
"""
import warnings
from collections.abc import Callable

import numpy as np
from scipy import stats
from scipy.optimize import OptimizeWarning, curve_fit
from scipy.special import expit

BLOCK = 1 << 22  # numbers held at once in a block of resamples
STD_SHARE = .02  # of the range of the MOS: a std of ratings below it is on another scale


class NoFitError(ValueError):
    """A mapping that did not converge, or cannot."""


def resamples(n: int, count: int, seed: int = 0) -> np.ndarray:
    """Draw `count` bootstrap resamples of n images: (count, n) float32, each row sums to n."""
    generator = np.random.default_rng(seed)
    counts = np.empty((count, n), np.float32)
    for row in counts:
        row[:] = np.bincount(generator.integers(n, size=n), minlength=n)
    return counts


def plcc(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Pearson's correlation, -1..1."""
    x, y = (x - x.mean()) / (x.std() or 1), (y - y.mean()) / (y.std() or 1)
    total = counts.sum(1, dtype=float)
    mx, my, mxx, myy, mxy = (counts @ np.stack([x, y, x * x, y * y, x * y], 1)).T / total
    return _ratio(mxy - mx * my, mxx - mx * mx, myy - my * my)


def _ratio(covariance: np.ndarray, variance_x: np.ndarray, variance_y: np.ndarray) -> np.ndarray:
    """Return the correlation; nan where a variance is nothing but rounding of values of unit scale."""
    defined = (variance_x > 1e-12) & (variance_y > 1e-12)
    product = np.sqrt(np.where(defined, variance_x * variance_y, 1))
    return np.where(defined, np.clip(covariance / product, -1, 1), np.nan)


def srocc(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Spearman's rank correlation, -1..1; equal values share their middle rank."""
    size = max(1, BLOCK // len(x))
    return np.concatenate([_srocc(x, y, counts[i:i + size].astype(float)) for i in range(0, len(counts), size)])


def _srocc(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    total = counts.sum(1, keepdims=True)
    a, b = (_ranks(values, counts) / total - .5 - .5 / total for values in (x, y))  # 0 on average
    weighted = counts * a
    return _ratio(np.einsum('ij,ij->i', weighted, b) / total[:, 0], np.einsum('ij,ij->i', weighted, a) / total[:, 0],
                  np.einsum('ij,ij->i', counts * b, b) / total[:, 0])


def _ranks(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Return the rank of each image in each resample (1 is the smallest), (R, N)."""
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind='stable')
    starts = np.flatnonzero(np.diff(group[order], prepend=-1))
    sizes = np.add.reduceat(counts[:, order], starts, axis=1)  # how many values each group of equals has
    return (np.cumsum(sizes, 1) - (sizes - 1) / 2)[:, group]


def krocc(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Kendall's tau-b, -1..1: pairs in the same order less pairs in the other, over pairs without ties."""
    n, weights = len(x), np.ascontiguousarray(counts, np.float32)
    agree = np.zeros(len(counts))
    size = max(1, BLOCK // n)
    for i in range(0, n, size):  # sums of whole numbers, exact in float32 up to 2^24
        signs = (np.sign(x[i:i + size, None] - x) * np.sign(y[i:i + size, None] - y)).astype(np.float32)
        agree += np.einsum('ij,ij->i', weights @ signs.T, weights[:, i:i + size], dtype=float)
    total = counts.sum(1, dtype=float)
    untied = [total ** 2 - _tied(values, counts) for values in (x, y)]
    defined = (untied[0] > 0) & (untied[1] > 0)
    return np.where(defined, agree / np.sqrt(np.where(defined, untied[0] * untied[1], 1)), np.nan)


def _tied(values: np.ndarray, counts: np.ndarray) -> np.ndarray:
    _, group = np.unique(values, return_inverse=True)
    order = np.argsort(group, kind='stable')
    sizes = np.add.reduceat(counts[:, order], np.flatnonzero(np.diff(group[order], prepend=-1)), axis=1, dtype=float)
    return (sizes ** 2).sum(1)


def rmse(x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Root of the mean squared error, in the unit of y."""
    return np.sqrt(counts @ (x - y) ** 2 / counts.sum(1, dtype=float))


CRITERIA: dict[str, Callable] = {'SROCC': srocc, 'PLCC': plcc, 'KROCC': krocc, 'RMSE': rmse}


def outlier_ratio(x: np.ndarray, y: np.ndarray, std: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Share of the images whose error is larger than twice the standard deviation of their ratings, 0..1."""
    return counts @ (np.abs(x - y) > 2 * std).astype(float) / counts.sum(1, dtype=float)


def std_problem(mos: np.ndarray, std: np.ndarray) -> str | None:
    """Return why the std cannot be held against errors in MOS units, or None where it can.

    The ratings of an image spread over a tenth of the scale or more; a std far below that is on a shorter scale, as
    KonIQ-10k's of 1..5 beside its MOS of 0..100, and would call nearly every image an outlier.
    """
    if not np.isfinite(std).all() or not np.any(std > 0):
        return 'no standard deviations of the ratings'
    middle, scale = float(np.median(std)), float(np.ptp(mos))
    if STD_SHARE * scale <= middle <= scale:
        return None
    return f'std is on another scale than MOS (median std {middle:.3g}, MOS from {mos.min():.3g} to {mos.max():.3g})'


def interval(samples: np.ndarray, level: float = .95) -> tuple[float, float]:
    """Return the percentile bootstrap interval; samples that are not defined are left out."""
    finite = samples[np.isfinite(samples)]
    if not len(finite):
        return np.nan, np.nan
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def logistic4(x: np.ndarray, top: float, bottom: float, centre: float, width: float) -> np.ndarray:
    """VQEG's monotonic curve with 4 parameters: bottom + (top - bottom) / (1 + exp(-(x - centre) / |width|))."""
    return bottom + (top - bottom) * expit((x - centre) / np.maximum(np.abs(width), 1e-9))


def logistic5(x: np.ndarray, height: float, slope: float, centre: float, tilt: float, offset: float) -> np.ndarray:
    """The curve with 5 parameters: height (1/2 - 1 / (1 + exp(slope (x - centre)))) + tilt x + offset."""
    return height * (expit(slope * (x - centre)) - .5) + tilt * x + offset


# Starts for standardised x and y, rising and falling. Where the best curve is nearly a line or an exponential, its
# parameters run off to infinity without changing it: hence the tolerance, relative to the squared error.
STARTS = {
    logistic4: [(2, -2, 0, .7), (-2, 2, 0, .7)],
    logistic5: [(2, 1.5, 0, .1, 0), (-2, 1.5, 0, -.1, 0), (.1, 1, 0, 1, 0), (.1, 1, 0, -1, 0)],
}
TOLERANCE, MOST_CALLS = 1e-6, 5000


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
    u, v = (x - x.mean()) / x.std(), (y - y.mean()) / y.std()  # so that the starts suit any scale
    fits = []
    for start in starts:
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


MAPPINGS: dict[str, Callable] = {'as saved': _identity, 'linear': _linear, '4-parameter logistic': _logistic(logistic4),
                                 '5-parameter logistic': _logistic(logistic5)}


def mapped(mapping: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return x mapped to the MOS y by one of MAPPINGS, fitted by least squares; NoFitError where it fails."""
    return MAPPINGS[mapping](x, y)


def williams(r_ay: float, r_by: float, r_ab: float, n: int) -> tuple[float, float]:
    """Williams' t and its two-sided p (n - 3 degrees of freedom) for two correlations that share y.

    r_ay and r_by are the correlations of models a and b with y, r_ab that between the models. Williams (1959), as
    recommended by Steiger (1980), equation 7. nan where n < 4 or the models are the same.
    """
    determinant = 1 - r_ay ** 2 - r_by ** 2 - r_ab ** 2 + 2 * r_ay * r_by * r_ab
    mean = (r_ay + r_by) / 2
    if n < 4 or abs(r_ab) >= 1:
        return np.nan, np.nan
    scale = 2 * (n - 1) / (n - 3) * determinant + mean ** 2 * (1 - r_ab) ** 3
    t = (r_ay - r_by) * np.sqrt((n - 1) * (1 + r_ab) / scale)
    return float(t), float(2 * stats.t.sf(abs(t), n - 3))


def steiger(r_ay: float, r_by: float, r_ab: float, n: int) -> tuple[float, float]:
    """Steiger's Z and its two-sided p for the same question, on Fisher's z with the pooled correlation.

    Steiger (1980), equation 14. nan where n < 4 or a correlation is 1.
    """
    if n < 4 or max(abs(r_ay), abs(r_by), abs(r_ab)) >= 1:
        return np.nan, np.nan
    mean = (r_ay + r_by) / 2
    psi = r_ab * (1 - 2 * mean ** 2) - mean ** 2 * (1 - 2 * mean ** 2 - r_ab ** 2) / 2
    shared = psi / (1 - mean ** 2) ** 2
    z = (np.arctanh(r_ay) - np.arctanh(r_by)) * np.sqrt((n - 3) / (2 - 2 * shared))
    return float(z), float(2 * stats.norm.sf(abs(z)))
