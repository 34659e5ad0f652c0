"""The statistics of a study: against published worked examples, other implementations and simulation."""
import math
from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from iqa_results.significance import dependent, holm
from iqa_results.statistics import Spread, nemenyi, over_splits, signed_rank, spread
from IQAperformance import CRITERIA

FINITE = st.floats(-1, 1)


# Values over splits

def test_a_spread_is_of_the_textbook():
    """By hand: mean 5, variance (9 + 1 + 1 + 9) / 3 = 20 / 3, t of 3 degrees of freedom 3.18245."""
    found = spread([2, 4, 6, 8])
    half = 3.18244630528 * math.sqrt(20 / 3) / 2
    assert_allclose(found, (4, 4, 5, 5, math.sqrt(20 / 3), 5 - half, 5 + half), rtol=1e-9)


def test_a_spread_of_few_values():
    assert spread([]) == pytest.approx(Spread(0, 0), nan_ok=True)
    assert spread([.5]) == pytest.approx(Spread(1, 1, .5, .5), nan_ok=True)
    assert spread([math.nan, .5, math.inf]) == pytest.approx(Spread(1, 3, .5, .5), nan_ok=True)
    assert spread([.5, .7]) == pytest.approx(Spread(2, 2, .6, .6, math.sqrt(.02)), nan_ok=True)
    assert spread([.5, .5, .5]) == (3, 3, .5, .5, 0, .5, .5)


CORRELATIONS = st.floats(-1, 1).filter(lambda value: 1e-6 < abs(value) < 1 - 1e-6)
ERRORS = st.floats(1e-6, 1e6)


@given(st.one_of(st.tuples(st.just('correlation'), st.lists(CORRELATIONS, min_size=3, max_size=9)),
                 st.tuples(st.just('error'), st.lists(ERRORS, min_size=3, max_size=9))))
def test_an_interval_stays_where_its_values_can_be(case):
    scale, values = case
    *_, low, high = spread(values, scale)
    least, most = {'correlation': (-1, 1), 'error': (0, math.inf)}[scale]
    assert least <= low <= high <= most
    assert low <= max(values) * (1 + 1e-9) + 1e-9
    assert high >= min(values) * (1 - 1e-9) - 1e-9


def test_the_scales_of_intervals_by_hand():
    """z of .8, .9, .95: 1.0986, 1.4722, 1.8318; mean 1.4675, std .3666; t of 2 degrees of freedom 4.30265."""
    *_, low, high = spread([.8, .9, .95], 'correlation')
    half = 4.30265 * .36661 / math.sqrt(3)
    assert_allclose((low, high), (math.tanh(1.46753 - half), math.tanh(1.46753 + half)), atol=1e-4)
    *_, low, high = spread([1, math.e, math.e ** 2], 'error')
    half = 4.30265 / math.sqrt(3)
    assert_allclose((math.log(low), math.log(high)), (1 - half, 1 + half), rtol=1e-5)


@pytest.mark.parametrize(('scale', 'values'), [('correlation', [1., .9, .8]), ('correlation', [-1., .9, .8]),
                                               ('error', [0., 1., 2.]), ('correlation', [.9, .8]), ('error', [1., 2.])])
def test_no_interval_at_the_end_of_a_scale_or_of_two_values(scale, values):
    *numbers, low, high = spread(values, scale)
    assert all(map(math.isfinite, numbers))
    assert math.isnan(low)
    assert math.isnan(high)


def test_the_interval_covers_as_often_as_it_says():
    rng = np.random.default_rng(0)
    held = sum(low <= .9 <= high for *_, low, high in (spread(rng.normal(.9, .02, 5)) for _ in range(1000)))
    assert 925 <= held <= 972


def exact_signed_rank(d: np.ndarray) -> float:
    """Two-sided p over all signs of the ranks: as slow as it is plain."""
    ranks = stats.rankdata(np.abs(d))
    sums = np.array([np.dot(signs, ranks) for signs in product((0, 1), repeat=len(d))])
    observed = ranks[d > 0].sum()
    return min(1, 2 * min(np.mean(sums <= observed), np.mean(sums >= observed)))


@given(st.lists(st.integers(1, 10 ** 6), min_size=2, max_size=9, unique=True), st.integers(0, 511))
def test_signed_ranks_without_ties_are_exact(sizes, signs):
    d = np.array([size if signs >> i & 1 else -size for i, size in enumerate(sizes)], float)
    assert_allclose(signed_rank(d, np.zeros(len(d))), exact_signed_rank(d), rtol=1e-9)


def test_signed_ranks_at_their_ends():
    better = np.arange(1., 7)
    assert signed_rank(better, 0 * better) == pytest.approx(2 / 64)
    assert signed_rank(better[:5], 0 * better[:5]) == pytest.approx(2 / 32)
    assert signed_rank(better, better) == 1
    assert math.isnan(signed_rank([], []))
    assert math.isnan(signed_rank([math.nan], [1]))
    assert signed_rank([.9, math.nan, .8], [.9, .5, .8]) == 1


# Several tests

