"""CNNIQA and factored layers: identity, shapes, gradients, merging, training; the published systems' numbers."""
import numpy as np
import pytest
import torch
from golden import cases, filling, images, recorded, weights
from torch import nn
from torch.testing import assert_close

from iqa_networks.adapted_layers import count_parameters, merge, merged
from iqa_networks.pretrained import load_pretrained
from iqa_networks.svd_layers import factor, factored_layers
from iqa_runtime.errors import UserError
from IQAmodel import create_model

FACTORED = ('svd_cnniqa_fc', 'svd_cnniqa_conv')
EIGHT = ['conv1.weight', 'conv1.bias', 'fc1.weight', 'fc1.bias', 'fc2.weight', 'fc2.bias', 'fc3.weight', 'fc3.bias']


@pytest.fixture(autouse=True)
def _one_thread(one_thread):
    torch.manual_seed(0)


def test_names_and_numbers_of_parameters():
    assert list(create_model('cnniqa').state_dict()) == EIGHT
    numbers = {name: count_parameters(create_model(name)) for name in ('cnniqa', *FACTORED)}
    assert numbers == {'cnniqa': {'trainable': 729801, 'plain': 729801},
                       'svd_cnniqa_fc': {'trainable': 8301, 'plain': 729801},
                       'svd_cnniqa_conv': {'trainable': 722451, 'plain': 729801}}
    assert count_parameters(create_model('svd_cnniqa_fc', svd_bias=True))['trainable'] == 9902
    assert set(create_model('myiqa').state_dict()) == {*EIGHT, 'fc1.delta', 'fc2.delta', 'fc3.delta'}
    assert set(create_model('myiqa2').state_dict()) == {*EIGHT, 'conv1.delta'}


def test_factoring_draws_no_random_numbers():
    states = []
    for name in ('cnniqa', *FACTORED):
        torch.manual_seed(3)
        states.append({**create_model(name).state_dict(), 'next': torch.rand(4)})
    for name in (*EIGHT, 'next'):
        assert torch.equal(states[0][name], states[1][name])
        assert torch.equal(states[0][name], states[2][name])


@pytest.mark.parametrize('name', FACTORED)
def test_at_delta_zero_it_is_the_plain_network(name):
    plain, network = create_model('cnniqa').eval(), create_model(name).eval()
    load = network.load_state_dict(plain.state_dict(), strict=False)
    assert all(key.endswith('delta') for key in load.missing_keys)
    assert not load.unexpected_keys
    x = torch.rand(3, 3, 33, 50)
    assert_close(network(x)[0], plain(x)[0], rtol=0, atol=1e-5)
    for (key, weight), composed in zip(plain.state_dict().items(), merge(network).values(), strict=True):
        assert_close(composed, weight, rtol=0, atol=1e-6, msg=key)


@pytest.mark.parametrize(('delta', 'scale', 'expected'), [
    ([.5, 0, -2], 1, [3.5, 2, 0]), ([1, 1, 1], .5, [3.5, 2.5, 1.5]), ([-9, -9, -9], 1, [0, 0, 0])])
def test_what_delta_does_to_a_diagonal_matrix(delta, scale, expected):
    layer = nn.Linear(3, 3)
    layer.weight = nn.Parameter(torch.diag(torch.tensor([3., 2, 1])))
    network = factor(nn.Sequential(layer), '0', scale)
    network[0].delta.data = torch.tensor(delta, dtype=torch.float32)
    assert_close(merge(network)['0.weight'], torch.diag(torch.tensor(expected, dtype=torch.float32)))
    x = torch.rand(2, 3)
    assert_close(network(x), x * torch.tensor(expected) + layer.bias)


@pytest.mark.parametrize('layer', [nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2, dilation=2, bias=False),
                                   nn.Conv2d(3, 5, 3, padding='same', padding_mode='reflect'), nn.Linear(7, 2)])
def test_gradient_of_delta_is_that_of_the_weight_along_the_singular_vectors(layer):
    x = torch.rand(2, 7) if isinstance(layer, nn.Linear) else torch.rand(2, layer.in_channels, 9, 8)
    x, layer = x.double(), layer.double()
    layer(x).square().sum().backward()
    left, _, right = np.linalg.svd(layer.weight.detach().flatten(1).numpy(), full_matrices=False)
    expected = np.einsum('oi,ok,ki->k', layer.weight.grad.flatten(1).numpy(), left, right)
    network = factor(nn.Sequential(layer), '0')
    network(x).square().sum().backward()
    assert_close(network[0].delta.grad, torch.tensor(expected), rtol=1e-9, atol=1e-9)
    assert_close(merged(network)(x), network(x))


