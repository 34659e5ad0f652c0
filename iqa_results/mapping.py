"""Map scores to MOS by monotonic curves, fitted by least squares: line, logistic curves, polynomial of order 3."""
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from itertools import product

import numpy as np
from scipy.optimize import OptimizeWarning, curve_fit, nnls
from scipy.special import expit


class NoFitError(ValueError):
    """Raised if a mapping cannot be fitted, or if its fit did not converge."""


def logistic4(x: np.ndarray, top: float, bottom: float, centre: float, width: float) -> np.ndarray:
    """Return VQEG's monotonic curve of 4 parameters: bottom + (top - bottom) / (1 + exp(-(x - centre) / |width|))."""
    return bottom + (top - bottom) * expit((x - centre) / np.maximum(np.abs(width), 1e-9))


def logistic5(x: np.ndarray, height: float, slope: float, centre: float, tilt: float, offset: float) -> np.ndarray:
    """Return the curve of 5 parameters: height (1/2 - 1 / (1 + exp(slope (x - centre)))) + tilt x + offset."""
    return height * (expit(slope * (x - centre)) - .5) + tilt * x + offset


# Initial parameters for standardised x and y, rising and falling. If the best curve is nearly a line or an exponential,
# its parameters diverge without changing the curve: hence the tolerance, relative to the squared error.
STARTS = {
    logistic4: [(2, -2, 0, .7), (-2, 2, 0, .7)],
    logistic5: [(2, 1.5, 0, .1, 0), (-2, 1.5, 0, -.1, 0), (.1, 1, 0, 1, 0), (.1, 1, 0, -1, 0)],
}
TOLERANCE, MOST_CALLS = 1e-6, 5000
DOUBLE_ROOTS = 501  # candidate positions of a double root of a cubic's slope
QUARTILES = 1.349  # standard deviations between the quartiles of a normal distribution


def standardised(x: np.ndarray) -> list[np.ndarray]:
    """Return (x - mean) / std and (x - median) / std, in the latter with the std estimated from the quartiles.

    A single outlier makes all other values of the first nearly equal, but not those of the second. The second is
    omitted if the quartiles are equal.
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
    for start, u in product(starts, standardised(x)):  # standardised, so that the starts suit any scale
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


def cubic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return x mapped to y by the polynomial of order 3 that is monotonic between the lowest and the highest x.

    ITU-T P.1401 (2012). The result is the least-squares polynomial if it is monotonic there. Otherwise it is the best
    polynomial whose slope, on u in -1..1, is a sum of terms (u - r)^2, r in -1..1, and 1 - u^2 with positive weights;
    every non-negative polynomial of order 2 has this form (Lukacs). It falls if a falling one fits better.
    """
    if len(x) <= 4:
        raise NoFitError(f'{len(x)} images for 4 parameters')
    if np.ptp(x) == 0 or np.ptp(y) == 0:
        raise NoFitError('constant predictions or scores')
    u = 2 * (x - x.min()) / np.ptp(x) - 1
    free = np.polynomial.Polynomial.fit(u, y, 3, domain=[-1, 1])
    slope = free.deriv()
    turns = [-1, 1, *(root.real for root in slope.deriv().roots() if abs(root) < 1)]
    if np.ptp(np.sign(slope(np.array(turns)))) < 2:
        return free(u)
    fits = [sign * _rising_cubic(u, sign * y) for sign in (1, -1)]
    return min(fits, key=lambda fitted: np.sum((fitted - y) ** 2))


def _rising_cubic(u: np.ndarray, y: np.ndarray) -> np.ndarray:
    r = np.linspace(-1, 1, DOUBLE_ROOTS)
    terms = np.column_stack([[r ** 2, -r, np.full_like(r, 1 / 3)], [1, 0, -1 / 3]])  # weights of u, u^2, u^3
    powers = u[:, None] ** [1, 2, 3]
    q, triangle = np.linalg.qr(powers - powers.mean(0))
    weights, _ = nnls(triangle @ terms, q.T @ y)  # the rest of y is orthogonal to the powers
    return q @ (triangle @ (terms @ weights)) + y.mean()


@dataclass(frozen=True)
class Mapping:
    """A mapping of scores to MOS: `fit(scores, mos)` fits `parameters` numbers and returns the mapped scores.

    Attributes:
        monotonic: whether it keeps or reverses the order of all scores, though rounding may make some of them equal.
    """

    fit: Callable[[np.ndarray, np.ndarray], np.ndarray]
    parameters: int
    monotonic: bool = True


REGRESSIONS: dict[str, Mapping] = {
    'as saved': Mapping(_identity, 0), 'linear': Mapping(_linear, 2), '3rd-order monotonic': Mapping(cubic, 4),
    '4-parameter logistic': Mapping(_logistic(logistic4), 4),
    '5-parameter logistic': Mapping(_logistic(logistic5), 5, monotonic=False)}


def mapped(mapping: str, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return x mapped to the MOS y by one of REGRESSIONS, fitted by least squares; NoFitError if it fails."""
    return REGRESSIONS[mapping].fit(x, y)
