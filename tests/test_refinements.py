"""Options beside the plain step: averaged weights, frozen layers, clipped gradients, a warm-up in epochs, compiling."""
from functools import partial
from pathlib import Path

import pytest
import torch
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from mini import MINI, stop_at
from torch import nn
from torch.amp import GradScaler

import main
import modified_ignite_engine
from iqa_runtime.checkpoint import load_checkpoint, read_tensors
from iqa_training.freezing import freeze
from iqa_training.optimizers import OPTIMIZERS, build_optimizer, clip_gradients
from iqa_training.options import TRAIN
from iqa_training.record import VAL_CRITERIA
from iqa_training.schedules import SCHEDULES, build_schedule
from iqa_training.updates import averaged
from IQAmodel import create_model

WORDS = [*SMALL, *MINI, '-bs', '4', '-e', '2', '--device', 'cpu']


def start(words: list[str]) -> dict[str, torch.Tensor]:
    """The weights and statistics that a run of these options begins with."""
    args = TRAIN.parse(words)
    torch.manual_seed(args.seed)
    return main.build_model(args).state_dict()


def state_of(folder: str) -> dict:
    (state,) = Path(folder).glob('*.state')
    return read_tensors(state)


def without_times(state: dict) -> dict:
    """A state of a run without what two runs of the same options differ in: times."""
    history = {tag: rows[:, :2].tolist() for tag, rows in state['history'].items()}
    tensors = {part: {name: tensor.tolist() for name, tensor in state[part].items()}
               for part in ('model', 'ema') if part in state}
    moments = {i: {name: torch.as_tensor(value).tolist() for name, value in kept.items()}
               for i, kept in state['optimizer']['state'].items()}
    return {'history': history, **tensors, 'moments': moments, 'record': state['record']}


@pytest.mark.usefixtures('one_thread')
@pytest.mark.parametrize(('options', 'stops'), [
    ('--ema .9 -accum 3 --svd features.3 --freeze *.bias', (4, 7)), ('--clip_grad .05 -accum 2 -optl bf16', (3, 6)),
    ('--ema .7 --val_every 3 --freeze features.[01] dr6 --warmup_epochs 2 --clip_grad 1', (3, 5)),
    ('--val_every 100 -lt mse', (8,))])  # stopped at the end, before the only validation
def test_a_stopped_run_ends_as_the_whole_one(tiny, monkeypatch, options, stops):
    words = [*tiny, *WORDS, *options.split()]
    main.main([*words, '--checkpoint_dir', 'whole', '--log_dir', 'other-runs'])
    stop_at(monkeypatch, *stops)
    for _ in stops:
        with pytest.raises(SystemExit):
            main.main([*words, '--resume', 'auto'])
    main.main([*words, '--resume', 'auto'])
    (whole,), (stopped,) = Path('whole').glob('*.pth'), Path('checkpoints').glob('*.pth')
    assert whole.read_bytes() == stopped.read_bytes()
    assert without_times(state_of('whole')) == without_times(state_of('checkpoints'))


# Averaged weights

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))

    def forward(self, x):
        return self.layers(x)


@given(decay=st.floats(.01, .9999), steps=st.integers(1, 12))
def test_the_average_is_that_of_the_recurrence(decay, steps):
    net = Net().requires_grad_(False)
    net.layers[0].weight.fill_(1 / 3)  # it never changes
    average, expected = averaged(net, decay), None
    generator = torch.Generator().manual_seed(steps)
    for _ in range(steps):
        changing = [tensor for name, tensor in net.state_dict().items() if name != 'layers.0.weight']
        for tensor in changing:
            tensor.copy_(torch.randn(tensor.shape, generator=generator) * 10)
        values = {name: tensor.double().clone() for name, tensor in net.state_dict().items()}
        expected = expected or values
        expected = {name: decay * expected[name] + (1 - decay) * value for name, value in values.items()}
        average.update_parameters(net)
    counted = 'layers.1.num_batches_tracked'
    for name, tensor in average.module.state_dict().items():
        if name != counted:
            torch.testing.assert_close(tensor.double(), expected[name], rtol=1e-5, atol=1e-5)
    assert average.module.state_dict()[counted] == net.state_dict()[counted]
    assert torch.equal(average.module.layers[0].weight, net.layers[0].weight)


