"""Several data sets in one training: batches, losses, lines, criteria and results of each set; what is refused."""
import json
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from conftest import SMALL
from hypothesis import given, settings
from hypothesis import strategies as st
from mini import MINI, stop_at
from several import make_set

import IQAmodel
import main
import test_dataset
import test_demo
from iqa_data.datasets import dataset_name, sets_of
from iqa_data.samplers import Mixed, shares_of
from iqa_data.several import PerSet, Together
from iqa_data.target import Target
from iqa_runtime.checkpoint import load_checkpoint, save_checkpoint
from iqa_runtime.errors import UserError
from iqa_runtime.labels import Labels
from iqa_studies import check, honesty
from iqa_studies.plan import plan
from iqa_studies.study_file import read_study
from iqa_training.naming import run_name
from iqa_training.options import TRAIN
from IQAdataset import IQADataset, get_data_loaders
from IQAloss import LOSSES, IQALoss

WORDS = ['--dataset', 'A.csv', 'B.csv', *SMALL, *MINI, '-e', '2', '-bs', '6', '--data_weights', '2', '1', '-optl', 'O0',
         '-lr', '.001']


@pytest.fixture
def two(tmp_path, monkeypatch, one_thread) -> None:
    """A.csv of MOS in 0..100 and B.csv of MOS in 1..5, in a fresh working directory."""
    monkeypatch.chdir(tmp_path)
    make_set('A', 1, 0, 100)
    make_set('B', 2, 1, 5, 14)


def results(folder: str = 'results') -> dict[str, dict]:
    """Return the content of each NAME.json, by the name of the tested set."""
    found = [json.loads(path.read_text()) for path in Path(folder).glob('*.json')]
    return {content['dataset']: content for content in found}


# Batches

@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 30), st.integers(1, 7)), min_size=2, max_size=4), st.integers(0, 2 ** 31))
def test_a_batch_holds_its_share_of_each_set_and_an_epoch_each_image(sets, seed):
    counts, shares = zip(*((count + share, share) for count, share in sets), strict=True)
    torch.manual_seed(seed)
    sampler = Mixed(counts, shares)
    starts = np.cumsum([0, *counts])
    epochs = [list(sampler) for _ in range(2)]
    for batches in epochs:
        longest = max(math.ceil(count / share) for count, share in zip(counts, shares, strict=True))
        assert len(batches) == len(sampler) == longest
        for batch in batches:
            of_set = np.searchsorted(starts, batch, 'right') - 1
            assert of_set.tolist() == [i for i, share in enumerate(shares) for _ in range(share)]
        seen = Counter(row for batch in batches for row in batch)
        assert set(seen) == set(range(starts[-1]))
        for i in range(len(counts)):  # in turns: no image a second time more often than another
            times = [seen[row] for row in range(starts[i], starts[i + 1])]
            assert max(times) - min(times) <= 1
    torch.manual_seed(seed)
    again = Mixed(counts, shares)
    assert list(again) == epochs[0]
    torch.rand(5)  # other random numbers change nothing
    assert list(again) == epochs[1]


@given(st.integers(1, 200), st.lists(st.floats(.01, 100), min_size=1, max_size=5))
def test_shares_add_up_to_the_batch_and_are_the_nearest(batch_size, weights):
    shares = shares_of(batch_size, weights)
    assert sum(shares) == batch_size
    assert all(abs(share - batch_size * weight / sum(weights)) < 1 for share, weight in zip(shares, weights,
                                                                                            strict=True))


def test_batches_of_sets_together_are_those_of_each():
    pixels = [np.full((2, 3, 3), value, np.uint8) for value in range(7)]
    sets = [IQADataset([(i,) for i in rows], np.array(rows) * scale, np.ones(len(rows)), pixels.__getitem__)
            for rows, scale in ((range(4), 1), (range(4, 7), 10))]
    (image,), labels = Together(sets).batch([3, 0, 6])
    mos, std, place = labels.mos, labels.std, labels.more['set']
    assert image[:, 0, 0, 0].tolist() == [3, 0, 6]
    assert image.is_contiguous(memory_format=torch.channels_last)
    assert mos.flatten().tolist() == [3, 0, 60]
    assert place.flatten().tolist() == [0, 0, 1]
    assert std.shape == mos.shape == place.shape == (3, 1)


# The loss

@pytest.mark.parametrize('loss', [name for name, row in LOSSES.items() if name != 'macs'
                                  and set(row.needs()) <= {'y_pred', 'y', 'std', 'interval'}] + ['mse+plcc:.5'])
