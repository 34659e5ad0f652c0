"""Schedules and optimizers: their properties, torch's own as oracles, the numbers of the originals, mistakes."""
import json
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.optim.lr_scheduler import CosineAnnealingLR, LambdaLR, MultiStepLR, StepLR

from iqa_training.optimizers import OPTIMIZERS, build_optimizer
from iqa_training.options import TRAIN
from iqa_training.schedules import SCHEDULES, build_schedule, cosine_warmup_restarts, multistep, step, step_decay
from IQAmodel import NETWORKS

EXTRA = {'multistep': '--milestones 2 4'}


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone, self.head = nn.Linear(2, 2), nn.Linear(2, 1)


def rates(line: str, epochs: int, length: int) -> np.ndarray:
    """Learning rates (iterations, groups) of a run of `line`."""
    args = TRAIN.parse([*line.split(), '-e', str(epochs)])
    optimizer = build_optimizer(args, Net())
    schedule = build_schedule(args, optimizer, length)
    found = []
    for i in range(epochs * length):
        found.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        if schedule.unit == 'iteration' or (i + 1) % length == 0:
            schedule.step()
    return np.array(found)


def test_batches_are_counted_before_the_first_step_of_the_optimizer(recwarn):
    args = TRAIN.parse(['--schedule', 'cosine', '-lr', '.5', '-e', '1'])
    optimizer = build_optimizer(args, Net())
    schedule, expected = build_schedule(args, optimizer, 8), rates('--schedule cosine -lr .5', 1, 8)
    for now in expected:  # as with --accumulation_steps, or with a first step that overflows
        np.testing.assert_array_equal([group['lr'] for group in optimizer.param_groups], now)
        schedule.step()
    assert not recwarn


def test_a_schedule_resumes_from_a_state_of_torch():
    args = TRAIN.parse(['--schedule', 'cosine', '-lr', '.5', '-e', '1'])
    ours, its = (build_optimizer(args, Net()) for _ in range(2))
    schedule = build_schedule(args, ours, 8)
    theirs = LambdaLR(its, schedule.lr_lambdas)
    theirs.unit = 'iteration'
    assert schedule.state_dict().keys() == theirs.state_dict().keys()
    for _ in range(3):
        its.step()
        theirs.step()
    schedule.load_state_dict(theirs.state_dict())
    for each in (schedule, theirs):
        each.step()
    assert [group['lr'] for group in ours.param_groups] == [group['lr'] for group in its.param_groups]


@pytest.mark.parametrize('name', SCHEDULES)
@pytest.mark.parametrize('warmup', ['', '--warmup 5'])
def test_every_schedule_keeps_between_0_and_the_learning_rate(name, warmup):
    found = rates(f'--schedule {name} -lr .5 {warmup} {EXTRA.get(name, "")}', 4, 3)
    assert (found >= 0).all()
    assert found.max() <= .5
    np.testing.assert_allclose(found[:, 1], .1 * found[:, 0])
    if warmup:
        assert (np.diff(found[:3, 0]) > 0).all()


def of_torch(make, steps: int) -> list[float]:
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.)
    schedule, found = make(optimizer), []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]['lr'])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize(('factor', 'make'), [
    (step(.5, 3), lambda optimizer: StepLR(optimizer, 3, .5)),
    (multistep(.5, [7, 2]), lambda optimizer: MultiStepLR(optimizer, [2, 7], .5)),
    (cosine_warmup_restarts(20, 1., .1), lambda optimizer: CosineAnnealingLR(optimizer, 20, .1))])
def test_as_torch(factor, make):
    np.testing.assert_allclose([factor(done) for done in range(12)], of_torch(make, 12), rtol=1e-12)


def test_step_decay_is_step_an_epoch_early():
    assert [step_decay(.1, 10)(done) for done in range(40)] == [step(.1, 10)(done + 1) for done in range(40)]


@given(first=st.integers(2, 40), warmup=st.integers(0, 39), mult=st.floats(.5, 2), gamma=st.floats(.5, 1),
       done=st.integers(0, 300))