@pytest.mark.usefixtures('one_thread')
@pytest.mark.parametrize(('name', 'shape'), [('maniqa_tiny', (2, 3, 128, 128)), ('svd_cnniqa_fc', (2, 3, 64, 64))])
def test_an_average_computes_for_itself(name, shape):
    network, image = create_model(name).eval(), torch.rand(shape)
    average, before = averaged(network, .9).module.eval(), network(image)[-1]
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(.01)
    assert torch.equal(average(image)[-1], before)
    assert not torch.equal(network(image)[-1], before)


@pytest.mark.usefixtures('one_thread')
def test_the_averaged_weights_are_tested_and_saved_and_the_others_trained(tiny, monkeypatch):
    words = [*tiny, *WORDS, '--later_wins', '-valc', 'constant']
    monkeypatch.setitem(VAL_CRITERIA, 'constant', lambda performance: 1.)  # the last epoch is kept
    main.main([*words, '--checkpoint_dir', 'plain'])
    main.main([*words, '--ema', '.8', '--checkpoint_dir', 'ema'])
    plain, ema = state_of('plain'), state_of('ema')
    for name, tensor in plain['model'].items():
        assert torch.equal(tensor, ema['model'][name])
    assert plain['history']['train/loss'][:, 1].tolist() == ema['history']['train/loss'][:, 1].tolist()
    assert plain['history']['val/demo/RMSE'][:, 1].tolist() != ema['history']['val/demo/RMSE'][:, 1].tolist()
    saved = load_checkpoint(next(Path('ema').glob('*.pth')))
    assert saved['epoch'] == 2
    for name, tensor in saved['model'].items():
        assert torch.equal(tensor, ema['ema'][f'module.{name}'])
    assert not torch.equal(saved['model']['regression.weight'], ema['model']['regression.weight'])


@pytest.mark.parametrize('decay', ['0', '1', '1.5', 'nan', 'much'])
def test_a_decay_that_averages_nothing_is_refused(tiny, fails, decay):
    assert '--ema' in fails(main.main, *tiny, *WORDS, '--ema', decay)


# Frozen layers

@pytest.mark.usefixtures('one_thread')
@pytest.mark.parametrize('patterns', [['features'], ['features.0*', 'features.1'], ['features.1.weight'], ['*.bias']])
def test_what_is_frozen_stays_bit_for_bit_and_the_rest_is_trained(tiny, patterns, capsys):
    words = [*tiny, *WORDS, '--freeze', *patterns, '--ema', '.9', '-lr', '.01']
    before = start(words)
    main.main(words)
    assert 'parameters and' in capsys.readouterr().out
    state = state_of('checkpoints')
    network = create_model('mini')
    frozen = freeze(network, patterns)
    names = {name for name, parameter in network.named_parameters() if parameter in frozen}
    assert names
    statistics = {f'{norm}.{name}' for norm in network.frozen
                  for name in ('running_mean', 'running_var', 'num_batches_tracked')}
    assert (statistics != set()) == (patterns[-1] in ('features', 'features.1'))
    for name, tensor in before.items():
        fixed = name in names | statistics
        assert torch.equal(state['model'][name], tensor) == fixed, name
        assert torch.equal(state['ema'][f'module.{name}'], tensor) == fixed, name


def test_a_frozen_layer_computes_the_same_in_training_and_in_a_test():
    network = create_model('mini')
    freeze(network, ['features'])
    images = torch.rand(4, 3, 48, 64)
    trained = network.train().features(images)
    assert all(map(torch.equal, trained, network.eval().features(images)))
    assert network.train().dr6.training