def test_the_loss_is_the_mean_of_each_sets_own_weighted_by_its_images(loss):
    generator = torch.Generator().manual_seed(0)
    heads = [torch.randn(9, 1, generator=generator, requires_grad=True)]
    mos, place = torch.rand(9, 1, generator=generator), torch.tensor([0, 0, 1, 0, 1, 0, 0, 0, 1.])[:, None]
    targets = [Target(), Target(2, -3)]
    alone = IQALoss(loss, beta=[1])
    labels = Labels(mos, mos / 5, {'interval': mos / 9, 'set': place})
    first, second = (place[:, 0] == i for i in (0, 1))
    own = Labels(mos[first], mos[first] / 5, {'interval': mos[first] / 9})
    other = Labels((mos[second] - 2) / -3, mos[second] / 15, {'interval': mos[second] / 27})
    expected = (6 * alone([heads[0][first]], own) + 3 * alone([heads[0][second]], other)) / 9
    found = PerSet(alone, targets)
    total = found(heads, labels)
    torch.testing.assert_close(total, expected)
    torch.testing.assert_close(torch.autograd.grad(total, heads), torch.autograd.grad(expected, heads))
    if '+' in loss:
        assert total.item() == pytest.approx((found.parts['mse'] + .5 * found.parts['plcc']).item())


# Names

def test_several_sets_are_one_option():
    assert sets_of('KonIQ-10k+x/c++.csv+d.TSV+CLIVE') == ['KonIQ-10k', 'x/c++.csv', 'd.TSV', 'CLIVE']
    assert sets_of('x/demo+y.csv') == ['x/demo+y.csv']
    assert dataset_name('KonIQ-10k+x/c++.csv') == 'KonIQ-10k+c++'
    words = ['--dataset', 'koniq-10k', 'CLIVE']
    assert TRAIN.parse(words).dataset == TRAIN.parse(['-ds', 'KonIQ-10k+clive']).dataset == 'KonIQ-10k+CLIVE'
    assert TRAIN.options(dataset=['KonIQ-10k', 'CLIVE']).of_training() == TRAIN.parse(words).of_training()


def test_a_run_on_one_set_keeps_its_name(two):
    names = [run_name(TRAIN.parse(['-arch', 'resnet18', *words])) for words in (['-ds', 'A.csv'], ['-ds', 'CLIVE',
                                                                                               '-bs', '4'])]
    assert names == ['resnet18-norm-in-norm-A-54a893f9', 'resnet18-norm-in-norm-CLIVE-bs4-09abbf3a']


# Runs

def test_a_run_on_two_scales_learns_both_and_reports_each_as_its_own_test_does(two, capsys):
    performances = main.main([*WORDS, '-e', '6', '-lr', '.003'])
    out = capsys.readouterr().out
    assert 'A batch of 6 holds 4 of A, 2 of B; an epoch is 4 batches' in out
    assert set(performances) == {'A', 'B'}
    (file,) = Path('checkpoints').glob('*.pth')
    checkpoint, found = load_checkpoint(file), results()
    assert all(one['metrics']['train']['SROCC'] > .5 for one in checkpoint['sets'].values())
    assert performances['A'].pq.mean() > 10 > 6 > performances['B'].pq.mean()  # each on its own scale
    assert checkpoint['sets']['B']['mos']['max'] <= 5 < checkpoint['mos']['max']
    for name, performance in test_dataset.main(['--trained_model_file', str(file), '--device', 'cpu', '--no-pbar',
                                                '--result_dir', 'again']).items():
        assert performance.criteria == performances[name].criteria == found[name]['metrics']
        alone = test_dataset.main(['--trained_model_file', str(file), '--dataset', f'{name}.csv', '--device', 'cpu',
                                   '--no-pbar', '--result_dir', 'alone'])
        assert alone.criteria == performance.criteria
        assert checkpoint['sets'][name]['metrics']['test'] == performance.criteria
        assert found[name]['k'] == checkpoint['sets'][name]['k']
        assert found[name]['trained_on'] == 'A+B'
    assert {path.name for path in Path('results').iterdir()} == {path.name for path in Path('again').iterdir()}
    check.main(['results'])  # every number follows from the predictions, and no content is trained and tested on
    assert 'WRONG' not in capsys.readouterr().out
    card = file.with_suffix('.md').read_text()
    assert '| `A` test |' in card
    assert '| `B` test |' in card


