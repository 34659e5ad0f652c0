"""The statistics of results_in_the_paper: against scipy, against hand-computed values, and the recorded predictions."""
import csv
import io
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from iqa_results import comparison, significance
from iqa_results.mapping import NoFitError, logistic4, logistic5, mapped
from iqa_results.raters import outside_spread, std_problem
from iqa_results.read import Predictions, read_predictions
from iqa_results.table_formats import FORMATS, places, render
from IQAperformance import CRITERIA, interval, plcc
from results_in_the_paper import compare

PLAIN = {'SROCC': lambda x, y: stats.spearmanr(x, y)[0], 'PLCC': lambda x, y: stats.pearsonr(x, y)[0],
         'KROCC': lambda x, y: stats.kendalltau(x, y)[0], 'RMSE': lambda x, y: np.mean((x - y) ** 2) ** .5}


def simulated(n: int = 60, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Predictions and MOS, (n,) each, correlated; `ties` rounds them to a few values."""
    rng = np.random.default_rng(seed)
    mos = rng.uniform(0, 100, n)
    pq = mos + rng.normal(0, 15, n)
    return (pq.round(-1), mos.round(-1)) if ties else (pq, mos)


@pytest.mark.parametrize('ties', [False, True])
@pytest.mark.parametrize('name', PLAIN)
def test_criteria_along_an_axis_are_scipys_of_each_row(name, ties):
    x, y = (np.stack(rows) for rows in zip(*(simulated(seed=seed, ties=ties) for seed in range(5)), strict=True))
    expected = [PLAIN[name](*row) for row in zip(x, y, strict=True)]
    assert_allclose(CRITERIA[name](x, y), expected, rtol=1e-12)
    assert_allclose(CRITERIA[name](x.T, y.T, axis=0), expected, rtol=1e-12)


@pytest.mark.parametrize('name', PLAIN)
def test_the_bootstrap_is_of_images_drawn_together(name):
    x, y = simulated(ties=True)
    rows = np.random.default_rng(3).integers(len(x), size=(50, len(x)))
    expected = np.quantile([PLAIN[name](x[row], y[row]) for row in rows], [.025, .975])
    assert_allclose(interval(CRITERIA[name], x, y, count=50, seed=3), expected, rtol=1e-12)


@pytest.mark.parametrize('name', ['SROCC', 'PLCC', 'KROCC'])
def test_a_constant_has_no_correlation(name):
    _, y = simulated()
    constant = np.full(len(y), 3.3)
    assert math.isnan(CRITERIA[name](constant, y))
    assert all(map(math.isnan, interval(CRITERIA[name], constant, y, count=100)))


@pytest.mark.parametrize('name', ['SROCC', 'PLCC', 'KROCC'])
def test_scale_and_offset_do_not_matter_to_correlations(name):
    (x, y), criterion = simulated(), CRITERIA[name]
    assert_allclose(criterion(1e6 + 1e-3 * x, y), criterion(x, y), rtol=1e-6)
    assert_allclose(criterion(-x, y), -criterion(x, y), atol=1e-12)


def test_an_interval_covers_as_often_as_it_says():
    """PLCC of normal pairs of correlation .6: 95 % intervals hold it in 95 % of the cases, up to chance."""
    rng, held = np.random.default_rng(0), 0
    for trial in range(200):
        x, noise = rng.normal(size=(2, 100))
        low, high = interval(CRITERIA['PLCC'], x, .6 * x + .8 * noise, count=400, seed=trial)
        held += low <= .6 <= high
    assert 178 <= held <= 198


def test_outlier_ratio():
    std = np.array([1., 1, 5, 5])
    assert outside_spread(np.array([12.5, 21, 45, 40]), np.array([10., 20, 30, 40]), std) == .5


@pytest.mark.parametrize(('std', 'problem'), [
    (np.full(50, 15.), None), (np.full(50, 3.), None),
    (np.full(50, .6), 'another scale'), (np.full(50, 150.), 'another scale'),
    (np.full(50, np.nan), 'no standard deviations'), (np.zeros(50), 'no standard deviations')])
def test_std_on_another_scale_is_refused(std, problem):
    found = std_problem(np.linspace(5, 95, 50), std)
    assert (found is None) if problem is None else problem in found


@pytest.mark.parametrize(('mapping', 'curve', 'parameters'), [
    ('linear', np.polyval, None),
    ('4-parameter logistic', logistic4, (90, 5, 50, 9)),
    ('4-parameter logistic', logistic4, (5, 90, 50, 9)),
    ('5-parameter logistic', logistic5, (60, .2, 40, .3, 20)),
    ('5-parameter logistic', logistic5, (-60, .2, 40, -.3, 70))])
@pytest.mark.parametrize('scale', [1, 1e-4, 1e4])
def test_a_mapping_finds_its_own_curve(mapping, curve, parameters, scale):
    x = np.linspace(0, 100, 80)
    y = 3 * x - 7 if parameters is None else curve(x, *parameters)
    assert_allclose(mapped(mapping, x * scale + 5, y), y, atol=.02 * np.ptp(y))


@pytest.mark.parametrize('far', [1e5, -1e5, 1e12])
@pytest.mark.parametrize('mapping', ['4-parameter logistic', '5-parameter logistic'])
def test_a_prediction_that_is_far_off_costs_a_mapping_little(mapping, far):
    rng = np.random.default_rng(0)
    x = rng.normal(0, 1, 100)
    y = logistic4(x, 90, 10, 0, .5) + rng.normal(0, 3, 100)
    alone = plcc(mapped(mapping, x, y), y)
    x = np.append(x, far)
    y = np.append(y, 90 if far > 0 else 10)
    assert plcc(mapped(mapping, x, y), y) > alone - .01


@pytest.mark.parametrize('mapping', ['linear', '4-parameter logistic', '5-parameter logistic'])
def test_a_mapping_fits_no_worse_than_a_line(mapping):
    x, y = simulated(200)
    line = np.polynomial.Polynomial.fit(x, y, 1)(x)
    assert np.sum((mapped(mapping, x, y) - y) ** 2) <= np.sum((line - y) ** 2) * 1.001


def test_a_mapping_says_why_it_fails(monkeypatch):
    x, y = simulated(4)
    with pytest.raises(NoFitError, match='4 images for 4 parameters'):
        mapped('4-parameter logistic', x, y)
    for mapping in ('linear', '4-parameter logistic', '5-parameter logistic'):
        with pytest.raises(NoFitError, match='constant'):
            mapped(mapping, np.ones(10), np.arange(10.))
    monkeypatch.setattr('iqa_results.mapping.MOST_CALLS', 3)
    with pytest.raises(NoFitError, match='did not converge'):
        mapped('4-parameter logistic', *simulated())


def test_williams_and_steiger_against_the_textbook():
    """Steiger (1980): n = 103, r = .4 and .5, .1 between them; T2 = -.89.

    By hand: |R| = 1 - .16 - .25 - .01 + .04 = .62; mean .45;
    t = -.1 sqrt(102 * 1.1 / (2 * 102 / 100 * .62 + .2025 * .729)) = -.8913.
    Z: psi = .1 * .595 - .10125 * (.595 - .01) = .0002688; s = .0002688 / .7975^2 = .0004226;
    (.42365 - .54931) sqrt(100 / (2 - .0008453)) = -.8887.
    """
    t, p = significance.williams(.4, .5, .1, 103)
    assert_allclose([t, p], [-.8913, 2 * stats.t.sf(.8913, 100)], atol=1e-4)
    z, p = significance.steiger(.4, .5, .1, 103)
    assert_allclose([z, p], [-.8887, 2 * stats.norm.sf(.8887)], atol=1e-4)


@pytest.mark.parametrize('test', [significance.williams, significance.steiger])
def test_tests_of_two_correlations_are_symmetric_and_hold_their_level(test):
    assert_allclose(test(.5, .7, .3, 50)[0], -test(.7, .5, .3, 50)[0])
    assert test(.6, .6, .3, 50) == (0, 1)
    assert all(map(math.isnan, test(.6, .6, 1, 50)))  # a model against itself
    rng, rejected = np.random.default_rng(0), 0
    for _ in range(1000):
        y, *noise = rng.normal(size=(3, 80))
        a, b = (y + e for e in noise)
        r = np.corrcoef([y, a, b])
        rejected += test(r[0, 1], r[0, 2], r[1, 2], 80)[1] < .05
    assert 30 <= rejected <= 72


RECORDED = {  # KROCC; PLCC after the 4-parameter logistic; RMSE after a linear refit
    'KonIQ-10k-MAE': (.7310, None, None), 'KonIQ-10k-MSE': (.7321, None, None),
    'KonIQ-10k-Norm-in-Norm': (.7851, None, None), 'CLIVE-MAE': (.5721, .8028, 12.964),
    'CLIVE-MSE': (.5956, .8138, 11.964), 'CLIVE-Norm-in-Norm': (.6409, .8530, 10.719)}


@pytest.mark.parametrize('name', RECORDED)
def test_recorded_predictions(shared, name):
    table = comparison.estimates(read_predictions(shared / f'paper/npy/{name}.npy'), 100)
    krocc, logistic, linear = RECORDED[name]
    assert table['as saved']['KROCC'][0] == pytest.approx(krocc, abs=6e-5)
    if logistic:
        assert table['4-parameter logistic']['PLCC'][0] == pytest.approx(logistic, abs=6e-5)
        assert table['linear']['RMSE'][0] == pytest.approx(linear, abs=6e-4)
        assert 0 < table['linear']['outlier ratio'][0] < .05
    else:
        assert 'outlier ratio' not in table['linear']


def test_recorded_difference_of_two_losses(shared):
    norm, mse = (read_predictions(shared / f'paper/npy/KonIQ-10k-{loss}.npy') for loss in ('Norm-in-Norm', 'MSE'))
    table = comparison.difference(norm, mse, *(comparison.resamples_of(model, 2000) for model in (norm, mse)))
    assert table['SROCC']['difference'] == pytest.approx((.0335, .027, .040), abs=1e-3)
    assert table['SROCC']['difference'][0] == pytest.approx(.0336, abs=5e-5)
    assert table['PLCC']['williams'][1] < 1e-20
    assert table['PLCC']['steiger'][1] < 1e-20
    assert 'williams' not in table['RMSE']


def predictions(n: int = 40, seed: int = 0, names: bool = True) -> Predictions:
    pq, mos = simulated(n, seed)
    return Predictions([f'{i}.png' for i in range(n)] if names else None, mos, np.full(n, 12.), pq)


def write(path, model: Predictions, order=None) -> str:
    lines = [f'{model.names[i]},{model.mos[i]},{model.std[i]},{model.pq[i]}' for i in
             (order if order is not None else range(len(model.mos)))]
    path.write_text('name,mos,std,pq\n' + '\n'.join(lines) + '\n')
    return str(path)


def test_models_are_brought_to_the_same_order(tmp_path):
    model = predictions()
    order = np.random.default_rng(0).permutation(40)
    a, b = (read_predictions(write(tmp_path / name, model, o)) for name, o in (('a.csv', None), ('b.csv', order)))
    both = comparison.aligned({'a': a, 'b': b})
    assert both['b'].names == a.names
    assert_allclose(both['b'].pq, a.pq)


@pytest.mark.parametrize('style', FORMATS)
def test_compare_writes_every_format(tmp_path, capsys, style):
    files = [write(tmp_path / f'{name}.csv', predictions()._replace(pq=predictions(seed=seed).pq + predictions().mos))
             for seed, name in enumerate('ab')]
    compare.main([*files, '--resamples', '100', '--format', style])
    text = capsys.readouterr().out
    for word in ('SROCC', 'outlier ratio', '4-parameter logistic', 'a - b'):
        assert word in text
    compare.main([*files, '--resamples', '100', '--format', style, '--out', str(tmp_path / 'out')])
    assert (tmp_path / 'out').read_text() == text


def test_a_model_of_constant_predictions_is_reported_not_an_exception(tmp_path, capsys):
    compare.main([write(tmp_path / 'a.csv', predictions()._replace(pq=np.full(40, 5.))), '--resamples', '100'])
    text = capsys.readouterr().out
    assert 'constant predictions' in text
    assert 'nan' not in text


def test_models_of_other_images_are_refused(tmp_path, fails):
    a = write(tmp_path / 'a.csv', predictions())
    assert '30 images' in fails(compare.main, a, write(tmp_path / 'b.csv', predictions(30)))
    other = predictions()._replace(names=[f'{i}.jpg' for i in range(40)])
    assert "lacks '0.png'" in fails(compare.main, a, write(tmp_path / 'c.csv', other))
    moved = predictions()._replace(mos=predictions().mos + 1)
    assert 'differ in the MOS of image 1' in fails(compare.main, a, write(tmp_path / 'd.csv', moved))
    assert '2 files' in fails(compare.main, a, a, '--names', 'x')
    assert 'at least 100' in fails(compare.main, a, '--resamples', '5')


def test_compare_needs_no_std(tmp_path, capsys):
    for name in ('a.csv', 'b.csv'):
        rows = '\n'.join(f'{i}.png,{i},{i ** 2 + (name > "b") * (i % 3)}' for i in range(12))
        (tmp_path / name).write_text(f'name,mos,pq\n{rows}\n')
    compare.main([str(tmp_path / 'a.csv'), str(tmp_path / 'b.csv'), '--resamples', '100'])
    assert ': no standard deviations of the ratings' in capsys.readouterr().out


@pytest.mark.parametrize('style', FORMATS)
def test_a_line_break_in_a_cell_does_not_end_its_row(style):
    """As a prompt may have one."""
    plain, broken = (render(['a prompt', 'b'], [[f'a{end}cat', '1'], ['a dog', '2']], style) for end in (' ', '\n'))
    assert len(broken.splitlines()) == len(plain.splitlines())


def test_tables_survive_the_characters_of_names():
    rows = [['a_b & 50%', '1|2, "x"']]
    assert r'a\_b \& 50\%' in render(['name', 'value'], rows, 'latex')
    assert r'1\|2' in render(['name', 'value'], rows, 'markdown')
    assert list(csv.reader(io.StringIO(render(['name', 'value'], rows, 'csv'))))[1] == rows[0]


@given(st.floats(-50, 50), st.floats(1e-3, 40))
def test_the_digits_of_an_interval_lose_a_twentieth_of_its_half_at_most_and_are_no_more_than_needed(middle, half):
    digits = places(middle - half, middle + half)
    assert digits == 4 or .5 * 10. ** -digits <= .0501 * half
    assert digits == 0 or .5 * 10. ** (1 - digits) >= .0499 * half


@pytest.mark.parametrize('ends', [(.5, .5), (np.nan, np.nan), (.4, np.inf), (.6, .4)])
def test_without_an_interval_there_are_four_digits(ends):
    assert places(*ends) == 4
