"""Compute the distance correlation, which is 0 only if scores and MOS are independent, and its jackknife interval."""
import math
from collections.abc import Iterator

import numpy as np
from scipy import stats

BLOCK = 1 << 21  # distances in memory at once


def distance_correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Return the distance correlation of x and y, both (N,), 0..1, and its 95 % interval; nan for a constant.

    Szekely, Rizzo and Bakirov (2007), equation 2.18: the root of dCov^2(x, y) / sqrt(dCov^2(x, x) dCov^2(y, y));
    dCov^2 is the mean product of the doubly centred distances. The jackknife gives the interval, on Fisher's z; it is
    nan for fewer than 4 images and for correlations of 0 and 1.
    """
    n = len(x)
    products = {'xy': (x, y), 'xx': (x, x), 'yy': (y, y)}
    if n < 2 or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan, math.nan, math.nan
    found = {name: _covariances(*both) for name, both in products.items()}
    with np.errstate(invalid='ignore', divide='ignore'):
        squared = found['xy'] / np.sqrt(found['xx'] * found['yy'])
        z = np.arctanh(np.sqrt(np.clip(squared, 0, 1)))
    value = float(np.tanh(z[0])) if np.isfinite(z[0]) else 1.
    if n < 4 or not np.isfinite(z).all() or not z[0]:
        return value, math.nan, math.nan
    without = z[1:]
    half = stats.norm.ppf(.975) * math.sqrt((n - 1) / n * np.sum((without - without.mean()) ** 2))
    return value, max(0., math.tanh(z[0] - half)), math.tanh(z[0] + half)


def _covariances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Return dCov^2 of all images, and without each in turn, (1 + N,).

    With row sums A, B of the distances a, b, it is sum(ab) / N^2 + sum(A) sum(B) / N^4 - 2 sum(AB) / N^3, from which
    leaving out an image subtracts its row.
    """
    n = len(x)
    blocks = np.array_split(np.arange(n), -(-n * n // BLOCK))

    def distances() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return ((np.abs(x[block, None] - x), np.abs(y[block, None] - y)) for block in blocks)

    A, B = np.concatenate([[a.sum(1), b.sum(1)] for a, b in distances()], 1)
    ab, aB, bA = np.concatenate([[(a * b).sum(1), a @ B, b @ A] for a, b in distances()], 1)
    sums = np.stack([np.append(ab.sum(), ab.sum() - 2 * ab), np.append(A.sum(), A.sum() - 2 * A),
                     np.append(B.sum(), B.sum() - 2 * B), np.append(A @ B, A @ B - A * B - aB - bA + ab)])
    size = np.append(n, np.full(n, n - 1))
    return sums[0] / size ** 2 + sums[1] * sums[2] / size ** 4 - 2 * sums[3] / size ** 3