def test_holm_is_the_published_example():
    """Holm (1979) in the form of many textbooks: .01, .04, .03, .005 become .03, .06, .06, .02."""
    assert_allclose(holm([.01, .04, .03, .005]), [.03, .06, .06, .02])
    assert_allclose(holm([.01, math.nan, .04]), [.02, math.nan, .04])
    assert holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_rejects_step_by_step(p):
    corrected = holm(p)
    assert all(c >= value and c <= 1 for c, value in zip(corrected, p, strict=True))
    for level in (.01, .05, .2):
        rejected = set()
        for step, i in enumerate(sorted(range(len(p)), key=p.__getitem__)):
            if p[i] > level / (len(p) - step):
                break
            rejected.add(i)
        near = any(abs(c - level) < 1e-9 for c in corrected)
        assert near or rejected == {i for i, c in enumerate(corrected) if c <= level}


def test_holm_rejects_a_true_hypothesis_as_seldom_as_it_says():
    rng = np.random.default_rng(0)
    wrong = sum(min(holm(rng.uniform(size=6))) < .05 for _ in range(2000))
    assert wrong < .065 * 2000


def test_one_p_of_several_splits():
    assert over_splits([.03]) == .03
    assert over_splits([.01, .02, .5]) == .04
    assert over_splits([.9, .8]) == 1
    assert over_splits([math.nan, .03]) == .03
    assert math.isnan(over_splits([]))


def test_twice_the_median_holds_its_level_for_splits_that_overlap():
    """True hypotheses: the same images in every split but for a few, so that the p depend on each other."""
    rng, wrong = np.random.default_rng(0), 0
    for _ in range(1000):
        shared = rng.normal()
        z = math.sqrt(.9) * shared + math.sqrt(.1) * rng.normal(size=5)
        wrong += over_splits(2 * stats.norm.sf(np.abs(z))) < .05
    assert wrong < 65


# Over images

@pytest.mark.parametrize('name', ['SROCC', 'PLCC'])
def test_two_models_on_the_same_images_hold_their_level(name):
    """Equally good models differ significantly in 5 % of the cases; with SROCC, about 5 %."""
    rng, rejected = np.random.default_rng(1), {'williams': 0, 'steiger': 0}
    for _ in range(600):
        y, *noise = rng.normal(size=(3, 60))
        found = dependent(CRITERIA[name], y + noise[0], y + noise[1], y)
        for test, (_, p) in found.items():
            rejected[test] += p < .05
    assert all(12 <= count <= 54 for count in rejected.values()), rejected


def test_a_model_does_not_differ_from_itself_on_another_scale():
    y, noise = np.random.default_rng(0).normal(size=(2, 50))
    for other in (y + noise, 3 * (y + noise) + 7):
        assert dependent(CRITERIA['PLCC'], y + noise, other, y) == {'williams': (0, 1), 'steiger': (0, 1)}
    assert dependent(CRITERIA['SROCC'], y + noise, np.exp(y + noise), y)['steiger'] == (0, 1)
    constant = dependent(CRITERIA['SROCC'], y, 0 * y, y)
    assert all(math.isnan(p) for _, p in constant.values())


# Mean ranks

C45 = np.array([  # Demsar (2006), table 6: AUC of C4.5, C4.5+m, C4.5+cf, C4.5+m+cf on 14 data sets
    [.763, .768, .771, .798], [.599, .591, .590, .569], [.954, .971, .968, .967], [.628, .661, .654, .657],
    [.882, .888, .886, .898], [.936, .931, .916, .931], [.661, .668, .609, .685], [.583, .583, .563, .625],
    [.775, .838, .866, .875], [1., 1., 1., 1.], [.940, .962, .965, .962], [.619, .666, .614, .669],
    [.972, .981, .9751, .975],  # printed .975 and .975, but ranked 2 and 3
    [.957, .978, .946, .970]])


def test_mean_ranks_are_demsars():
    """Demsar (2006): mean ranks 3.143, 2.000, 2.893, 1.964; critical difference 1.25; Friedman's statistic 9.28.

    He leaves the ties out. Three pairs and one of all four take 3 * 6 + 60 of 14 * 60: 9.28 / (1 - 78 / 840).
    """
    found = nemenyi(C45)
    assert_allclose(found.ranks, [3.143, 2.000, 2.893, 1.964], atol=5e-4)
    assert found.critical == pytest.approx(1.25, abs=5e-3)
    assert found.p == pytest.approx(stats.chi2.sf(9.28 / (1 - 78 / 840), 3), rel=5e-3)


@pytest.mark.parametrize(('settings', 'q'), [(3, 2.343), (5, 2.728), (8, 3.031), (10, 3.164)])
def test_critical_values_are_demsars_table_5(settings, q):
    values = np.random.default_rng(0).normal(size=(20, settings))
    assert nemenyi(values).critical == pytest.approx(q * math.sqrt(settings * (settings + 1) / 120), abs=1e-3)


def test_settings_that_are_alike_have_one_rank():
    found = nemenyi(np.full((6, 3), .9))
    assert found.ranks.tolist() == [2, 2, 2]
    assert found.p == 1
