"""What a run prints of its time and of its criteria."""
import math
import re

import numpy as np
import pytest
import torch
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from mini import MINI

import main
from iqa_results.write import results_table
from iqa_training.record import VAL_CRITERIA, name_printed, value_printed
from iqa_training.run import Clock, duration_in_words
from IQAperformance import IQAPerformance


@given(st.integers(1, 10 ** 6), st.integers(0, 10 ** 6), st.floats(1e-3, 1e4))
def test_a_steady_run_ends_when_it_was_said_to(iterations, before, seconds):
    now = 0.
    clock = Clock(before + 2 * iterations, before, lambda: now)
    assert math.isnan(clock.left(before))
    now = iterations * seconds
    assert clock.left(before + iterations) == pytest.approx(iterations * seconds)
    assert clock.left(before + 2 * iterations) == 0


@pytest.mark.parametrize(('seconds', 'text'), [
    (math.nan, ''), (0, '0 s'), (59.4, '59 s'), (59.6, '1 min'), (3569, '59 min'), (3599, '1 h 00 min'),
    (11100, '3 h 05 min'), (172800, '2 d 0 h'), (187200, '2 d 4 h')])
def test_durations_in_words(seconds, text):
    assert duration_in_words(seconds) == text


def test_epoch_lines_say_what_is_left_and_show_magnitudes(tiny, capsys):
    main.main([*tiny, *SMALL, *MINI, '-e', '3', '--pbar'])
    out, err = capsys.readouterr()
    lines = [line for line in out.splitlines() if line.startswith('Epoch ')]
    assert all(re.search(r'val \|SROCC\| [01]\.\d{4}  best [01]\.\d{4} ', line) for line in lines)
    assert [re.search(r', \d+ (s|min) left$', line) is not None for line in lines] == [True, True, False]
    assert 'run ends in=' in err


@pytest.mark.parametrize('name', VAL_CRITERIA)
def test_criteria_are_printed_as_they_are_compared(name):
    performance = {name + head: -.5 for name in ('SROCC', 'PLCC', 'KROCC') for head in ('', '1', '2')}
    performance |= {f'RMSE{head}': 2. for head in ('', '1', '2')} | {'loss': -1.}
    shown = float(value_printed(name, VAL_CRITERIA[name](performance)))
    assert shown == (-1 if name == 'loss' else 2 if 'RMSE' in name else 1 if '+' in name or 'main' in name else .5)
    assert ('|' in name_printed(name)) == ('OCC' in name or 'LCC' in name)


def test_the_table_shows_magnitudes_and_says_which_scores_fall():
    metric = IQAPerformance('test', (-1., 1.), (0., 0.))
    rng = np.random.default_rng(0)
    mos = torch.tensor(rng.uniform(0, 100, (20, 1)))
    metric.update(((mos, mos + 1), (mos, mos)))
    performance = metric.compute()
    table = results_table(performance, ['both', 'level 6'])
    assert table.splitlines()[0].split() == ['|SROCC|', '|PLCC|', 'RMSE', '|KROCC|']
    assert table.splitlines()[1].split()[1:3] == ['1.0000', '1.0000']
    assert table.endswith('the scores fall as MOS rises: both')