def test_frozen_parameters_have_no_entry_in_the_optimizer_and_the_others_their_rate():
    network = create_model('mini')
    args = TRAIN.parse(['-lr', '.5', '--ft_lr_ratio', '.25', '--freeze', 'features.[01]', 'regr*.bias'])
    rates = {id(p): group['lr'] for group in build_optimizer(args, network).param_groups for p in group['params']}
    for name, parameter in network.named_parameters():
        fixed = name.startswith(('features.0', 'features.1')) or (name.startswith('regr') and name.endswith('bias'))
        assert parameter.requires_grad != fixed
        assert rates.get(id(parameter)) == (None if fixed else .125 if name.startswith('features') else .5), name


def test_factored_layers_can_be_frozen():
    network = create_model('svd_cnniqa_fc')
    frozen = freeze(network, ['fc1', 'fc*.bias'])
    assert {name for name, p in network.named_parameters() if p in frozen} == {
        'fc1.weight', 'fc1.bias', 'fc1.delta', 'fc2.bias', 'fc3.bias'}
    assert network.fc2.delta.requires_grad


@pytest.mark.parametrize(('patterns', 'message'), [
    (['feature.0'], "--freeze feature.0: no parameter and no layer has such a name (did you mean features.0?)"),
    (['dr6', 'regresion.*'], '--freeze regresion.*: no parameter and no layer has such a name (did you mean '
                             'regression?)')])
def test_a_pattern_that_matches_nothing_names_the_nearest(tiny, fails, patterns, message):
    assert message in fails(main.main, *tiny, *WORDS, '--freeze', *patterns)


@pytest.mark.parametrize('options', [['--freeze', '*'], ['--ft_lr_ratio', '0', '--freeze', 'dr*', 'reg*']])
def test_something_is_left_to_train(tiny, fails, options):
    assert 'no parameter is left to train' in fails(main.main, *tiny, *WORDS, *options)


# Clipped gradients