def test_a_pattern_names_the_layers_of_any_network():
    network = create_model('resnet18', svd='features.4.*conv*')
    names = [name for name, _ in factored_layers(network)]
    assert names == [f'features.4.{block}.conv{i}' for block in (0, 1) for i in (1, 2)]
    plain = create_model('resnet18').eval()
    plain.load_state_dict(merge(network))
    x = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        for ours, theirs in zip(network.eval()(x), plain(x), strict=True):
            assert_close(ours, theirs, rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match='--svd fc4: no linear layer or convolution has a matching name; layers: conv1'):
        create_model('cnniqa', svd='fc4')


def test_a_delta_of_another_length():
    state = create_model('svd_cnniqa_fc').state_dict()
    with pytest.raises(RuntimeError, match='size mismatch for fc1.delta'):
        create_model('svd_cnniqa_fc').load_state_dict({**state, 'fc1.delta': torch.zeros(3)})


@pytest.mark.parametrize('name', FACTORED)
def test_what_is_frozen_is_bit_identical_after_a_step(name):
    network = create_model(name)
    before = {key: tensor.clone() for key, tensor in (*network.state_dict().items(), *network.named_buffers())}
    optimizer = torch.optim.AdamW(network.parameters(), .1)
    network(torch.rand(2, 3, 16, 16))[0].square().sum().backward()
    optimizer.step()
    now = dict((*network.state_dict().items(), *network.named_buffers()))
    changed = {key for key, tensor in before.items() if not torch.equal(tensor, now[key])}
    layers = [layer for layer, _ in factored_layers(network)]
    assert changed == {key for key in network.state_dict()
                       if key.endswith('delta') or key.rpartition('.')[0] not in layers}


# Pretrained files

def written(path, content):
    torch.save(content, path)
    return path


@pytest.mark.parametrize('wrap', [
    lambda state: state, lambda state: {'params': state}, lambda state: {'model': state, 'k': [1.], 'b': [0.]},
    lambda state: {'state_dict': {f'net.{name}': tensor for name, tensor in state.items()}, 'epoch': 3},
    lambda state: {'params': {f'module.{name}': tensor for name, tensor in state.items()}}])
def test_pretrained_files(wrap, tmp_path):
    theirs = create_model('cnniqa').state_dict()
    path = written(tmp_path / 'weights.pth', wrap(theirs))
    for name, total in (('cnniqa', 8), ('svd_cnniqa_fc', 11)):
        network = create_model(name)
        assert f'weights.pth: 8 of {total} tensors are those of the network' in load_pretrained(network, path)
        assert all(torch.equal(network.state_dict()[key], tensor) for key, tensor in theirs.items())
        assert_close(network.eval()(torch.ones(1, 3, 9, 9)), merged(network)(torch.ones(1, 3, 9, 9)))


def test_a_torchvision_file_is_the_backbone(tmp_path):
    from torchvision import models
    theirs = models.resnet18()
    network = create_model('resnet18')
    message = load_pretrained(network, written(tmp_path / 'resnet18.pth', theirs.state_dict()))
    assert '120 of 168 tensors are those of the torchvision network; 48 stay as they were (dr6.0.weight' in message
    assert torch.equal(network.features[7][1].conv2.weight, theirs.layer4[1].conv2.weight)


def test_files_that_do_not_fit(tmp_path):
    state = create_model('cnniqa').state_dict()
    fc1, others = state['fc1.weight'], {name: tensor for name, tensor in state.items() if name != 'fc1.weight'}
    nan = {**state, 'fc1.bias': torch.full((800,), float('nan'))}
    cases = {'does not fit the network: it lacks fc1.weight': others, 'it has besides fc9.weight': {**state,
             'fc9.weight': fc1}, 'other shapes, fc1.weight 100x800 for 800x100': {**state, 'fc1.weight': fc1.T},
             'expected a dictionary of tensors': [1, 2], 'fc1.bias contains NaN': nan,
             'lacks conv1.weight, conv1.bias, fc1.weight, ... (8)': create_model('resnet18').state_dict()}
    for reason, content in cases.items():
        path = written(tmp_path / 'odd.pth', content)
        with pytest.raises(UserError) as error:
            load_pretrained(create_model('cnniqa'), path)
        assert reason in str(error.value)
        assert 'odd.pth' in str(error.value)


