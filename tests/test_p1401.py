"""ITU-T P.1401: the monotonic mapping of order 3, errors beyond the raters' intervals, and tests of differences."""
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats
from scipy.optimize import minimize

from iqa_results.mapping import NoFitError, mapped
from iqa_results.raters import outside_interval, rmse_star, votes_problem
from iqa_results.significance import f_test, fisher_z, images_needed, shares_test, steiger

CUBIC = '3rd-order monotonic'
CURVES = {'rising': lambda x: np.tanh(2 * x), 'falling': lambda x: -np.exp(x), 'not monotonic': lambda x: x ** 3 - x,
          'vee': np.abs, 'noise': lambda x: 0 * x}


def scores(n: int = 60, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=n)


@pytest.mark.parametrize('curve', CURVES)
def test_the_cubic_is_the_best_monotonic_one(curve):
    """Against a general optimiser that keeps the slope's sign on a fine grid."""
    x = scores()
    y = CURVES[curve](x) + .1 * scores(seed=1)
    fitted = mapped(CUBIC, x, y)
    steps = np.diff(fitted[np.argsort(x)])
    assert (steps >= -1e-9).all() or (steps <= 1e-9).all()
    u, grid = 2 * (x - x.min()) / np.ptp(x) - 1, np.linspace(-1, 1, 401)
    powers = np.stack([u ** 3, u ** 2, u, np.ones_like(u)], 1)
    best = min(minimize(lambda c: np.sum((powers @ c - y) ** 2), [0, 0, sign * .1, y.mean()],
                        jac=lambda c: 2 * powers.T @ (powers @ c - y), method='SLSQP',
                        constraints=[{'type': 'ineq', 'fun': lambda c, sign=sign: sign * (
                            3 * c[0] * grid ** 2 + 2 * c[1] * grid + c[2])}]).fun for sign in (1, -1))
    assert_allclose(np.sum((fitted - y) ** 2), best, rtol=1e-3)


@settings(max_examples=15)
@given(st.floats(1e-3, 1e3), st.floats(-1e3, 1e3), st.sampled_from([-1, 1]))
def test_the_cubic_does_not_see_scale_offset_or_direction(scale, offset, sign):
    x = scores()
    y = np.tanh(x) + .2 * scores(seed=1)
    assert_allclose(mapped(CUBIC, sign * scale * x + offset, y), mapped(CUBIC, x, y), atol=1e-6)


def test_the_cubic_finds_a_monotonic_polynomial_and_refuses_what_it_cannot_fit():
    x = scores(30)
    assert_allclose(mapped(CUBIC, x, x ** 3 + x - 2), x ** 3 + x - 2, atol=1e-9)
    with pytest.raises(NoFitError, match='4 images for 4 parameters'):
        mapped(CUBIC, x[:4], x[:4])
    with pytest.raises(NoFitError, match='constant'):
        mapped(CUBIC, np.ones(9), x[:9])


# 3 images, 25 votes each of std 1: half = t(24, .975) / sqrt(24) = 2.063899 / 4.898979 = .421292
MOS, STD, VOTES, HALF = np.array([1., 2, 3]), np.ones(3), np.full(3, 25.), .4212916


def test_errors_beyond_the_interval_by_hand():
    """Errors .4, .5, 1: beyond the interval 0, .0787, .5787; squares sum to .341097; N - d = 2 with d = 1."""
    x = MOS + np.array([.4, -.5, 1])
    assert_allclose(rmse_star(x, MOS, STD, VOTES), math.sqrt(((.5 - HALF) ** 2 + (1 - HALF) ** 2) / 2), rtol=1e-6)
    assert_allclose(rmse_star(x, MOS, STD, VOTES, parameters=2), math.sqrt(.341097), rtol=1e-5)
    assert outside_interval(x, MOS, STD, VOTES) == pytest.approx(2 / 3)


@settings(max_examples=15)
@given(st.integers(2, 60), st.integers(0, 9))
def test_errors_shrink_as_votes_do(votes, seed):
    x, y, std = scores(seed=seed), scores(seed=seed + 10), np.full(60, .5)
    fewer, more = (rmse_star(x, y, std, np.full(60, float(n))) for n in (votes, votes + 1))
    plain = np.sqrt(np.sum((x - y) ** 2) / 59)
    assert fewer <= more <= plain
    assert_allclose(rmse_star(x, y, 0 * std, np.full(60, 9.)), plain)


