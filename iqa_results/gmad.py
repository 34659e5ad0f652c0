"""Choose the pairs of images on which two models contradict each other most, and evaluate people's choices.

The group maximum differentiation competition, gMAD (Ma et al., TPAMI 2020): in each pair, one model, the defender,
calls both images equally good, and the other, the attacker, calls one far better.
"""
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

EQUAL = .02  # difference of a defender's ranks, as a share of the images, up to which it calls two images equal


class GmadPair(NamedTuple):
    """Two images, by position: model `defender` (0 or 1) scores them equal, the other model scores `better` higher."""

    defender: int
    better: int
    worse: int


def gmad_pairs(a: np.ndarray, b: np.ndarray, count: int = 10) -> list[GmadPair]:
    """Return up to `count` pairs for each of two models as the defender, from scores (N,) that rise with quality.

    The images are divided into `count` levels of the defender's scores. From each level comes the pair whose ranks by
    the attacker differ most, among the pairs whose ranks by the defender differ less than that and by at most EQUAL
    (or are neighbours). No image is in two pairs of a defender. The result is deterministic.
    """
    ranks = [stats.rankdata(scores) / len(scores) for scores in (a, b)]
    return [GmadPair(defender, *pair) for defender in (0, 1)
            for pair in _of_defender(ranks[defender], ranks[1 - defender], count)]


def _of_defender(defender: np.ndarray, attacker: np.ndarray, count: int) -> list[tuple[int, int]]:
    found = []
    for level in np.array_split(np.argsort(defender, kind='stable'), count):
        if len(level) < 2:
            continue
        apart = attacker[level][:, None] - attacker[level]
        gaps = np.abs(defender[level][:, None] - defender[level])
        nearest = gaps[~np.eye(len(level), dtype=bool)].min()
        apart[(gaps > max(EQUAL, nearest)) | (apart <= gaps)] = 0
        better, worse = np.unravel_index(np.argmax(apart), apart.shape)
        if apart[better, worse] > 0:
            found.append((int(level[better]), int(level[worse])))
    return found


class Verdict(NamedTuple):
    """The result of people's choices on the pairs.

    Attributes:
        attacks: for each model, (number of its attacks that people confirm, number of its attacks).
        p: two-sided p of the exact binomial test of the pairs won, against equal models. The defender wins a pair
            whose attack people do not confirm.
    """

    attacks: tuple[tuple[int, int], tuple[int, int]]
    p: float

    @property
    def won(self) -> tuple[int, int]:
        """Return the number of pairs that each model wins, as attacker or defender."""
        (a, of_a), (b, of_b) = self.attacks
        return a + of_b - b, b + of_a - a


def verdict(pairs: Sequence[GmadPair], preferences: Sequence[float]) -> Verdict:
    """Evaluate people's choices on pairs; an attack is confirmed by more than half of the people.

    Args:
        pairs: the pairs of both defenders.
        preferences: for each pair, the share of the people, 0..1, that prefer the attacker's better image; 1/2 for a
            pair without choices.
    """
    attacks = []
    for attacker in (0, 1):
        shares = [share for pair, share in zip(pairs, preferences, strict=True) if pair.defender != attacker]
        attacks.append((sum(share > .5 for share in shares), len(shares)))
    found = Verdict(tuple(attacks), 1.)
    total = sum(found.won)
    return found._replace(p=float(stats.binomtest(found.won[0], total).pvalue)) if total else found
