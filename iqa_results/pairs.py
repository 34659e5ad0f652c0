"""Evaluate models on pairs of images, which differ and which is better, with standard errors over images.

Each criterion returns its value and the influence of each pair on it; influences sum to 0. Pairs that share images are
not independent: the standard error over images is computed from the sums of influences by image.
"""
import math
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from iqa_results.raters import standard_error

MOST_PAIRS = 1_000_000
ROUNDING = 1e-12  # smaller errors and differences are due to floating-point rounding
SEEN = stats.norm.ppf(.975)  # |z| above which the images of a pair differ significantly: two-sided, .05


class Pairs(NamedTuple):
    """P pairs of N images.

    Attributes:
        first, second: positions of the two images, (P,).
        target: opinion of the first minus that of the second, (P,).
        z: `target` divided by its standard error, (P,); None if that is unknown.
    """

    first: np.ndarray
    second: np.ndarray
    target: np.ndarray
    z: np.ndarray | None = None

    @property
    def different(self) -> np.ndarray:
        """Return whether the images of each pair differ significantly (z test, two-sided, .05)."""
        return np.abs(self.z) > SEEN

    def of(self, scores: np.ndarray) -> np.ndarray:
        """Return the differences (P,) of scores (N,)."""
        return scores[self.first] - scores[self.second]


class PairValue(NamedTuple):
    """The value of a criterion, and the influence (P,) of each pair on it."""

    value: float
    influence: np.ndarray