# Recorded numbers

@pytest.fixture(scope='module')
def made(shared):
    return filling(shared)


@pytest.fixture(scope='module')
def numbers(shared):
    return recorded(shared, 'cnniqa')


def build(made, case, deltas=None, **options):
    """The network of a case in float64, filled; deltas: all of them joined, in order."""
    network = create_model(case['name'], **options).double()
    shapes = {key: tensor.shape for key, tensor in network.state_dict().items() if not key.endswith('delta')}
    network.load_state_dict(weights(made, shapes, case['salt'], case['gain']), strict=False)
    if deltas is not None:
        layers = [layer for _, layer in factored_layers(network)]
        for layer, delta in zip(layers, np.split(deltas, np.cumsum(case['ranks'])[:-1]), strict=True):
            layer.delta.data = torch.tensor(delta)
    return network


def joined(network, what):
    return np.concatenate([what(layer).detach().numpy() for _, layer in factored_layers(network)])


def of_case(made, case):
    return images(made, range(case['seed'], case['seed'] + case['n']), case['h'], case['w'])


def test_recorded_outputs_and_gradients(numbers, made):
    for i, case in enumerate(cases(numbers, 'cnniqa/cases')):
        network = build(made, case).eval()
        output = network(of_case(made, case))[0]
        output.sum().backward()
        np.testing.assert_allclose(output.detach().numpy()[:, 0], numbers[f'cnniqa/{i}/eval'], atol=1e-7)
        gradients = {name: parameter.grad.numpy() for name, parameter in network.named_parameters()}
        probed = [[np.linalg.norm(gradients[name]), (gradients[name] * made.probe(name, gradients[name].shape)).sum()]
                  for name in case['grad_names']]
        np.testing.assert_allclose(probed, numbers[f'cnniqa/{i}/grad'], rtol=1e-9, atol=1e-9)


def test_recorded_outputs_of_factored_networks(numbers, made, tmp_path):
    for i, case in enumerate(cases(numbers, 'svd/cases')):
        if case.get('legacy'):
            network = create_model(case['name']).double().eval()
            state = weights(made, case['keys'], case['salt'], case['gain'])
            assert 'the published SVD-CNNIQA' in load_pretrained(network, written(tmp_path / 'legacy.pth', state))
        else:
            network = build(made, case, numbers[f'svd/{i}/delta'], svd_scale=case['scale']).eval()
        output = network(of_case(made, case))[0]
        np.testing.assert_allclose(output.detach().numpy()[:, 0], numbers[f'svd/{i}/eval'], atol=1e-7)
        if f'svd/{i}/grad_delta' in numbers:
            output.sum().backward()
            gradients = joined(network, lambda layer: layer.delta.grad)
            np.testing.assert_allclose(gradients, numbers[f'svd/{i}/grad_delta'], atol=1e-9)
        if f'svd/{i}/singular' in numbers:
            np.testing.assert_allclose(joined(network, lambda layer: layer.S), numbers[f'svd/{i}/singular'], atol=1e-9)


def test_24_recorded_steps(numbers, made):
    for i, case in enumerate(cases(numbers, 'train/cases')):
        network = build(made, case, dropout=case['dropout'], svd_bias=case['svd_bias'])
        assert count_parameters(network)['trainable'] == case['trainable']
        batches = [(images(made, range(case['seed'] + 10 * j, case['seed'] + 10 * j + 8), 40, 40),
                    torch.tensor(np.random.RandomState(case['seed'] + j).rand(8, 1))) for j in (0, 1)]
        optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
        schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [5, 10], .1)
        losses = []
        torch.manual_seed(case['seed'])
        for _ in case['lrs']:
            for x, y in batches:
                loss = nn.functional.mse_loss(network.train()(x)[0], y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
            schedule.step()
        np.testing.assert_allclose(losses, numbers[f'train/{i}/loss'], rtol=1e-4)
        after = network.eval()(batches[0][0])[0].detach().numpy()[:, 0]
        np.testing.assert_allclose(after, numbers[f'train/{i}/after'], rtol=1e-4)
        if f'train/{i}/delta' in numbers:
            deltas = joined(network, lambda layer: layer.delta)
            np.testing.assert_allclose(deltas, numbers[f'train/{i}/delta'], atol=1e-6)
