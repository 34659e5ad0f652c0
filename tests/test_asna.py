"""ASNA's networks: layers as Keras makes them, shapes, names and draws, the original's numbers."""
import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from golden import cases, filling, pairs, recorded
from torch import nn
from torch.testing import assert_close

from iqa_networks.asna import ConvLSTM, tiles
from iqa_networks.keras import SameConv1d, SameConv2d, same_padding
from iqa_networks.ranker import PositionPReLU, Ranker
from iqa_runtime.errors import UserError
from IQAmodel import NETWORKS, create_model

NETS = ('asna_simple', 'asna_simple_a', 'asna_simple_b', 'asna_bn', 'asna_attention', 'asna_tiled')
SMALL = {'nfs': [2, 3, 2, 3, 4, 3, 2, 3, 2, 3], 'kss': [3, 3, 3, 3], 'dense_num': 4, 'img_size': 96}
TILED = {'lstm_units': 3, 'tile_size': 24}  # as many tiles as the original's
pytestmark = pytest.mark.usefixtures('one_thread')


def small(name: str, **options):
    """Return a network with few channels, for small images."""
    return create_model(name, **{**SMALL, **(TILED if name == 'asna_tiled' else {}), **options})


def images(n: int = 2, seed: int = 0) -> torch.Tensor:
    return torch.rand(n, 3, 96, 96, generator=torch.Generator().manual_seed(seed)) * 2 - 1


# Layers

@pytest.mark.parametrize(('size', 'kernel', 'stride', 'expected'), [
    (288, 3, 4, (0, 0)), (72, 3, 2, (0, 1)), (16, 2, 1, (0, 1)), (16, 10, 1, (4, 5)), (36, 5, 1, (2, 2))])
def test_padding_puts_the_odd_zero_after(size, kernel, stride, expected):
    assert same_padding(size, kernel, stride) == expected


