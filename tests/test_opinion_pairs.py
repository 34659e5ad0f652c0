"""Criteria of pairs of images (Krasula et al. 2016, 2AFC): slow oracles, levels of the tests, coverage of intervals."""
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy import stats

from iqa_results.pairs import (
    OF_SEEN,
    PAIR_CRITERIA,
    Pairs,
    all_pairs,
    pair_interval,
    pair_test,
    preferred_pairs,
    rated_pairs,
    roc,
)

VOTES = 20


def rated(n: int = 40, seed: int = 0) -> tuple[np.ndarray, Pairs, np.random.Generator]:
    """True qualities (n,), and the pairs of images whose MOS VOTES raters gave."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=n)
    mos = quality + rng.normal(size=n) / math.sqrt(VOTES - 1)
    return quality, rated_pairs(mos, np.ones(n), np.full(n, VOTES)), rng


def area(above, below) -> float:
    """The share of all couples that are in order, ties half."""
    return float(np.mean([(a > b) + .5 * (a == b) for a in above for b in below]))


def slow(pairs: Pairs, scores: np.ndarray) -> dict[str, float]:
    """All criteria by loops over pairs."""
    rows = [(t, abs(z) > 1.959964, s) for t, z, s in zip(pairs.target, pairs.z, scores, strict=True)]
    right = [(abs(t), seen, .5 if s == 0 else float((s > 0) == (t > 0))) for t, seen, s in rows if t]
    signed = [s if t > 0 else -s for t, seen, s in rows if seen]
    return {'pair accuracy': np.mean([r for *_, r in right]),
            'weighted accuracy': sum(w * r for w, _, r in right) / sum(w for w, *_ in right),
            'AUC different/similar': area([abs(s) for _, seen, s in rows if seen],
                                          [abs(s) for _, seen, s in rows if not seen]),
            'AUC better/worse': area(signed, [-s for s in signed]),
            'correct': np.mean([r for _, seen, r in right if seen])}


@pytest.mark.parametrize('ties', [False, True])
def test_criteria_of_pairs_are_those_of_loops(ties):
    quality, pairs, rng = rated(18)
    scores = quality + .6 * rng.normal(size=18)
    scores = pairs.of(scores.round() if ties else scores)
    expected = slow(pairs, scores)
    for name, criterion in PAIR_CRITERIA.items():
        found = criterion(pairs, scores)
        assert found.value == pytest.approx(expected[name], rel=1e-12), name
        assert abs(found.influence.sum()) < 1e-9


@pytest.mark.parametrize('name', PAIR_CRITERIA)
def test_the_order_of_the_images_and_the_scale_do_not_matter(name):
    quality, pairs, rng = rated()
    scores = quality + .5 * rng.normal(size=40)
    first, second = pairs.second, pairs.first
    turned = Pairs(first, second, -pairs.target, -pairs.z)
    value = PAIR_CRITERIA[name](pairs, pairs.of(scores)).value
    assert PAIR_CRITERIA[name](turned, turned.of(scores)).value == pytest.approx(value)
    assert PAIR_CRITERIA[name](pairs, pairs.of(1e3 * scores - 5)).value == pytest.approx(value)
    if name in ('pair accuracy', 'weighted accuracy', 'correct'):
        assert PAIR_CRITERIA[name](pairs, pairs.of(np.exp(scores))).value == pytest.approx(value)
        assert PAIR_CRITERIA[name](pairs, pairs.of(-scores)).value == pytest.approx(1 - value)


def test_pair_accuracy_is_kendalls_tau():
    quality, pairs, rng = rated()
    scores = quality + rng.normal(size=40)
    mos = np.zeros(40)
    mos[1:] = -pairs.target[:39]  # all pairs of image 0
    tau = stats.kendalltau(scores, mos)[0]
    assert PAIR_CRITERIA['pair accuracy'](pairs, pairs.of(scores)).value == pytest.approx((1 + tau) / 2)


def test_the_area_of_a_published_example():
    """Hanley and McNeil (1982), 58 normal and 51 abnormal images in five categories of suspicion: area .893."""
    ratings = [np.repeat(np.arange(1., 6), counts) for counts in ([33, 6, 6, 11, 2], [3, 2, 2, 11, 33])]
    z = np.repeat([0., 9], [58, 51])  # the normal ones stand for similar pairs, the abnormal ones for different pairs
    pairs = Pairs(np.zeros(109, int), np.arange(1, 110), z, z)
    assert round(PAIR_CRITERIA['AUC different/similar'](pairs, np.concatenate(ratings)).value, 3) == .893


def test_chance_and_perfection():
    _, pairs, _ = rated()
    for name, criterion in PAIR_CRITERIA.items():
        assert criterion(pairs, np.zeros(len(pairs.target))).value == pytest.approx(.5), name
    perfect = {name: criterion(pairs, pairs.target).value for name, criterion in PAIR_CRITERIA.items()}
    assert perfect == pytest.approx(dict.fromkeys(PAIR_CRITERIA, 1))


def test_pairs_that_all_or_none_differ_have_no_area():
    mos = np.array([1., 2, 3, 4, 5, 6])
    sharp, blurred = (rated_pairs(mos, np.full(6, std), np.full(6, 20)) for std in (0., 90.))
    assert math.isnan(PAIR_CRITERIA['AUC different/similar'](sharp, sharp.target).value)
    assert PAIR_CRITERIA['AUC better/worse'](sharp, sharp.target).value == 1
    for name in OF_SEEN:
        assert math.isnan(PAIR_CRITERIA[name](blurred, blurred.target).value)
    same = rated_pairs(np.ones(6), np.zeros(6), np.full(6, 20))
    assert not same.different.any()
    assert math.isnan(PAIR_CRITERIA['pair accuracy'](same, same.target).value)


def simulate(trials: int, n: int) -> tuple[dict, dict, dict]:
    """Rejections at .05 over images and over pairs of two models that are equally good, and values in intervals."""
    images, over_pairs = dict.fromkeys(PAIR_CRITERIA, 0), dict.fromkeys(PAIR_CRITERIA, 0)
    values = {name: [] for name in PAIR_CRITERIA}
    for seed in range(trials):
        quality, pairs, rng = rated(n, seed)
        models = [pairs.of(quality + .5 * rng.normal(size=n)) for _ in range(2)]
        for name, criterion in PAIR_CRITERIA.items():
            a, b = (criterion(pairs, scores) for scores in models)
            tests = pair_test(pairs, a, b)
            images[name] += tests['images'][1] < .05
            over_pairs[name] += tests['pairs'][1] < .05
            values[name].append((a.value, *pair_interval(pairs, a)))
    held = {name: np.mean([low <= np.mean([v for v, *_ in found]) <= high for _, low, high in found])
            for name, found in values.items()}
    return images, over_pairs, held


def check_level(trials: int, n: int, least: float = 0) -> None:
    images, over_pairs, held = simulate(trials, n)
    for name in PAIR_CRITERIA:
        assert images[name] >= trials * least, name
        assert images[name] <= trials * .05 + 2.6 * math.sqrt(trials * .05 * .95), name
        assert over_pairs[name] >= .1 * trials, name  # pairs share images: not a test to rely on
        assert held[name] > .9, name


def test_the_test_over_images_holds_its_level_and_that_over_pairs_does_not():
    check_level(100, 30)


@pytest.mark.slow
@pytest.mark.parametrize(('n', 'least'), [(20, 0), (60, 0), (100, .015)])
def test_levels_of_many_simulations(n, least):
    """At most .05, and not far below it with 100 images."""
    check_level(1000, n, least)


def test_a_better_model_is_found():
    quality, pairs, rng = rated(120)
    good, bad = (pairs.of(quality + noise * rng.normal(size=120)) for noise in (.2, 1))
    for criterion in PAIR_CRITERIA.values():
        z, p = pair_test(pairs, criterion(pairs, good), criterion(pairs, bad))['images']
        assert z > 0
        assert p < .01
        assert pair_test(pairs, criterion(pairs, good), criterion(pairs, good))['images'] == (0, 1)


def test_many_images_give_a_sample_of_their_pairs():
    first, second = all_pairs(500, most=2000, seed=1)
    assert 1500 < len(first) <= 2000
    assert (first < second).all()
    assert len(set(zip(first.tolist(), second.tolist(), strict=True))) == len(first)
    assert [len(part) for part in all_pairs(6)] == [15, 15]


def test_preferences_are_pairs():
    pairs = preferred_pairs(np.array([0, 1, 0]), np.array([1, 2, 2]), np.array([.9, .5, .4]))
    scores = pairs.of(np.array([3., 2, 1]))
    assert PAIR_CRITERIA['pair accuracy'](pairs, scores).value == .5  # the tie does not count
    assert PAIR_CRITERIA['weighted accuracy'](pairs, scores).value == pytest.approx(.8)


def test_a_roc_curve_by_hand():
    """Thresholds 3, 2, 1: the values 2 of both kinds pass together."""
    false, true = roc(np.array([3., 2, 2, 1]), np.array([True, True, False, False]))
    assert_allclose(false, [0, 0, .5, 1])
    assert_allclose(true, [0, .5, 1, 1])