def test_the_epoch_is_chosen_by_the_mean_over_sets(two):
    main.main([*WORDS, '--logger', 'csv', '-e', '3', '--val_criterion', 'PLCC'])
    (log,) = Path('runs').glob('*/scalars.csv')
    scalars = pd.read_csv(log)
    value = {name: scalars[scalars.tag == f'val/{name}/PLCC'].value.abs().to_numpy() for name in 'AB'}
    (file,) = Path('checkpoints').glob('*.pth')
    assert load_checkpoint(file)['epoch'] == 1 + int(np.argmax((value['A'] + value['B']) / 2))


def test_a_stopped_run_ends_as_one_that_was_not(two, monkeypatch):
    whole = main.main([*WORDS, '--result_dir', 'whole', '--checkpoint_dir', 'whole'])
    stop_at(monkeypatch, 2, 7)
    for _ in range(2):
        with pytest.raises(SystemExit):
            main.main([*WORDS, '--resume', 'auto'])
    resumed = main.main([*WORDS, '--resume', 'auto'])
    for name in 'AB':
        assert resumed[name].pq.tolist() == whole[name].pq.tolist()


def test_features_computed_once_train_as_their_images_do(two):
    words = [*WORDS, '--freeze', 'features', '--augmentation', 'hflip', '--fixed_augmentations', '2']
    found = {how: main.main([*words, '--features', how, '--checkpoint_dir', how]) for how in ('computed', 'cached')}
    for name in 'AB':
        np.testing.assert_allclose(found['cached'][name].pq, found['computed'][name].pq, rtol=1e-4)


def test_scores_that_fall_with_quality_are_learned_beside_those_that_rise(two):
    make_set('D', 3, 0, 10, lower_is_better=True)
    data = get_data_loaders(TRAIN.parse(['--dataset', 'A.csv', 'D.csv', *WORDS[3:]]))
    assert [one.target for one in data.sets] == [Target(), Target(0, -1)]
    assert [one.target for one in get_data_loaders(TRAIN.parse(WORDS)).sets] == [Target(), Target()]
    performances = main.main(['--dataset', 'A.csv', 'D.csv', *WORDS[3:]])
    (file,) = Path('checkpoints').glob('*.pth')
    slopes = {name: one['k'][0] for name, one in load_checkpoint(file)['sets'].items()}
    assert slopes['A'] > 0 > slopes['D']
    assert performances['D'].srocc > .5


def test_other_images_get_a_line_that_is_named(two, capsys):
    main.main(WORDS)
    (file,) = Path('checkpoints').glob('*.pth')
    make_set('C', 4, 1, 5)
    words = ['--trained_model_file', str(file), '--device', 'cpu', '--no-pbar']
    capsys.readouterr()
    first = test_dataset.main([*words, '--dataset', 'C.csv'])
    assert 'has a line to MOS for each of A, B: that of A is used (--line_of names another)' in capsys.readouterr().err
    second = test_dataset.main([*words, '--dataset', 'C.csv', '--line_of', 'B'])
    assert capsys.readouterr().err == ''
    sets = load_checkpoint(file)['sets']
    assert (first.k, second.k) == (sets['A']['k'], sets['B']['k'])
    score = test_demo.main([*words, '--img', 'C/00.png', '--line_of', 'B'])
    assert score == pytest.approx(IQAmodel.load(file, line_of='B').score('C/00.png'))
    assert score == pytest.approx(second.pq[0], abs=1e-4)
    assert IQAmodel.load(file).score('C/00.png') == pytest.approx(first.pq[0], abs=1e-3)
    with pytest.raises(UserError, match="unknown data set 'C'.* expected one of: A, B"):
        IQAmodel.load(file, line_of='C')


def test_a_study_trains_on_each_set_and_on_both(two):
    Path('study.yaml').write_text(yaml.safe_dump({
        'settings': {'mini': {'architecture': 'mini'}}, 'splits': {'repeats': 1},
        'options': '--weights none -e 1 -bs 8 --device cpu --num_workers 0 --cache none -optl O0 --no-summary',
        'dataset': ['A.csv', {'dataset': 'A.csv+B.csv', 'data_weights': [3, 1]}]}))
    made = plan(read_study('study.yaml'), Path('study'))
    assert [(cell.trained_on, list(cell.results)) for cell in made.cells] == [('A', ['A']), ('A+B', ['A', 'B'])]
    main.main(made.jobs()[1].commands[0][2:])
    found = made.cells[1].outcomes()
    assert [(outcome.trained_on, outcome.tested_on) for outcome in found] == [('A+B', 'A'), ('A+B', 'B')]
    assert len(made.jobs()) == 1
    assert made.splits['A+B', '0'].endswith(found[0].split_hash)
    assert [honesty.check_outcome(outcome) for outcome in found] == [([], []), ([], [])]


