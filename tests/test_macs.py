"""ASNA's loss, its penalty, its optimizer, and the ranker's training."""
import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
import scipy.stats
import torch
from golden import cases, filling, pairs, recorded
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.testing import assert_close

from iqa_losses.soft_ranks import exact_ranks
from iqa_networks.ranker import Ranker, load_ranker
from iqa_runtime.checkpoint import write_tensors
from iqa_runtime.errors import UserError
from iqa_training import ranking
from iqa_training.optimizers import l2_penalty, weight_decays
from iqa_training.ranking import RankerPlan, Training, correlations, numbers_to_rank, rank_correlation
from iqa_training.train_ranker import main as train_ranker
from iqa_training.updates import KerasAdam
from IQAloss import IQALoss, macs_loss
from IQAmodel import create_model
from main import main

pytestmark = pytest.mark.usefixtures('one_thread')
TINY = RankerPlan(size=4, rows=200, epochs=3, batch_size=32, decay_every=2)
GOES_ON = SimpleNamespace(signal=None)


def words(line: str) -> list[str]:
    return line.split()


def column(*values: float) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)[:, None]


# The loss

@pytest.mark.parametrize(('prediction', 'm', 's', 'expected'), [
    (lambda y: .5 * y + 1, .1, .1, .63125), (lambda y: -y, .1, .1, 17.), (lambda y: -y, .5, .1, 51.),
    (lambda y: -y, 1, .01, 85.85), (lambda y: y[[1, 0, *range(2, 16)]], .1, .1, .030286332),
    (lambda y: y[[1, 0, *range(2, 16)]], .5, .1, .077936851)])
def test_worked_values_with_exact_ranks(prediction, m, s, expected):
    y = torch.arange(16, dtype=torch.float64)[:, None] - 7.5
    assert macs_loss(prediction(y), y, exact_ranks, m, s).item() == pytest.approx(expected, abs=1e-8)


def test_the_rank_term_is_the_mean_over_groups_and_leaves_out_a_remainder():
    ranker, y, x = Ranker(5).double().eval(), torch.randn(13, 1).double(), torch.randn(13, 1).double()
    without = macs_loss(x, y, ranker, .5, 0)
    groups = [(ranker(x[i:i + 5].T) - ranker(y[i:i + 5].T)).square().mean() for i in (0, 5)]
    assert_close(macs_loss(x, y, ranker, .5, .3), without + .3 * sum(groups) / 2)
    assert_close(macs_loss(x[:4], y[:4], ranker, .5, .3), macs_loss(x[:4], y[:4], None, .5, 0))


@pytest.mark.parametrize('value', [0., .1, 1e4])
@pytest.mark.parametrize('n', [1, 16])
def test_equal_predictions_have_no_correlation_and_a_finite_gradient(value, n):
    x, y = torch.full((n, 1), value, requires_grad=True), torch.randn(n, 1)
    loss = macs_loss(x, y, None, .25, 0)
    loss.backward()
    assert_close(loss, .25 * (value - y).square().mean() + .75)
    assert_close(x.grad, .25 * 2 * (value - y) / n)


def test_equal_scores_have_no_correlation():
    x = torch.randn(16, 1, requires_grad=True)
    loss = macs_loss(x, torch.zeros(16, 1), None, 0, 0)
    loss.backward()
    assert loss.item() == 1
    assert not x.grad.any()


def test_the_sign_of_the_correlation_is_not_seen():
    x, y = torch.randn(9, 1).double(), torch.randn(9, 1).double()
    r = np.corrcoef(x[:, 0], y[:, 0])[0, 1]
    for sign in (1, -1):
        assert macs_loss(sign * x, y, None, 0, 0).item() == pytest.approx(1 - r ** 2)


def test_the_ranker_is_frozen_and_left_as_it_was():
    ranker, x, y = Ranker(4), torch.randn(8, 1, requires_grad=True), torch.randn(8, 1)
    before = {name: tensor.clone() for name, tensor in ranker.state_dict().items()}
    macs_loss(x, y, ranker, .5, 1).backward()
    assert ranker.training
    assert all(parameter.grad is None for parameter in ranker.parameters())
    assert all(torch.equal(tensor, before[name]) for name, tensor in ranker.state_dict().items())
    alone = macs_loss(x[:4], y[:4], ranker.eval(), .5, 1)
    assert not ranker.training
    assert_close(alone, macs_loss(x[:4], y[:4], ranker.train(), .5, 1))  # batch statistics have no part


