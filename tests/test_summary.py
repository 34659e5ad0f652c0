"""The summary of a run: what it shows, that it can be made again, and that it never costs a run its results."""
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from mini import MINI
from PIL import Image

import main
from iqa_results.charts import MOST_STEPS, Panel, Scatter, smoothed, svg, thinned
from iqa_results.read import read_predictions
from iqa_training.options import TRAIN

RUN = ['-e', '2', *SMALL, *MINI]


@pytest.fixture
def drawn(monkeypatch):
    """Let runs write their summary, as they do outside these tests."""
    monkeypatch.setitem(TRAIN.defaults, 'summary', None)


def the(pattern: str) -> Path:
    (path,) = Path().glob(pattern)
    return path


def without_charts(text: str) -> str:
    return re.sub('<svg.*?</svg>', '<svg>', text, flags=re.S)


def test_a_run_leaves_a_page_and_a_picture(tiny, drawn, capsys):
    main.main([*tiny, *RUN, '-tdt', '--optimizer', 'sgd'])
    out = capsys.readouterr().out
    page = the('runs/*/summary.html')
    assert f'Summary: {page}' in out
    text = page.read_text()
    assert text.count('<svg') == 4  # loss, correlations, error, scores over MOS
    for what in ('14 train, 5 val, 5 test', 'Finished', '|SROCC|', 'A dashed line', 'python main.py',
                 '--optimizer', 'sgd'):
        assert what in text
    row = re.search(r'<tr><td>test</td>((?:<td>[\d.]+</td>)+)', text)[1]
    printed = re.search(r'^both levels +(.*)$', out, re.M)[1].split()
    for shown, value in zip(re.findall(r'[\d.]+', row), map(float, printed), strict=True):
        digits = len(shown.partition('.')[2])
        assert abs(float(shown) - value) <= .5001 * 10 ** -digits + 5e-5  # with the digits that the interval justifies
    assert 'src="http' not in text
    assert '<td>test, 95 % interval</td>' in text
    assert 'The 5 test images' in text
    results = read_predictions(the('results/*.csv'))
    error = np.abs(results.pq - results.mos)
    listed = re.findall(r'<tr><td>(\d\d\.png)</td><td>', text)
    assert listed == [results.names[i] for i in [*np.argsort(error), *np.argsort(-error)]]
    assert re.search(r'Logged over \d+ \w+\. Made with python \d.*, machine .* processor, \d+ thread', text)
    with Image.open(the('runs/*/curves.png')) as picture:
        assert picture.size[0] > picture.size[1]
    # again, from what is kept; nothing is trained
    before = {path: path.stat().st_mtime_ns for path in Path().glob('checkpoints/*')}
    page.unlink()
    main.main([*tiny, *RUN, '-tdt', '--optimizer', 'sgd', '--summary'])
    assert without_charts(page.read_text()) == without_charts(text)  # a log's scalars are float32
    assert {path: path.stat().st_mtime_ns for path in Path().glob('checkpoints/*')} == before


def test_a_log_as_csv_is_read_too(tiny, drawn):
    main.main([*tiny, *RUN, '--logger', 'csv', '--val_every', '1'])
    text = the('runs/*/summary.html').read_text()
    assert 'A dashed line' not in text  # of iterations
    main.main([*tiny, *RUN, '--val_every', '1', '--summary'])
    assert the('runs/*/summary.html').read_text() == text


def test_a_stopped_run_has_a_summary_too(tiny, drawn, fails):
    assert 'no log of a run with these options' in fails(main.main, *tiny, *RUN, '--summary')
    main.main([*tiny, *RUN, '--no-summary'])
    assert not list(Path().glob('runs/*/summary.html'))
    the('checkpoints/*.pth').unlink()
    main.main([*tiny, *RUN, '--summary'])
    text = the('runs/*/summary.html').read_text()
    assert 'Not finished; none of 2 epochs is saved' in text
    assert text.count('<svg') == 3


def test_a_summary_that_cannot_be_drawn_costs_nothing(tiny, drawn, monkeypatch, capsys):
    def broken(*_, **__):
        raise ValueError('no\nfont')
    monkeypatch.setattr('iqa_training.summary.svg', broken)
    assert main.main([*tiny, *RUN]).srocc
    assert 'WARNING: no summary is written (ValueError: no\\nfont)' in capsys.readouterr().out
    assert the('results/*.json')


def test_names_are_escaped(tiny, drawn):
    main.main([*tiny, *RUN, '--no-summary'])
    options = the('runs/*/options.json')
    options.write_text(options.read_text().replace('"demo"', '"<script>x</script>.csv"'))
    main.main([*tiny, *RUN, '--summary'])
    assert '<script' not in the('runs/*/summary.html').read_text()


def test_two_things_instead_of_training_are_refused(tiny, fails):
    assert 'give one' in fails(main.main, *tiny, *RUN, '--summary', '--evaluate')


# Charts

def test_a_moving_mean_keeps_lines_and_averages_noise():
    line = np.arange(100.)
    np.testing.assert_allclose(smoothed(line)[10:-10], line[10:-10])
    np.testing.assert_allclose(smoothed(np.full(50, 3.)), 3)
    noise = np.random.default_rng(0).normal(size=400)
    assert smoothed(noise).std() < noise.std() / 4


@given(st.integers(1, 3000))
def test_a_thinned_curve_keeps_its_mean_and_is_short(n):
    rng = np.random.default_rng(n)
    x, y = np.arange(n, dtype=float), rng.normal(size=n)
    few_x, few_y = thinned(x, y)
    assert len(few_x) == len(few_y) <= MOST_STEPS
    assert (np.diff(few_x) > 0).all()
    if n <= MOST_STEPS:
        assert few_y is y
    elif n % MOST_STEPS == 0:
        assert few_y.mean() == pytest.approx(y.mean())


@pytest.mark.parametrize('chart', [
    Panel('a < b & "c"', 'epoch', '<y>', {'<script>': ([1, 2], [.5, float('nan')]), 'b': ([1], [2])}, mark=1),
    Scatter(np.array([1., 2., 3.]), np.array([1., 1., 1.]), '<t>'), Scatter(np.array([5.]), np.array([5.]))])
def test_a_chart_is_an_element_without_colours_of_its_own(chart):
    text = svg(chart)
    ET.fromstring(text)
    assert '<script>' not in text
    assert set(re.findall(r'#[0-9a-f]{6}\b', text)) <= {'#ffffff'}
    assert 'var(--c0072b2)' in text