# Mistakes

@pytest.mark.parametrize(('words', 'message'), [
    (['--dataset', 'A.csv', 'x/A.csv'], '--dataset A.csv x/A.csv: two data sets are called A'),
    (['--dataset', 'A.csv', '--data_weights', '1', '2'], '--data_weights 1 2 needs several data sets'),
    (['--dataset', 'A.csv', 'B.csv', '--data_weights', '1', '2', '3'], 'expected 2 weights, one of each'),
    (['--dataset', 'A.csv', 'B.csv', '--data_weights', '1', '0'], '0 is out of range: above 0'),
    (['--dataset', 'A.csv', 'B.csv', '--data_info', 'A.csv'], '--data_info A.csv is of one data set'),
    (['--dataset', 'A.csv', 'B.csv', '--probe', 'ridge', '--ft_lr_ratio', '0'], '--probe ridge is of one data set'),
    (['--dataset', 'A.csv', 'B.csv', '--split_file', 'A.csv'], '--split_file A.csv is of one data set'),
    (['--dataset', 'A.csv', 'B.csv', '-bs', '40'], 'A has 12 training images, fewer than the 20'),
    (['--dataset', 'A.csv', 'B.csv', '--data_weights', '99', '1'], '--batch_size 8 leaves no image of B in a batch'),
    (['--dataset', 'A.csv+C.csv'], 'C.csv: no such file')])
def test_mistakes_are_one_line(two, fails, words, message):
    Path('x').mkdir()
    Path('x/A.csv').write_bytes(Path('A.csv').read_bytes())
    assert message in fails(main.main, *words, *SMALL, *MINI)


@pytest.mark.parametrize('how', ['name', 'bytes', 'reference'])
@pytest.mark.parametrize('part', ['val', 'test'])
def test_a_content_that_another_set_is_tested_with_is_an_error(two, fails, how, part):
    parts = ['train'] * 10 + ['val'] * 5 + ['test'] * 5
    make_set('A', 1, 0, 100, part=parts, content=[f'a{i}' for i in range(20)])
    make_set('B', 2, 1, 5, part=parts, content=[f'b{i}' for i in range(20)])
    WORDS_OF_B = ['--dataset', 'A.csv', 'B.csv', *WORDS[3:]]
    assert len(get_data_loaders(TRAIN.parse(WORDS_OF_B)).names[part]) == 10
    row = parts.index(part)
    table = pd.read_csv('B.csv')
    if how == 'name':
        table.loc[row, 'content'] = 'a3'
    elif how == 'bytes':
        Path(f'B/{row:02d}.png').write_bytes(Path('A/03.png').read_bytes())
    else:
        other = pd.read_csv('A.csv')
        for one, name in ((table, 'B'), (other, 'A')):
            Path(f'{name}-ref.png').write_bytes(Path('A/00.png').read_bytes())
            one['reference'] = [f'{name}-ref.png' if i in (3, row) else '' for i in range(20)]
        other.loc[row, 'reference'] = ''
        table.loc[3, 'reference'] = ''
        other.to_csv('A.csv', index=False)
    table.to_csv('B.csv', index=False)
    message = fails(main.main, *WORDS_OF_B)
    assert 'contents are in the train part of A and in the val or test part of B' in message


def test_numbers_name_contents_of_their_own_set(two):
    parts = ['train'] * 10 + ['val'] * 5 + ['test'] * 5
    for name, seed in (('A', 1), ('B', 2)):
        make_set(name, seed, 0, 1, part=parts, content=range(20) if name == 'A' else range(20, 0, -1))
    assert get_data_loaders(TRAIN.parse(WORDS)).names


@pytest.mark.parametrize(('key', 'value'), [
    ('sets', {'A': {}}), ('sets', {'A': {'k': [1.], 'b': [0.]}}), ('sets', 'A'),
    ('sets', {'A': {'k': [1.], 'b': [0.]}, 'B': {'k': [1., 2.], 'b': [0.]}}),
    ('sets', {'A': {'k': [1.], 'b': [0.]}, 'B': {'k': [1., 2.], 'b': [0., 0.]}}),
    ('sets', {'A': {'k': [1.], 'b': [0.]}, 'B': {'k': ['x'], 'b': [0.]}})])
def test_a_checkpoint_says_lines_of_its_network_for_several_sets(tmp_path, key, value):
    save_checkpoint(tmp_path / 'x.pth', {'model': {}, 'k': [1.], 'b': [0.], key: value})
    with pytest.raises(UserError, match='x.pth: sets: '):
        load_checkpoint(tmp_path / 'x.pth')
