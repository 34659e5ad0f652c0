"""The ceiling of correlations, resolving power, distance correlation: slow oracles and simulations."""
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from iqa_results.distance import distance_correlation
from iqa_results.raters import ceiling, resolving_power, standard_error
from IQAperformance import CRITERIA


def rated(n: int, spread: float, votes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """True qualities and the MOS of `votes` raters, whose ratings differ by `spread`."""
    rng = np.random.default_rng(seed)
    quality = rng.normal(size=n)
    return quality, quality + spread * rng.normal(size=n) / math.sqrt(votes - 1)


def test_the_standard_error_is_that_of_the_ratings():
    ratings = np.array([1., 2, 2, 5])
    assert_allclose(standard_error(ratings.std(), len(ratings)), stats.sem(ratings))


@pytest.mark.parametrize('name', ['SROCC', 'PLCC', 'KROCC'])
@pytest.mark.parametrize(('spread', 'votes'), [(1, 5), (3, 10)])
def test_the_ceiling_is_what_an_oracle_reaches(name, spread, votes):
    """The mean over studies of the estimated ceiling is that of the correlation of true qualities with the MOS."""
    n, reached, found = 300, [], []
    for seed in range(24):
        quality, mos = rated(n, spread, votes, seed)
        reached.append(CRITERIA[name](quality, mos))
        found.append(ceiling(CRITERIA[name], mos, np.full(n, spread), np.full(n, votes), count=8,
                             seed=1000 + seed)[0])
    assert np.mean(found) == pytest.approx(np.mean(reached), abs=.02)


def test_the_ceiling_of_plcc_is_the_root_of_the_reliability():
    _, mos = rated(3000, 2, 9, 0)
    value, low, high = ceiling(CRITERIA['PLCC'], mos, np.full(3000, 2.), np.full(3000, 9), count=50, seed=1)
    assert value == pytest.approx(math.sqrt(1 - .5 / mos.var()), abs=.004)
    assert low < value < high


def test_the_ceiling_rises_with_the_votes_and_is_1_without_noise():
    _, mos = rated(100, 1, 20, 0)
    values = [ceiling(CRITERIA['SROCC'], mos, np.ones(100), np.full(100, n))[0] for n in (4, 16, 64)]
    assert values == sorted(values)
    assert ceiling(CRITERIA['SROCC'], mos, np.zeros(100), np.full(100, 9)) == (1, 1, 1)


def test_resolving_power_by_hand():
    """P of being the better one: 1, 2 and 3 apart .8, .99, .97; the last two are pooled to .98."""
    z = stats.norm.ppf([.8, .99, .97])
    assert resolving_power(np.array([1., 2, 3]), z) == 2
    assert resolving_power(np.array([1., -2, 3]), z * [1, -1, 1]) == 2
    assert math.isnan(resolving_power(np.array([1., 2, 3]), np.zeros(3)))


@given(st.integers(0, 1000))
@settings(max_examples=20)
def test_pairs_at_one_distance_are_seen_together(seed):
    """Whole scores: the order of the pairs has no effect, and one sure pair among doubtful ones does not decide."""
    rng = np.random.default_rng(seed)
    scores, z = rng.integers(0, 4, 60).astype(float), rng.normal(1, 1, 60)
    order = rng.permutation(60)
    assert_allclose(resolving_power(scores[order], z[order]), resolving_power(scores, z), equal_nan=True)
    assert math.isnan(resolving_power(np.ones(60), np.sort(z)))


def test_resolving_power_finds_the_difference_that_is_seen():
    """MOS are scores plus noise: the mean of Phi(z) is .95 where the difference is known by the normal law."""
    rng = np.random.default_rng(0)
    difference, error = rng.uniform(0, 4, 20000), .8
    z = (difference + error * rng.normal(size=20000)) / error
    expected = 1.645 * math.sqrt(2) * error  # Phi(z) averaged over noise as large as the error: Phi(d / (error sqrt 2))
    assert resolving_power(difference, z) == pytest.approx(expected, rel=.05)


@given(st.floats(.01, 100))
@settings(max_examples=5)
def test_resolving_power_is_in_the_unit_of_the_scores(scale):
    rng = np.random.default_rng(1)
    scores = rng.uniform(0, 4, 300)
    assert_allclose(resolving_power(scale * scores, 2 * scores), scale * resolving_power(scores, 2 * scores))


# Distance correlation

def slow(x: np.ndarray, y: np.ndarray) -> float:
    """By the definition: doubly centred matrices of distances."""
    def centred(v):
        d = np.abs(v[:, None] - v)
        return d - d.mean(0) - d.mean(1)[:, None] + d.mean()
    a, b = centred(x), centred(y)
    return math.sqrt((a * b).mean() / math.sqrt((a * a).mean() * (b * b).mean()))


@pytest.mark.parametrize('curve', [np.abs, np.square, np.sin, np.round])
def test_distance_correlation_and_its_jackknife_by_the_definition(curve, monkeypatch):
    rng = np.random.default_rng(0)
    x = rng.normal(size=30)
    y = curve(x) + .3 * rng.normal(size=30)
    value, low, high = distance_correlation(x, y)
    assert value == pytest.approx(slow(x, y), rel=1e-12)
    without = np.arctanh([slow(np.delete(x, i), np.delete(y, i)) for i in range(30)])
    half = stats.norm.ppf(.975) * math.sqrt(29 / 30 * np.sum((without - without.mean()) ** 2))
    assert (low, high) == pytest.approx((math.tanh(np.arctanh(value) - half), math.tanh(np.arctanh(value) + half)))
    monkeypatch.setattr('iqa_results.distance.BLOCK', 100)  # as of many images
    assert distance_correlation(x, y) == pytest.approx((value, low, high))


@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.sampled_from([-1, 1]))
@settings(max_examples=20)
def test_distance_correlation_does_not_see_lines(scale, offset, sign):
    x, y = np.random.default_rng(0).normal(size=(2, 20))
    assert_allclose(distance_correlation(sign * scale * x + offset, y), distance_correlation(x, y), rtol=1e-6)
    assert distance_correlation(x, sign * scale * x)[0] == pytest.approx(1)


def test_distance_correlation_of_a_constant_and_of_few():
    assert all(map(math.isnan, distance_correlation(np.ones(9), np.arange(9.))))
    value, low, _ = distance_correlation(np.arange(3.), np.array([0., 2, 1]))
    assert 0 < value < 1
    assert math.isnan(low)


def test_the_interval_of_the_distance_correlation_covers():
    """Normal scores with correlation .5; the value of many images is found by 4,000 of them."""
    rng = np.random.default_rng(0)

    def draw(n):
        x, e = rng.normal(size=(2, n))
        return x, x + e * math.sqrt(3)
    truth, held = distance_correlation(*draw(4000))[0], 0
    for _ in range(100):
        _, low, high = distance_correlation(*draw(80))
        held += low <= truth <= high
    assert held >= 88