@pytest.mark.parametrize(('size', 'kernel', 'stride'), [((7, 9), 3, 2), ((8, 5), 4, 1), ((5, 6), 2, 3), ((3, 3), 1, 4)])
def test_convolution_against_loops(size, kernel, stride):
    layer = SameConv2d(2, 3, kernel, stride).double()
    x = torch.randn(1, 2, *size, dtype=torch.float64)
    height, width = (-(-side // stride) for side in size)
    before = [max((out - 1) * stride + kernel - side, 0) // 2 for out, side in zip((height, width), size, strict=True)]
    expected = torch.zeros(1, 3, height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            for i in range(kernel):
                for j in range(kernel):
                    y, z = row * stride + i - before[0], column * stride + j - before[1]
                    if 0 <= y < size[0] and 0 <= z < size[1]:
                        expected[0, :, row, column] += layer.weight[:, :, i, j] @ x[0, :, y, z]
    assert_close(layer(x), expected)


def test_weights_are_drawn_by_glorots_law():
    layer = SameConv1d(30, 50, 4)
    assert layer.bias.eq(0).all()
    limit = (6 / (4 * 80)) ** .5
    assert layer.weight.abs().max() <= limit
    assert_close(layer.weight.std(), torch.tensor(limit / 3 ** .5), rtol=.05, atol=0)


def test_prelu_has_a_slope_for_every_channel_and_position():
    layer = PositionPReLU(2, 3)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[0., .5, 1], [-1, 2, .1]]))
    x = torch.tensor([[[-2., -2, -2], [-2, -2, 5]]])
    assert_close(layer(x), torch.tensor([[[0., -1, -2], [2, -4, 5]]]))


def test_convlstm_against_loops():
    layer = ConvLSTM(2, 3, kernel=3).double()
    sequence = torch.randn(2, 4, 2, 5, 6, dtype=torch.float64)
    hidden = cell = torch.zeros(2, 3, 5, 6, dtype=torch.float64)
    for x in sequence.unbind(1):
        gates = F.conv2d(x, layer.input.weight, layer.input.bias, padding=1) + F.conv2d(hidden, layer.recurrent.weight,
                                                                                       padding=1)
        i, f, c, o = (gates[:, 3 * k:3 * k + 3] for k in range(4))
        i, f, o = (torch.clip(gate / 5 + .5, 0, 1) for gate in (i, f, o))
        cell = f * cell + i * c.tanh()
        hidden = o * cell.tanh()
    assert_close(layer(sequence), hidden)


def test_convlstm_begins_with_an_open_memory_and_an_orthogonal_recurrence():
    layer = ConvLSTM(3, 4)
    assert layer.input.bias.tolist() == [0] * 4 + [1] * 4 + [0] * 8
    rows = layer.recurrent.weight.flatten(1)
    assert_close(rows @ rows.T, torch.eye(16), atol=1e-5, rtol=0)


def test_tiles_come_row_by_row():
    x = torch.arange(36.).view(1, 1, 6, 6)
    assert tiles(x, 3).shape == (1, 4, 1, 3, 3)
    assert tiles(x, 3)[0, :, 0, 0, 0].tolist() == [0, 3, 18, 21]
    assert torch.equal(tiles(x, 3)[0, 1, 0], x[0, 0, :3, 3:])


# Networks

@pytest.mark.parametrize('name', NETS)
def test_a_network_scores_pairs(name):
    net = small(name).eval()
    assert (NETWORKS[name].inputs, net.inputs, net.side, net.normalise) == (2, 2, 96, 'half-bgr')
    assert create_model(name).side == 288
    reference, distorted = images(), images(seed=1)
    (scores,) = net(reference, distorted)
    assert scores.shape == (2, 1)
    (alone,) = net(reference[1:], distorted[1:])
    assert_close(alone, scores[1:], atol=1e-5, rtol=1e-5)
    (swapped,) = net(distorted, reference)
    assert not torch.equal(swapped, scores)  # the decoder begins at the distorted image


def test_every_parameter_takes_part():
    for name in ('asna_attention', 'asna_tiled'):
        net = small(name)
        net(images(), images(seed=1))[0].sum().backward()
        still = [key for key, parameter in net.named_parameters() if parameter.grad is None]
        assert still == [], name


def test_options_change_the_network():
    net = small('asna_attention', attention=False, num_resblocks=1)
    names = set(net.state_dict())
    assert 'res1.conv1.weight' in names
    assert not {'res2.conv1.weight', 'attention.fuse.weight'} & names
    assert net(images(), images())[0].shape == (2, 1)
    net = small('asna_tiled', tile_size=48, lstm_units=5)
    assert net.convlstm.recurrent.weight.shape == (20, 5, 5, 5)
    assert net(images(), images())[0].shape == (2, 1)


def test_networks_of_other_sizes():
    for name, options in (('asna_attention', {}), ('asna_tiled', {'tile_size': 24})):
        net = small(name, img_size=48, **options)
        assert net.side == 48
        assert net(*torch.rand(2, 3, 3, 48, 48))[0].shape == (3, 1)
        with pytest.raises(UserError, match='images of 48x64 .h x w. for a network of 48x48: give --resize -rs_h 48'):
            net(*torch.rand(2, 3, 3, 48, 64))


def test_dropout_is_random_in_training_alone():
    net = small('asna_simple', dropout=.5)
    net.dense1.weight.data.zero_()
    net.dense1.bias.data.fill_(.1)  # no unit is off but by dropout, and the sigmoid behind them is not saturated
    pair = images(8), images(8, seed=1)
    torch.manual_seed(0)
    assert not torch.equal(net(*pair)[0], net(*pair)[0])
    net.eval()
    assert torch.equal(net(*pair)[0], net(*pair)[0])


def test_options_that_make_no_network():
    with pytest.raises(UserError, match=r'nfs \[1, 2\]: expected 10 values'):
        create_model('asna_simple', nfs=[1, 2])
    with pytest.raises(UserError, match=r'kss \[3, 3, 3\]: expected 4 values'):
        create_model('asna_bn', kss=[3, 3, 3])
    with pytest.raises(UserError, match='--tile_size 36: expected a multiple of 8 that divides --img_size 288'):
        create_model('asna_tiled', tile_size=36)
    with pytest.raises(UserError, match='--img_size 40: expected a multiple of 16'):
        create_model('asna_simple', img_size=40)
    with pytest.raises(UserError, match='asna_simple takes no option tile_size'):
        create_model('asna_simple', tile_size=72)


@pytest.mark.parametrize('n', [3, 16, 50])
def test_a_ranker_of_any_size(n):
    ranker = create_model('asna_ranker', n=n).eval()
    assert ranker(torch.randn(5, n)).shape == (5, n)
    assert isinstance(ranker, Ranker)


# The original's numbers

def test_names_shapes_and_parameter_counts(shared):
    networks = json.loads((shared / 'golden' / 'systems' / 'asna_names.json').read_text())
    for name, expected in networks.items():
        net = create_model(name, **expected['options'])
        shapes = {key: list(value.shape) for key, value in net.state_dict().items() if 'num_batches' not in key}
        assert shapes == expected['shapes'], name
        assert sum(parameter.numel() for parameter in net.parameters()) == expected['parameters'], name


@pytest.fixture(scope='module')
def made(shared):
    """The functions that made the recorded inputs."""
    return filling(shared)


@pytest.fixture(scope='module')
def numbers(shared):
    """The recorded numbers."""
    return recorded(shared, 'asna')


@pytest.fixture(scope='module', params=[
    0, *(pytest.param(i, marks=pytest.mark.slow) for i in (1, 2, 4)), 3, 5])
def case(request, made, numbers):
    """A recorded network: its number, filled in float64, its case, and its two references and distorted images."""
    case = cases(numbers, 'nets/cases')[request.param]
    net = made.fill(create_model(case['name'], **case['options']).double(), case['salt'], case['gain'])
    return request.param, net, case, *pairs(made, case['seed'], 2)


def test_outputs_and_gradients(made, numbers, case):
    i, net, about, r, d = case
    scores = net.eval()(torch.stack((r[0], d[0], r[0], r[1], r[1])), torch.stack((d[0], r[0], r[0], d[1], d[0])))[0]
    np.testing.assert_allclose(scores.detach()[:, 0], numbers[f'nets/{i}/eval'], atol=2e-7, rtol=0)
    net.zero_grad()
    scores.sum().backward()
    for name, expected in zip(about['grad_names'], numbers[f'nets/{i}/grad'], strict=True):
        gradient = net.get_parameter(name).grad.numpy()
        found = [np.linalg.norm(gradient), (gradient * made.probe(name, gradient.shape)).sum()]
        np.testing.assert_allclose(found, expected, rtol=0, atol=4e-4 * max(expected[0], 1e-12), err_msg=name)


def test_batch_statistics(numbers, case):
    i, net, about, r, d = case
    if 'stats_names' not in about:
        assert not any(isinstance(layer, nn.BatchNorm2d) for layer in net.modules())
        return
    scores = net.train()(torch.stack((r[0], d[0], r[0], r[1])), torch.stack((d[0], r[0], r[0], d[1])))[0]
    np.testing.assert_allclose(scores.detach()[:, 0], numbers[f'nets/{i}/train'], atol=1e-9, rtol=0)
    statistics = torch.cat([net.state_dict()[name].flatten() for name in about['stats_names']])
    np.testing.assert_allclose(statistics, numbers[f'nets/{i}/stats'], atol=2e-6, rtol=2e-6)


def test_ranker_outputs(made, numbers):
    about = cases(numbers, 'ranker/meta')
    ranker = made.fill(create_model('asna_ranker').double(), about['salt'], about['gain']).eval()
    np.testing.assert_allclose(ranker(torch.tensor(numbers['ranker/x'])).detach(), numbers['ranker/y'], atol=1e-9)
