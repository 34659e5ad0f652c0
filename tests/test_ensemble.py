"""The ensemble: fences by definition, recorded means, tables of both kinds, images that some tables lack."""

import numpy as np
import pandas as pd
import pytest
from golden import cases, recorded
from hypothesis import given
from hypothesis import strategies as st

from iqa_scoring import ensemble
from iqa_scoring.ensemble import HOW, iqr_mean

NUMBERS = st.floats(0, 10).map(lambda x: round(x, 3))


def plain(values):
    """The mean inside the fences, with quartiles interpolated by hand."""
    ordered, quartiles = sorted(values), []
    for share in (.25, .75):
        place = share * (len(ordered) - 1)
        low = int(place)
        high = min(low + 1, len(ordered) - 1)
        quartiles.append(ordered[low] + (place - low) * (ordered[high] - ordered[low]))
    reach = 1.5 * (quartiles[1] - quartiles[0])
    fences = quartiles[0] - reach, quartiles[1] + reach
    kept = [x for x in values if fences[0] < x < fences[1]] or [x for x in values if fences[0] <= x <= fences[1]]
    return sum(kept) / len(kept)


@given(st.lists(NUMBERS, min_size=1, max_size=20))
def test_the_mean_inside_the_fences(values):
    mean = iqr_mean(values)
    assert min(values) - 1e-9 <= mean <= max(values) + 1e-9
    assert mean == pytest.approx(iqr_mean(values[::-1]), abs=1e-9)
    if len(set(values)) == 1:
        assert mean == pytest.approx(values[0])


@given(st.lists(st.integers(0, 12), min_size=1, max_size=20))
def test_against_the_definition(values):
    assert iqr_mean(values) == pytest.approx(plain(values), abs=1e-9)


def test_worked_examples():
    values = [5.10, 5.20, 5.15, 5.05, 5.25, 5.30, 5.18, 5.22, 5.12, 5.08, 5.17, 5.21, 5.19, 6.50, 3.90]
    assert iqr_mean(values) == pytest.approx(5.170769230769, abs=1e-12)
    assert iqr_mean([1, 2, 3, 4, 7]) == 2.5  # 7 lies on the fence
    assert iqr_mean([5] * 14 + [6]) == 5
    for nothing in ([], [1, float('nan')], [float('inf')]):
        with pytest.raises(ValueError, match='expected finite numbers'):
            iqr_mean(nothing)


def test_recorded_means(shared):
    for case in cases(recorded(shared, 'maniqa'), 'iqr'):
        assert iqr_mean(case['values']) == pytest.approx(case['sensible'], abs=1e-12)
        assert np.mean(case['values']) == pytest.approx(case['mean'], abs=1e-12)


@pytest.fixture
def tables(tmp_path, monkeypatch):
    """Six tables of the challenge, a.csv to f.csv, the last with an outlier; a function that writes others."""
    monkeypatch.chdir(tmp_path)

    def write(name, names, values, columns=('img_name', 'mos')):
        frame = {columns[0]: names, columns[1]: values}
        if columns[1] == 'mos':
            frame['comments'] = 'Nice, image'
        pd.DataFrame(frame).to_csv(name, index=False)
        return name
    rng = np.random.RandomState(0)
    names = ['x', 'y', 'a']
    files = [write(f'{letter}.csv', names, rng.uniform(-.1, .1, 3) + np.array([5, 6, 7])) for letter in 'abcde']
    return [*files, write('f.csv', names, [5, 9.5, 7])], write


SIX_DIGITS = 6e-6  # of a table: rounding moves a value by half of the last at most


@pytest.mark.parametrize('how', HOW)
def test_tables_of_the_challenge(tables, how, capsys):
    files, _ = tables
    ensemble.main([*files, '--how', how])
    made = pd.read_csv('final.csv', keep_default_na=False)
    assert list(made) == ['img_name', 'mos', 'comments']
    assert made['img_name'].tolist() == ['x', 'y', 'a']
    assert made['comments'].tolist() == [''] * 3
    values = np.stack([pd.read_csv(file)['mos'] for file in files], 1)
    expected = [{'iqr': plain, 'mean': np.mean, 'median': np.median}[how](row) for row in values]
    np.testing.assert_allclose(made['mos'], expected, rtol=SIX_DIGITS)
    out = capsys.readouterr().out
    assert out.startswith(f'6 tables, 3 images, --how {how}: final.csv\n')
    assert ('Outside the fences: ' in out) == (how == 'iqr')
    assert ('f 1' in out) == (how == 'iqr')


def test_our_own_tables_in_any_order_of_their_images(tables):
    _, write = tables
    files = [write('own.csv', ['b/1.png', 'b/2.png'], [20, 40], ('name', 'score')),
             write('results.csv', ['b/2.png', 'b/1.png'], [50, 30], ('name', 'pq'))]
    assert ensemble.main([*files, '--out', 'own-final.csv']).tolist() == [25, 45]
    assert pd.read_csv('own-final.csv').to_dict('list') == {'name': ['b/1.png', 'b/2.png'], 'score': [25, 45]}


def test_images_that_a_table_lacks(tables, fails):
    files, write = tables
    write('b.csv', ['y', 'z'], [6, 1])
    assert 'a.csv: lacks 1 of 4 images, as z (--partial' in fails(ensemble.main, *files)
    assert len(ensemble.main([*files, '--partial'])) == 4
    assert ensemble.main([*files, '--partial'])[3] == 1


@pytest.mark.parametrize(('content', 'message'), [
    ('img_name,quality\nx,1\n', 'not a table of predictions: it has the columns img_name, quality; expected img_name'),
    ('img_name,mos\n', 'it holds no images'),
    ('img_name,mos\nx,good\n', "row 2: the mos 'good' is not a finite number"),
    ('img_name,mos\nx,nan\n', "row 2: the mos 'nan' is not a finite number"),
    ('img_name,mos\nx,1\nx,2\n', 'row 3: x again, first in row 2'),
    ('', 'not a table of predictions: it has the columns none'),
])
def test_tables_with_mistakes(tables, fails, tmp_path, content, message):
    files, _ = tables
    (tmp_path / 'bad.csv').write_text(content)
    error = fails(ensemble.main, *files, 'bad.csv')
    assert 'bad.csv' in error
    assert message in error


def test_the_command_from_anywhere(tables, fails, script):
    files, _ = tables
    assert script('iqa_scoring/ensemble.py', *files, '--out', 'out/made.csv', folder='.') == 0
    assert pd.read_csv('out/made.csv').shape == (3, 3)
    assert 'gone.csv: no such file' in fails(ensemble.main, 'gone.csv')
    assert 'iqr, mean, median' in fails(ensemble.main, 'a.csv', '--how', 'mode').replace("'", '')