def test_cycles(first, warmup, mult, gamma, done):
    if warmup >= first:
        with pytest.raises(ValueError, match='of warm-up in a first cycle'):
            cosine_warmup_restarts(first, 1., .01, warmup, mult, gamma)
        return
    factor = cosine_warmup_restarts(first, 1., .01, warmup, mult, gamma)
    assert 0 <= factor(done) <= 1 + 1e-12
    assert factor(warmup) == pytest.approx(1)  # the peak
    second = max(1, int((first - warmup) * mult) + warmup)
    if warmup < second:
        assert factor(first + warmup) == pytest.approx(max(gamma, .01))


def test_published_rates_of_maniqa():
    """Their scheduler, 800 steps a cycle, 200 of them a rise to 1e-5: computed by hand at a few steps."""
    factor = cosine_warmup_restarts(800, 1e-5, 1e-10, 200, 1., .9)
    middle = 1e-10 + (1e-5 - 1e-10) * (1 + math.cos(math.pi / 4)) / 2
    for done, rate in ((0, 1e-10), (100, 5.00005e-6), (200, 1e-5), (350, middle), (800, 1e-10), (1000, 9e-6)):
        assert 1e-5 * factor(done) == pytest.approx(rate, rel=1e-12)


def test_recorded_rates_of_maniqa(shared):
    for case in json.loads(str(np.load(shared / 'golden/systems/maniqa.npz')['scheduler'])):
        factor = cosine_warmup_restarts(**case['kw'])
        np.testing.assert_allclose([case['kw']['max_lr'] * factor(done) for done in case['steps']], case['lrs'],
                                   rtol=1e-12)


def test_recorded_rates_of_asna(shared):
    for case in json.loads(str(np.load(shared / 'golden/systems/asna.npz')['lr'])):
        factor = step_decay(case['drop'], int(case['every']))
        np.testing.assert_allclose([case['lr'] * factor(epoch) for epoch in range(len(case['lrs']))], case['lrs'],
                                   rtol=1e-12)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_every_optimizer_descends(name):
    torch.manual_seed(1)
    net = Net()
    optimizer = build_optimizer(TRAIN.parse(['--optimizer', name, '-lr', '.01']), net)
    losses = []
    for _ in range(20):
        loss = (net.head(net.backbone(torch.ones(1, 2))) - 3).square().sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(('line', 'settings'), [
    ('--optimizer adamw', {'weight_decay': .01, 'eps': 1e-8}), ('--optimizer adamw -wd .2', {'weight_decay': .2}),
    ('--optimizer adam', {'weight_decay': 0}), ('--adam_eps 1e-7', {'eps': 1e-7}),
    ('--optimizer sgd --momentum .9', {'momentum': .9}), ('--optimizer adadelta', {'weight_decay': 0})])
def test_settings_of_optimizers(line, settings):
    found = build_optimizer(TRAIN.parse(line.split()), Net()).param_groups[0]
    assert {name: found[name] for name in settings} == settings


@pytest.mark.parametrize(('line', 'message'), [
    ('--schedule cosine --milestones 3', '--milestones: --schedule cosine takes no such option; it takes: min_lr'),
    ('--schedule multistep', 'needs --milestones'),
    ('--schedule cosine_warmup_restarts --first_cycle_steps 5 --warmup_steps 5', 'expected fewer than'),
    ('--schedule cosine --min_lr 1', '--min_lr 1 is above --learning_rate 0.0001'),
    ('--schedule steps', 'did you mean step?'),
    ('--momentum .9', '--momentum: --optimizer adam takes no such option; it takes: adam_eps'),
    ('--optimizer adamw -wd 0', 'is the same as --optimizer adam')])
def test_mistakes(line, message, fails):
    assert message in fails(TRAIN.parse, *line.split())


def test_every_option_of_a_network_is_on_the_command_line():
    for name, entry in NETWORKS.items():
        assert set(entry.options()) <= TRAIN.names(), name