def test_gradient_of_the_whole_loss():
    ranker = Ranker(4).double().eval()
    x, y = torch.randn(9, 1, dtype=torch.float64, requires_grad=True), torch.randn(9, 1, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: macs_loss(x, y, ranker, .4, .2), (x,))


def test_arguments_of_the_loss():
    x, y = torch.randn(16, 1), torch.randn(16, 1)
    loss = IQALoss('macs', beta=(1,), ranker=(ranker := Ranker().eval()), mse_factor=.2, spearman_factor=.3,
                   penalty=lambda: torch.tensor(7.))
    assert_close(loss([x], (y, y)), macs_loss(x, y, ranker, .2, .3) + 7)
    assert not list(loss.parameters())  # the ranker is not trained with it


# Penalty and optimizer

def test_penalty_and_weight_decay_have_the_same_gradient():
    net = create_model('asna_simple', nfs=[2] * 10, kss=[3] * 4, dense_num=3).double()
    penalty = l2_penalty(net, .3, .01)
    penalty.backward()
    decays = weight_decays(net, .3, .01)
    assert len(decays) == 12
    for name, parameter in net.named_parameters():
        expected = decays[name] * parameter if name in decays else torch.zeros_like(parameter)
        assert_close(torch.zeros_like(parameter) if parameter.grad is None else parameter.grad, expected)
    squares = [parameter.square().sum() for name, parameter in net.named_parameters() if name in decays]
    assert_close(l2_penalty(net, 1, 1), sum(squares))


def test_adam_adds_epsilon_before_the_bias_correction():
    """Against the formula, with an epsilon that matters."""
    start = torch.randn(5, dtype=torch.float64)
    weight = start.clone().requires_grad_()
    optimizer, expected = KerasAdam([weight], lr=.1, eps=.05), start.numpy().copy()
    m = v = np.zeros(5)
    for t in range(1, 8):
        optimizer.zero_grad()
        (weight ** 3).sum().backward()
        gradient = 3 * expected ** 2
        optimizer.step()
        m, v = .9 * m + .1 * gradient, .999 * v + .001 * gradient ** 2
        expected = expected - .1 * np.sqrt(1 - .999 ** t) / (1 - .9 ** t) * m / (np.sqrt(v) + .05)
        np.testing.assert_allclose(weight.detach(), expected, rtol=1e-10)


def test_adam_continues_from_its_state():
    def steps(optimizer, weight, count: int) -> None:
        for _ in range(count):
            optimizer.zero_grad()
            (weight ** 2).sum().backward()
            optimizer.step()

    start = torch.randn(5)
    whole, half = start.clone().requires_grad_(), start.clone().requires_grad_()
    steps(KerasAdam([whole], eps=.1), whole, 6)
    first = KerasAdam([half], eps=.1)
    steps(first, half, 3)
    second = KerasAdam([half], eps=.5)
    second.load_state_dict(first.state_dict())
    steps(second, half, 3)
    assert torch.equal(whole, half)


# Ranks

@settings(deadline=None, max_examples=50)
@given(st.lists(st.integers(-5, 5), min_size=2, max_size=12))
def test_ranks_are_scipys(values):
    np.testing.assert_array_equal(exact_ranks(torch.tensor(values)), scipy.stats.rankdata(values))