def test_what_is_lacking_is_named():
    mos, std = np.linspace(1, 5, 40), np.full(40, .7)
    assert votes_problem(mos, std, np.full(40, 20.)) is None
    assert 'no numbers of votes' in votes_problem(mos, std, None)
    assert 'no numbers of votes' in votes_problem(mos, std, np.ones(40))
    few = np.append(np.full(37, 5.), [1, np.nan, np.nan])
    assert '3 images have fewer than 2 votes' in votes_problem(mos, std, few)
    assert 'no standard deviations' in votes_problem(mos, np.full(40, np.nan), np.full(40, 20.))


def test_tests_of_the_standard_by_hand():
    """atanh .9 = 1.472219, atanh .8 = 1.098612, sqrt(2 / 97) = .1435919: z = 2.601873."""
    z, p = fisher_z(.9, .8, 100, 100)
    assert_allclose([z, p], [2.601873, 2 * stats.norm.sf(2.601873)], rtol=1e-5)
    assert_allclose(f_test(.6, .5, 96, 96), [1.44, 2 * stats.f.sf(1.44, 96, 96)])
    assert f_test(.5, .6, 96, 96) == f_test(.6, .5, 96, 96)
    z, p = shares_test(.2, .3, 100, 100)  # both .25: -.1 / sqrt(.1875 / 50) = -1.632993
    assert_allclose([z, p], [-1.632993, 2 * stats.norm.sf(1.632993)], rtol=1e-6)
    assert shares_test(.25, .25, 40, 40) == (0, 1)
    assert shares_test(0, 0, 40, 40) == (0, 1)
    for found in (fisher_z(.9, .8, 3, 9), fisher_z(1, .8, 9, 9), f_test(0, 1, 9, 9), f_test(math.nan, 1, 9, 9)):
        assert all(map(math.isnan, found))


@pytest.mark.parametrize(('freedom', 'critical'), [(10, 2.98), (20, 2.12), (30, 1.84), (60, 1.53), (120, 1.35)])
def test_the_f_test_is_that_of_printed_tables(freedom, critical):
    """The upper 5 % points of F, as textbooks print them, are two-sided .10; smaller by .01, they are above it."""
    assert f_test(math.sqrt(critical), 1, freedom, freedom)[1] == pytest.approx(.1, abs=.0035)
    assert f_test(math.sqrt(critical - .01), 1, freedom, freedom)[1] > .1


@pytest.mark.parametrize(('q', 'n'), [(.1, 1573), (.2, 395), (.3, 177), (.4, 101), (.5, 66)])
def test_fishers_z_has_the_power_of_cohens_table(q, n):
    """Cohen (1988): with n in both samples, a difference q of Fisher's z is found with power .8 (two-sided, .05)."""
    z, _ = fisher_z(math.tanh(.5 + q), math.tanh(.5), n, n)
    assert stats.norm.sf(stats.norm.ppf(.975) - z) == pytest.approx(.8, abs=.005)


@pytest.mark.parametrize('test', ['fisher', 'f', 'shares'])
def test_the_tests_hold_their_level_on_independent_samples(test):
    rng, rejected = np.random.default_rng(0), 0
    for _ in range(800):
        x, y, e, f = rng.normal(size=(4, 60))
        found = {'fisher': fisher_z(np.corrcoef(x, x + e)[0, 1], np.corrcoef(y, y + f)[0, 1], 60, 60),
                 'f': f_test(e.std(ddof=1), f.std(ddof=1), 59, 59),
                 'shares': shares_test((e > .3).mean(), (f > .3).mean(), 60, 60)}
        rejected += found[test][1] < .05
    assert 24 <= rejected <= 57  # 40 expected, standard deviation 6.2


@pytest.mark.parametrize(('r', 'between'), [(.8, .9), (.9, .7)])
def test_as_many_images_as_said_find_the_difference(r, between):
    """Power of Steiger's Z by simulation: .8 for the number of images that images_needed gives."""
    n = int(images_needed(r, between, .04))
    rng, found = np.random.default_rng(1), 0
    covariance = np.array([[1, r + .02, r - .02], [r + .02, 1, between], [r - .02, between, 1]])
    for _ in range(400):
        c = np.corrcoef(rng.multivariate_normal(np.zeros(3), covariance, n).T)
        found += steiger(c[0, 1], c[0, 2], c[1, 2], n)[1] < .05
    assert .72 <= found / 400 <= .88


def test_more_images_are_needed_for_less():
    assert images_needed(.9, .8, .01) > images_needed(.9, .8, .02) > images_needed(.9, .95, .02)
    assert math.isnan(images_needed(.999, .8, .01))
    assert math.isnan(images_needed(.9, 1, .01))
    assert math.isnan(images_needed(math.nan, .5))
    assert math.isnan(images_needed(.9, math.nan))
