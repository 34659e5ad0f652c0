"""The MANIQA ensemble as a study: its commands, and what folds, sizes and the outlier rule add."""
import shlex
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import make_tiny
from scipy import stats

from iqa_scoring.ensemble import iqr_mean
from iqa_studies.cells import Cell
from iqa_studies.gains import held_out, out_of_fold, rows
from iqa_studies.steps import Step
from results_in_the_paper import reproduce

WORDS = '''--dataset tiny/info.mat --im_dir tiny/images -arch maniqa_tiny --weights none --target 0 100 --device cpu
--no-pbar --num_workers 0 -bs 8 -e 1 -lr 1e-3 --first_cycle_steps 20 --warmup_steps 2'''
GIVEN = WORDS.split()


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A fresh working directory with a tiny data set."""
    make_tiny(tmp_path / 'tiny')
    monkeypatch.chdir(tmp_path)


def test_the_commands(here, capsys):
    words = ['maniqa_ensemble', '--dry_run', '--sizes', '384', '64', '--folds', '2', '--predict', 'new', '--held_out',
             'other.csv', *GIVEN]
    assert reproduce.main(words) == 0
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    scripts = [Path(line[1]).name for line in lines]
    assert scripts == ['main.py', 'test_dataset.py'] * 4 + ['test_demo.py'] * 4 + ['ensemble.py']
    assert [[line[line.index(word) + 1] for word in ('--folds', '--fold')] for line in lines[:8:2]] == [
        ['2', fold] for fold in '0101']
    assert [('--img_size' in line, line[line.index('--recipe') + 1]) for line in lines[:8:2]] == [
        (False, 'maniqa_384'), (False, 'maniqa_384'), (True, 'maniqa_384'), (True, 'maniqa_384')]
    tables = [line[line.index('--csv') + 1] for line in lines[8:12]]
    assert [Path(table).name for table in tables] == ['384_fold0.csv', '384_fold1.csv', '64_fold0.csv', '64_fold1.csv']
    assert lines[12][2:] == [*tables, '--out', 'results/result_csv/final.csv']
    assert reproduce.main(['maniqa_ensemble', '--dry_run', '--dataset', 'tiny/info.mat']) == 0
    assert len(capsys.readouterr().out.splitlines()) == 15


def test_options_that_the_system_chooses(here, fails):
    error = fails(reproduce.main, 'maniqa_ensemble', *GIVEN, '--fold', '1')
    assert '--fold: maniqa_ensemble varies it by itself' in error


def test_what_each_level_adds():
    rng = np.random.RandomState(0)
    mos = rng.uniform(0, 10, 60)
    few = [mos + rng.normal(0, 3, 60) for _ in range(4)]
    table = rows('x', [('one', few), ('mean', [np.mean(few, 0)])], mos)
    assert [(row.label, row.measure) for row in table] == [
        (f'x, {name}', metric) for metric in ('SROCC', 'PLCC') for name in ('one', 'mean', 'mean, adds')]
    for metric, criterion in (('SROCC', stats.spearmanr), ('PLCC', stats.pearsonr)):
        one, mean, gain = (row for row in table if row.measure == metric)
        assert one.ours == pytest.approx(np.mean([criterion(values, mos)[0] for values in few]))
        assert mean.ours == pytest.approx(criterion(np.mean(few, 0), mos)[0])
        assert gain.ours == pytest.approx(mean.ours - one.ours)
        for row in (one, mean, gain):
            assert row.interval[0] < row.ours < row.interval[1]
        assert gain.interval[0] > 0  # the noise of four networks is averaged
        assert gain.interval[1] - gain.interval[0] < mean.interval[1] - mean.interval[0] + one.interval[1]


def step(folder: Path, name: str, images: list[str], mos: np.ndarray, pq: np.ndarray) -> Step:
    pd.DataFrame({'name': images, 'mos': mos, 'std': 1., 'pq': pq}).to_csv(folder / f'{name}.csv', index=False)
    (folder / f'{name}.json').write_text('{"metrics": {}}')
    return Step(('main.py',), folder / f'{name}.json')


def test_out_of_fold_and_held_out(tmp_path):
    rng = np.random.RandomState(1)
    mos, names = rng.uniform(0, 10, 30), [f'{i}.png' for i in range(30)]
    noisy = {(size, fold): mos + rng.normal(0, 2, 30) for size in (64, 128) for fold in range(2)}
    cells = []
    for (size, fold), values in noisy.items():
        of_fold = np.arange(fold, 30, 2) if size == 64 else np.arange(29 - fold, -1, -2)  # in any order
        run = step(tmp_path, f'{size}{fold}', [names[i] for i in of_fold], mos[of_fold], values[of_fold])
        cells.append(Cell(f'{size}', f'{fold}', 0, 'own', run, {'other': step(
            tmp_path, f'{size}{fold}-all', names, mos, values)}, True, {}, tmp_path))
    plcc = {row.label: row.ours for row in out_of_fold(cells, 'iqr') if row.measure == 'PLCC'}
    joined = {64: np.where(np.arange(30) % 2, noisy[64, 1], noisy[64, 0]),
              128: np.where(np.arange(30) % 2, noisy[128, 0], noisy[128, 1])}
    expected = [np.mean([np.corrcoef(values, mos)[0, 1] for values in joined.values()]),
                np.corrcoef(sum(joined.values()), mos)[0, 1]]
    assert [plcc['out of fold, one setting'], plcc['out of fold, settings averaged']] == pytest.approx(expected)
    plcc = {row.label: row.ours for row in held_out(cells, 'other', 'iqr') if row.measure == 'PLCC'}
    everything = np.stack(list(noisy.values()), 1)
    kept = [iqr_mean(row) for row in everything]
    assert plcc['held out (other), one network'] == pytest.approx(
        np.mean([np.corrcoef(values, mos)[0, 1] for values in noisy.values()]))
    assert plcc['held out (other), without outliers'] == pytest.approx(np.corrcoef(kept, mos)[0, 1])
    (tmp_path / '641.json').unlink()
    assert out_of_fold(cells, 'iqr') == []


@pytest.mark.slow
def test_the_chain(here, capsys):
    (Path('new')).symlink_to('tiny/images')
    words = ['maniqa_ensemble', '--sizes', '64', '128', '--folds', '2', *GIVEN, '--predict', 'new', '--held_out',
             'tiny/info.mat']
    assert reproduce.main(words) == 0, capsys.readouterr().out[-3000:]
    out = capsys.readouterr().out
    assert 'maniqa_ensemble, 64, split 1 SROCC' in out
    assert 'out of fold, without outliers, adds PLCC' in out
    assert 'held out (info), splits averaged, adds SROCC' in out
    assert len(pd.read_csv('results/result_csv/final.csv')) == 24
    assert reproduce.main(words) == 0
    assert capsys.readouterr().out.startswith('13 of 13 runs are done')