def test_rank_correlation_is_spearmans():
    a, b = torch.randn(2, 3, 9)
    expected = [scipy.stats.spearmanr(x, y).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(rank_correlation(exact_ranks(a), exact_ranks(b)), expected, atol=1e-6)


def test_half_of_the_numbers_are_normal_and_half_uniform():
    rows = numbers_to_rank(20_000, 3, 0)
    assert rows.shape == (20_000, 3)
    assert torch.equal(rows, numbers_to_rank(20_000, 3, 0))
    assert not torch.equal(rows, numbers_to_rank(20_000, 3, 1))
    assert scipy.stats.kstest(rows[:10_000].flatten(), scipy.stats.norm(0, 2).cdf).pvalue > .001
    assert scipy.stats.kstest(rows[10_000:].flatten(), scipy.stats.uniform(-10, 20).cdf).pvalue > .001


def test_a_ranker_learns(tmp_path):
    training = Training(RankerPlan(size=4, rows=6000, epochs=1, batch_size=32), tmp_path / 'ranker.pth')
    training.run(GOES_ON)
    true, surrogate = correlations(load_ranker(tmp_path / 'ranker.pth'))['independent']
    assert np.corrcoef(true, surrogate)[0, 1] > .7
    assert training.errors[0] < .7  # 1 if all get the mean rank


def test_training_stopped_anywhere_ends_the_same(tmp_path):
    whole = Training(TINY, tmp_path / 'whole.pth')
    whole.run(GOES_ON)
    assert len(whole.errors) == 3
    assert not whole.state_file.exists()
    for stopped_at in (1, 5, 7, 14):  # 5 steps an epoch
        training = Training(TINY, tmp_path / 'stopped.pth')
        stop = SimpleNamespace(signal=None)
        step = training.step

        def until(values, training=training, stop=stop, step=step, stopped_at=stopped_at):
            loss = step(values)
            stop.signal = 15 if training.iteration == stopped_at else None
            return loss

        training.step = until
        with pytest.raises(SystemExit) as ended:
            training.run(stop)
        assert ended.value.code == 128 + 15
        assert not training.file.exists()
        again = Training(TINY, tmp_path / 'stopped.pth')
        again.resume()
        assert again.iteration == stopped_at
        again.run(GOES_ON)
        assert again.errors == whole.errors
        first, second = (load_ranker(tmp_path / name).state_dict() for name in ('whole.pth', 'stopped.pth'))
        assert all(torch.equal(first[name], second[name]) for name in first)
        training.file.unlink()


def test_the_callers_random_numbers_are_not_used(tmp_path):
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    Training(TINY, tmp_path / 'ranker.pth').run(GOES_ON)
    assert torch.equal(torch.rand(3), expected)


def test_a_state_that_does_not_fit(tmp_path):
    training = Training(TINY, tmp_path / 'ranker.pth')
    training.save_state()
    with pytest.raises(UserError, match=r"ranker.pth.state: the training had other options, .*'size': 4"):
        Training(RankerPlan(size=5, rows=200), tmp_path / 'ranker.pth').resume()
    (tmp_path / 'ranker.pth.state').write_bytes(b'no state')
    with pytest.raises(UserError, match='ranker.pth.state: not a checkpoint'):
        training.resume()
    write_tensors(tmp_path / 'ranker.pth.state', {'plan': {}, 'iteration': 3})
    with pytest.raises(UserError, match='ranker.pth.state: state: expected a dictionary with plan, iteration'):
        training.resume()


def test_files_that_are_no_ranker(tmp_path):
    for name, content in {'list': [1], 'empty': {'model': {}}, 'other': {'model': {'weight': torch.zeros(2)}},
                          'short': {'model': {'dense.bias': torch.zeros(4)}}, 'point': {'model': {
                              'dense.bias': torch.tensor(3.)}}}.items():
        write_tensors(tmp_path / f'{name}.pth', content)
        with pytest.raises(UserError, match=f'{name}.pth: '):
            load_ranker(tmp_path / f'{name}.pth')
    with pytest.raises(UserError, match='no.pth: no such file'):
        load_ranker(tmp_path / 'no.pth')


# Commands

def test_the_command_trains_and_tests_a_ranker(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = train_ranker(words('--rows 100 -e 2 -bs 32 --ranker_size 4 --ranker mine.pth --device cpu --no-pbar'))
    shown = capsys.readouterr().out
    assert 'Ranker: mine.pth' in shown
    with open('results/mine.csv') as file:
        table = list(csv.DictReader(file))
    assert {row['pairs of sets']: (float(row['mean error']), float(row['correlation'])) for row in table} == rows
    assert (tmp_path / 'results/mine.png').stat().st_size > 10_000
    assert load_ranker('mine.pth').n == 4


def test_mistakes_in_the_command(fails, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert '--ranker_size: 1 is out of range' in fails(train_ranker, '--ranker_size', '1')
    assert 'unrecognized arguments: --trained_model_file' in fails(train_ranker, '--trained_model_file', 'a.pth')


DEMO = words('-arch resnet18 --weights none --device cpu --no-pbar --num_workers 0 --resize -rs_h 48 -rs_w 64 -e 1 '
             '--cache none')


def test_training_with_the_loss(tiny, tmp_path, monkeypatch, capsys):
    """A network without references trains a missing ranker first; the next run finds it."""
    monkeypatch.setattr(ranking, 'SHORT', TINY)
    run = [*tiny, *DEMO, '--loss_type', 'macs', '--target', 'zscore', '-bs', '6']
    main(run)
    shown = capsys.readouterr().out
    assert 'There is no checkpoints/asna_ranker.pth' in shown
    assert 'takes 4 scores of a batch at a time: with --batch_size 6' in shown
    main([*run, '--seed', '1'])
    assert 'There is no' not in capsys.readouterr().out
    main([*run, '--ranker', 'checkpoints/asna_ranker.pth', '--mse_factor', '.2', '-valc', 'loss'])


def test_mistakes_in_the_loss_of_a_run(tiny, fails):
    error = fails(main, *tiny, *DEMO, '--mse_factor', '.3')
    assert '--mse_factor: --loss_type norm-in-norm takes no such option' in error
    assert 'no.pth: no such file' in fails(main, *tiny, *DEMO, '--loss_type', 'macs', '--ranker', 'no.pth')
    assert '--l2: resnet18 declares no layers for this penalty' in fails(main, *tiny, *DEMO, '--l2', '0', '.1')


# The original's numbers

@pytest.fixture(scope='module')
def numbers(shared):
    """The recorded numbers."""
    return recorded(shared, 'asna')


@pytest.fixture(scope='module')
def golden_ranker(shared, numbers):
    """The recorded ranker, float64."""
    about = cases(numbers, 'ranker/meta')
    return filling(shared).fill(create_model('asna_ranker').double(), about['salt'], about['gain'])


def test_recorded_losses_and_gradients(numbers, golden_ranker):
    for p, y, values, gradients in zip(numbers['loss/p'], numbers['loss/y'], numbers['loss/value'],
                                       numbers['loss/grad'], strict=True):
        for (m, s), value, gradient in zip(numbers['loss/factors'], values, gradients, strict=True):
            x = torch.tensor(p, requires_grad=True)
            loss = macs_loss(x, torch.tensor(y), golden_ranker, m, s)
            loss.backward()
            assert loss.item() == pytest.approx(value, abs=1e-9)
            np.testing.assert_allclose(x.grad, gradient, atol=1e-9)


def test_recorded_penalties(shared, numbers):
    for case in cases(numbers, 'nets/cases'):
        net = filling(shared).fill(create_model(case['name'], **case['options']).double(), case['salt'], case['gain'])
        for factors, expected in case['l2'].items():
            assert l2_penalty(net, *json.loads(factors)).item() == pytest.approx(expected, rel=1e-9)


def test_recorded_steps_of_the_ranker(shared, numbers):
    about = cases(numbers, 'ranker/meta')
    ranker = filling(shared).fill(Ranker().double(), about['salt'], about['gain'])
    optimizer, values = KerasAdam(ranker.parameters(), 1e-3), torch.tensor(numbers['ranker/train_x'])
    for expected in numbers['ranker/train_loss']:
        loss = torch.nn.functional.l1_loss(ranker(values), exact_ranks(values))
        assert loss.item() == pytest.approx(expected, rel=1e-4)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    np.testing.assert_allclose(ranker.eval()(torch.tensor(numbers['ranker/x'])).detach(), numbers['ranker/after'],
                               rtol=2e-3)  # Keras keeps the variance of 1024 values, torch its unbiased estimate


@pytest.mark.slow
@pytest.mark.parametrize('i', [0, 1])
def test_recorded_steps_of_networks(shared, numbers, golden_ranker, i):
    case, made = cases(numbers, 'train/cases')[i], filling(shared)
    net = made.fill(create_model(case['name'], **case['options']).double(), case['salt'], case['gain'])
    optimizer = KerasAdam(net.parameters(), case['lr'])
    references, distorted = pairs(made, case['seed'], 16)
    y = torch.tensor(np.random.RandomState(case['seed']).normal(size=16))
    for expected in numbers[f'train/{i}/loss']:
        (scores,) = net.train()(references, distorted)
        loss = (macs_loss(scores, y, golden_ranker, case['mse_factor'], case['spearman_factor'])
                + l2_penalty(net, *case['l2']))
        assert loss.item() == pytest.approx(expected, rel=1e-3)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    (scores,) = net.eval()(references, distorted)
    np.testing.assert_allclose(scores.detach()[:, 0], numbers[f'train/{i}/after'], atol=1e-3)
