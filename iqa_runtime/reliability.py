"""How well predicted standard deviations fit the errors: coverage of intervals, its error, sharpness."""
from statistics import NormalDist

import numpy as np

NOMINAL = np.arange(.05, 1, .05)  # shares of the images that intervals are to hold


def coverage(pq: np.ndarray, sq: np.ndarray, deviation: np.ndarray) -> np.ndarray:
    """Return the share of the MOS inside the central interval of N(score, deviation), for each share of NOMINAL.

    Args:
        pq: scores, (N,).
        sq: MOS, (N,).
        deviation: their standard deviations, (N,), at least 0, in MOS units.
    """
    widths = np.array([NormalDist().inv_cdf((1 + share) / 2) for share in NOMINAL])
    return (np.abs(sq - pq) <= widths[:, None] * deviation).mean(1)


def reliability(pq: np.ndarray, sq: np.ndarray, deviation: np.ndarray) -> dict[str, float]:
    """Return the sharpness and the error of the coverage; arguments as of `coverage`.

    The sharpness is the mean deviation, in MOS units (T. Gneiting, F. Balabdaoui, A. E. Raftery: Probabilistic
    forecasts, calibration and sharpness, 2007); the error is the mean distance of the coverage from NOMINAL, in 0..1.
    """
    error = np.abs(coverage(pq, sq, deviation) - NOMINAL).mean()
    return {'sharpness': float(deviation.mean()), 'coverage_error': float(error)}