@given(norm=st.floats(1e-3, 1e3), scale=st.floats(1e-4, 1e4))
def test_a_longer_gradient_is_shortened_to_the_norm(norm, scale):
    parameters = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(5))]
    optimizer = torch.optim.SGD([{'params': [parameter], 'lr': 1.} for parameter in parameters])
    clip_gradients(optimizer, norm)
    generator = torch.Generator().manual_seed(1)
    for parameter in parameters:
        parameter.grad = torch.randn(parameter.shape, generator=generator) * scale
    before = torch.cat([parameter.grad.double().flatten() for parameter in parameters])
    optimizer.step()
    step = -torch.cat([parameter.detach().double().flatten() for parameter in parameters])
    length = before.square().sum().sqrt().item()
    assert step.square().sum().sqrt().item() == pytest.approx(min(length, norm), rel=1e-2 if norm < .01 else 1e-3)
    torch.testing.assert_close(step / step.norm(), before / before.norm(), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize('opt_level', ['O0', 'scaled'])
@pytest.mark.parametrize('batches', [1, 3])
def test_the_gradient_is_clipped_once_it_is_whole_and_unscaled(monkeypatch, opt_level, batches):
    if opt_level == 'scaled':
        monkeypatch.setattr(modified_ignite_engine, 'autocast_dtype', lambda *_: torch.float16)
        monkeypatch.setattr(modified_ignite_engine, 'GradScaler', partial(GradScaler, init_scale=256.))
    net = nn.Linear(6, 1, bias=False)
    before = net.weight.detach().clone()
    optimizer = torch.optim.SGD(net.parameters(), lr=1.)
    clip_gradients(optimizer, .125)
    data = [(torch.randn(4, 6), torch.zeros(4, 1)) for _ in range(batches)]
    trainer = modified_ignite_engine.create_supervised_trainer(
        Heads(net), optimizer, lambda outputs, scores: 50 * outputs[-1].float().mean(),
        prepare=lambda batch, **_: ((batch[0],), batch[1]), accumulation_steps=batches)
    trainer.run(data)
    assert (trainer.scaler is None) == (opt_level == 'O0')
    expected = 50 * torch.cat([x for x, _ in data]).double().mean(0)  # d of the mean of all batches
    step = (before - net.weight.detach()).double()[0]
    assert step.norm().item() == pytest.approx(.125, rel=1e-3)
    torch.testing.assert_close(step / step.norm(), expected / expected.norm(), rtol=0, atol=5e-3)


class Heads(nn.Module):
    def __init__(self, net: nn.Module):
        super().__init__()
        self.net = net

    def forward(self, x):
        return self.net(x),


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_every_optimizer_clips(name):
    network = Net()
    network.backbone = None
    optimizer = build_optimizer(TRAIN.parse(['--optimizer', name, '--clip_grad', '1e-3']), network)
    for parameter in network.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    assert sum(parameter.grad.square().sum() for parameter in network.parameters()).sqrt() <= 1e-3


# A warm-up in epochs

@pytest.mark.parametrize('name', SCHEDULES)
def test_a_warm_up_in_epochs_is_one_of_their_iterations(name):
    extra = ['--milestones', '2'] if name == 'multistep' else []
    rates = []
    for warmup in (['--warmup_epochs', '2'], ['--warmup', '10']):
        args = TRAIN.parse(['--schedule', name, '-e', '4', *extra, *warmup])
        groups = [{'params': [one]} for one in nn.Linear(1, 1).parameters()]  # as of a head and a backbone
        optimizer = torch.optim.SGD(groups, lr=args.learning_rate)
        schedule = build_schedule(args, optimizer, 5)
        assert schedule.unit == 'iteration'
        rates.append([optimizer.param_groups[0]['lr']])
        for _ in range(19):
            optimizer.step()
            schedule.step()
            rates[-1].append(optimizer.param_groups[0]['lr'])
    assert rates[0] == rates[1]
    assert rates[0][0] < rates[0][4] < args.learning_rate


def test_two_warm_ups(tiny, fails):
    assert 'give one of them' in fails(main.main, *tiny, *WORDS, '--warmup', '3', '--warmup_epochs', '1')


# Compiled

@pytest.mark.usefixtures('one_thread')
def test_a_compiled_run_has_the_names_and_numbers_of_the_plain_one(tiny, monkeypatch):
    words = [*tiny, *WORDS, '--ema', '.9', '--clip_grad', '1', '--freeze', 'features.0', '-e', '1']
    main.main([*words, '--checkpoint_dir', 'plain'])
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend='eager'))  # traced, but not rewritten
    main.main([*words, '--compile', '--checkpoint_dir', 'compiled'])
    plain, traced = state_of('plain'), state_of('compiled')
    for part in ('model', 'ema'):
        assert list(plain[part]) == list(traced[part])
        assert all(torch.equal(tensor, traced[part][name]) for name, tensor in plain[part].items())
    saved = load_checkpoint(next(Path('compiled').glob('*.pth')))
    create_model('mini').load_state_dict(saved['model'])


@pytest.mark.slow
@pytest.mark.usefixtures('one_thread')
def test_a_compiled_step_learns_what_the_plain_one_does_and_resumes(tiny, monkeypatch):
    words = [*tiny, *WORDS, '-lr', '1e-5']
    main.main([*words, '--checkpoint_dir', 'plain'])
    main.main([*words, '--compile', '--checkpoint_dir', 'whole'])
    stop_at(monkeypatch, 3)
    with pytest.raises(SystemExit):
        main.main([*words, '--compile'])
    main.main([*words, '--compile', '--resume', 'auto'])
    assert without_times(state_of('whole')) == without_times(state_of('checkpoints'))
    plain = state_of('plain')['model']
    for name, tensor in state_of('whole')['model'].items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-3, atol=1e-4)


def test_no_compiler_is_one_line(tiny, monkeypatch, fails):
    def missing(*_):
        raise FileNotFoundError('no g++ here')
    monkeypatch.setattr(torch, 'compile', partial(torch.compile, backend=missing))
    error = fails(main.main, *tiny, *WORDS, '--compile')
    assert '--compile: torch cannot compile the network on this machine' in error
    assert 'no g++ here' in error