def all_pairs(n: int, most: int = MOST_PAIRS, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return the positions of all pairs of n images, or of about `most` random pairs if there are more."""
    if n * (n - 1) // 2 <= most:
        return np.triu_indices(n, 1)
    first, second = np.sort(np.random.default_rng(seed).integers(n, size=(2, most)), 0)
    codes = np.unique((first * n + second)[first < second])
    return np.divmod(codes, n)


def rated_pairs(mos: np.ndarray, std: np.ndarray | None = None, votes: np.ndarray | None = None,
                most: int = MOST_PAIRS) -> Pairs:
    """Return pairs of images (see all_pairs) with the differences of MOS, and with z if std and votes are given."""
    first, second = all_pairs(len(mos), most)
    target = mos[first] - mos[second]
    if std is None or votes is None:
        return Pairs(first, second, target)
    variance = standard_error(std, votes) ** 2
    with np.errstate(invalid='ignore', divide='ignore'):
        z = target / np.sqrt(variance[first] + variance[second])  # nan or infinite if all raters agree
    return Pairs(first, second, target, np.nan_to_num(z, nan=0, posinf=np.inf, neginf=-np.inf))


def preferred_pairs(first: np.ndarray, second: np.ndarray, preference: np.ndarray) -> Pairs:
    """Return pairs whose target is the share of the people that prefer the first, 0..1, minus 1/2."""
    return Pairs(first, second, preference - .5)


# Criteria: functions of pairs and of the differences (P,) of a model's scores

def accuracy(pairs: Pairs, scores: np.ndarray) -> PairValue:
    """Return the share of the pairs with unequal opinions whose order the scores match; equal scores count half."""
    return _share(pairs, scores, (pairs.target != 0).astype(float))


def weighted_accuracy(pairs: Pairs, scores: np.ndarray) -> PairValue:
    """Return `accuracy` with each pair weighted by the difference of its opinions."""
    return _share(pairs, scores, np.abs(pairs.target))


def correct(pairs: Pairs, scores: np.ndarray) -> PairValue:
    """Return `accuracy` on the significantly different pairs (Krasula et al. 2016: percentage correct)."""
    return _share(pairs, scores, pairs.different.astype(float))


def _share(pairs: Pairs, scores: np.ndarray, weights: np.ndarray) -> PairValue:
    total = weights.sum()
    if not total:
        return PairValue(math.nan, np.zeros(len(weights)))
    right = (1 + np.sign(pairs.target) * np.sign(scores)) / 2
    value = float(weights @ right / total)
    return PairValue(value, weights * (right - value) / total)


def different_similar(pairs: Pairs, scores: np.ndarray) -> PairValue:
    """Return the area under the ROC curve of |difference of scores| as a detector of significantly different pairs.

    Krasula et al. (QoMEX 2016), first analysis; DeLong et al. (1988). nan if all pairs differ, or if none does.
    """
    return _area(np.abs(scores), pairs.different, ~pairs.different)


def better_worse(pairs: Pairs, scores: np.ndarray) -> PairValue:
    """Return the area under the ROC curve of the difference of scores as a classifier of better and worse.

    Krasula et al. (QoMEX 2016), second analysis, on the significantly different pairs, each in both orders, so that
    the order of the images has no effect. nan if no pair differs.
    """
    seen = pairs.different
    signed = (np.sign(pairs.target) * scores)[seen]
    both, is_first = np.concatenate([signed, -signed]), np.arange(2 * len(signed)) < len(signed)
    area = _area(both, is_first, ~is_first)
    influence = np.zeros(len(scores))
    influence[seen] = area.influence[is_first] + area.influence[~is_first]
    return PairValue(area.value, influence)


def _area(values: np.ndarray, positive: np.ndarray, negative: np.ndarray) -> PairValue:
    """Return the area under the ROC curve; influences are DeLong's components minus it, divided by the group's size."""
    above, below = values[positive], values[negative]
    influence = np.zeros(len(values))
    if not len(above) or not len(below):
        return PairValue(math.nan, influence)
    ranks = stats.rankdata(np.concatenate([above, below]))
    of_above = (ranks[:len(above)] - stats.rankdata(above)) / len(below)
    of_below = 1 - (ranks[len(above):] - stats.rankdata(below)) / len(above)
    value = float(of_above.mean())
    influence[positive], influence[negative] = (of_above - value) / len(above), (of_below - value) / len(below)
    return PairValue(value, influence)


PAIR_CRITERIA: dict[str, Callable[[Pairs, np.ndarray], PairValue]] = {
    'pair accuracy': accuracy, 'weighted accuracy': weighted_accuracy, 'AUC different/similar': different_similar,
    'AUC better/worse': better_worse, 'correct': correct}
OF_SEEN = ('AUC different/similar', 'AUC better/worse', 'correct')  # these need std and votes


def roc(values: np.ndarray, positive: np.ndarray, points: int = 200) -> tuple[np.ndarray, np.ndarray]:
    """Return the false and true positive rates at thresholds from high to low, at most (points + 2,) each."""
    order = np.argsort(-values, kind='stable')
    ends = np.append(np.flatnonzero(np.diff(values[order])), len(values) - 1)  # equal values pass a threshold together
    rates = [np.concatenate([[0], np.cumsum(which[order])[ends] / max(1, which.sum())])
             for which in (~positive, positive)]
    kept = np.unique(np.linspace(0, len(ends), points + 2).astype(int))
    return rates[0][kept], rates[1][kept]


# Errors and tests

def error_over_pairs(influence: np.ndarray) -> float:
    """Return the standard error of a sum of influences of pairs as if pairs were independent (DeLong et al. 1988)."""
    return math.sqrt(float(influence @ influence))


def error_over_images(pairs: Pairs, influence: np.ndarray) -> float:
    """Return the standard error of a sum of influences of pairs that share images, by the jackknife (Arvesen 1969).

    An image's influence is the sum of those of its pairs.
    """
    n = int(max(pairs.first.max(), pairs.second.max())) + 1
    of_image = np.bincount(pairs.first, influence, n) + np.bincount(pairs.second, influence, n)
    return math.sqrt(float(of_image @ of_image) * n * (n - 1)) / max(1, n - 2)


def pair_interval(pairs: Pairs, found: PairValue, level: float = .95) -> tuple[float, float]:
    """Return the confidence interval over images of a value in 0..1, symmetric on the logit; nan for 0, 1 and nan."""
    if not 0 < found.value < 1:
        return math.nan, math.nan
    half = stats.norm.ppf((1 + level) / 2) * error_over_images(pairs, found.influence)
    ends = np.array([-1, 1]) * half / (found.value * (1 - found.value)) + math.log(found.value / (1 - found.value))
    return tuple(map(float, 1 / (1 + np.exp(-ends))))


def pair_test(pairs: Pairs, a: PairValue, b: PairValue) -> dict[str, tuple[float, float]]:
    """Test the difference a - b of a criterion of two models, two-sided: {'images': (z, p), 'pairs': (z, p)}.

    'pairs' is DeLong's test as Krasula et al. use it: it assumes independent pairs, so that its p is far too small;
    'images' allows for shared images. Models that agree on all pairs give z 0 and p 1.
    """
    influence = a.influence - b.influence
    errors = {'images': error_over_images(pairs, influence), 'pairs': error_over_pairs(influence)}
    difference = a.value - b.value
    if abs(difference) < ROUNDING and max(errors.values()) < ROUNDING:
        return dict.fromkeys(errors, (0., 1.))
    z = {name: difference / error if error > ROUNDING else math.nan for name, error in errors.items()}
    return {name: (value, float(2 * stats.norm.sf(abs(value)))) for name, value in z.items()}
