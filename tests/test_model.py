"""The network: pooling, shapes, names, random draws, weights, the original's numbers."""
import importlib.util
import json

import numpy as np
import pytest
import torch
from torch.testing import assert_close

from iqa_networks.network import Network
from iqa_networks.pretrained import load_pretrained
from iqa_runtime.errors import UserError
from iqa_training.optimizers import parameter_groups
from iqa_training.options import TRAIN
from IQAmodel import BACKBONES, NETWORKS, POOLS, SPSP, Entry, IQAModel, build_model, create_model, load


@pytest.mark.parametrize('method', POOLS)
def test_pooling_against_loops(method):
    x = torch.randn(2, 3, 6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    functions = {'avg': [np.mean], 'max': [np.max], 'min': [np.min], 'std': [np.std], 'maxmin': [np.max, np.min],
                 'mean_std': [np.mean, np.std]}[method]
    expected = []
    for p in (1, 2, 3):
        step = 6 // p
        edges = [slice(i * step, (i + 1) * step) for i in range(p)]
        cells = [[x[:, :, rows, columns].numpy() for columns in edges] for rows in edges]
        for function in functions:
            expected.append(np.stack([[function(cell, axis=(2, 3)) for cell in row] for row in cells]
                                     ).transpose(2, 3, 0, 1).reshape(2, -1))
    assert_close(SPSP(x, 3, method).double(), torch.tensor(np.concatenate(expected, 1)), rtol=1e-5, atol=1e-6)


def test_pooling_where_the_cells_do_not_divide_the_map():
    assert SPSP(torch.randn(1, 4, 5, 7), 3, 'mean_std').shape == (1, 2 * 4 * 14)


def test_std_of_a_constant_map_has_a_finite_gradient():
    x = torch.ones(1, 2, 4, 4, requires_grad=True)
    SPSP(x, 1, 'std').sum().backward()
    assert torch.isfinite(x.grad).all()


def test_pooling_errors():
    with pytest.raises(UserError, match='map of 2x3 cannot be pooled into 3x3 cells'):
        SPSP(torch.zeros(1, 1, 2, 3), 3)
    with pytest.raises(UserError, match=r"unknown pool 'average'.*expected one of: avg, max"):
        SPSP(torch.zeros(1, 1, 2, 3), 1, 'average')


@pytest.mark.parametrize('arch', ['resnet18', 'alexnet', 'vgg16', 'resnet50'])
def test_every_head_gives_one_score_an_image(arch):
    model = IQAModel(arch, 'mean_std', use_bn_end=True, P6=2, P7=2).eval()
    outputs = model(torch.zeros(2, 3, 96, 128))
    assert [output.shape for output in outputs] == [(2, 1)] * 3


def test_channels_of_the_taps():
    for arch in sorted(BACKBONES):
        with torch.device('meta'):
            model = IQAModel(arch)
            assert model(torch.zeros(2, 3, 96, 128))[2].shape == (2, 1)


def test_the_same_seed_gives_the_same_network():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(IQAModel('resnet18').state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_weights_from_a_file(tmp_path):
    network = BACKBONES['resnet18'].network()
    torch.save(network.state_dict(), tmp_path / 'weights.pth')
    model = IQAModel('resnet18', weights=tmp_path / 'weights.pth')
    assert torch.equal(model.features[0].weight, network.conv1.weight)


def test_bad_weights(tmp_path):
    torch.save({'a': torch.zeros(1)}, tmp_path / 'other.pth')
    (tmp_path / 'text.pth').write_text('no weights')
    misfit = "not a state dict of torchvision's resnet18: it lacks conv1.weight, .*, and has besides a; --pretrained"
    for name, reason in (('other.pth', misfit), ('none.pth', 'no such file'),
                         ('text.pth', 'not a checkpoint')):
        with pytest.raises(UserError, match=f'{name}: {reason}'):
            IQAModel('resnet18', weights=tmp_path / name)


def test_weights_that_cannot_be_downloaded(monkeypatch, tmp_path):
    def no_network(*args, **kwargs):
        raise OSError('no route to host')
    monkeypatch.setattr(torch.hub, 'download_url_to_file', no_network)
    monkeypatch.setenv('TORCH_HOME', str(tmp_path))
    with pytest.raises(UserError, match=r"cannot download .* resnet18 \(no route to host\); .*--weights PATH"):
        IQAModel('resnet18', weights='imagenet')


def test_parameter_groups():
    model = IQAModel('resnet18')
    heads, backbone = parameter_groups(model, .01, .1)
    assert backbone['lr'] == pytest.approx(.001)
    assert len(heads['params']) + len(backbone['params']) == len(list(model.parameters()))
    (heads,) = parameter_groups(model, .01, 0)
    assert not any(p.requires_grad for p in model.features.parameters())
    assert all(p.requires_grad for p in heads['params'])


@pytest.fixture
def golden(shared):
    spec = importlib.util.spec_from_file_location('fill', shared / 'golden' / 'fill.py')
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    return np.load(shared / 'golden' / 'models.npz', allow_pickle=False), fill


@pytest.mark.parametrize('i', range(5))
def test_the_originals_names_and_outputs(golden, i):
    numbers, fill = golden
    options, h, w = json.loads(str(numbers['configs']))[i]
    model = fill.fill(IQAModel(**options))
    keys = {name: list(tensor.shape) for name, tensor in model.state_dict().items()}
    assert list(keys.items()) == list(json.loads(str(numbers[f'{i}/keys'])).items())
    with torch.no_grad():
        for mode, n in ((False, 2), (True, 4)):
            outputs = torch.cat(model.train(mode)(fill.batch(n, h, w)), 1)
            assert_close(outputs, torch.tensor(numbers[f'{i}/{"train" if mode else "eval"}']), atol=2e-3, rtol=2e-3)


@pytest.mark.parametrize('form', ['plain', 'compiled', 'parallel', 'compiled and parallel', 'wrapped', 'safetensors',
                                  'without classifier', 'before counts'])
def test_weights_and_pretrained_take_the_same_files(form, tmp_path):
    state = BACKBONES['resnet18'].network().state_dict()
    prefix = {'compiled': '_orig_mod.', 'parallel': 'module.', 'compiled and parallel': '_orig_mod.module.'}
    file = tmp_path / ('w.safetensors' if form == 'safetensors' else 'w.pth')
    content = {prefix.get(form, '') + name: tensor for name, tensor in state.items()
               if not (form == 'without classifier' and name.startswith('fc.'))
               and not (form == 'before counts' and name.endswith('num_batches_tracked'))}
    if form == 'safetensors':
        from safetensors.torch import save_file
        save_file(content, file)
    else:
        torch.save({'state_dict': content} if form == 'wrapped' else content, file)
    models = [IQAModel('resnet18', weights=file), IQAModel('resnet18')]
    load_pretrained(models[1], file)
    for model in models:
        found = {name: tensor for name, tensor in model.state_dict().items() if name.startswith('features.')}
        for there, here in model.other_names()['the torchvision network'].items():
            assert torch.equal(found[here], state[there]), there


def test_a_checkpoint_of_a_compiled_network_is_named_by_weights_and_taken_by_pretrained(tmp_path):
    model = IQAModel('resnet18')
    compiled = {name.replace('features.', 'features._orig_mod.'): value for name, value in model.state_dict().items()}
    torch.save({'model': compiled, 'k': [1.] * 3, 'b': [0.] * 3}, tmp_path / 'c.pth')
    other = IQAModel('resnet18')
    load_pretrained(other, tmp_path / 'c.pth')
    scored = load(tmp_path / 'c.pth', architecture='resnet18').network
    for found in (other, scored):
        assert all(torch.equal(value, found.state_dict()[name]) for name, value in model.state_dict().items())
    with pytest.raises(UserError, match='--weights .*c.pth: .*it lacks conv1.weight.*; --pretrained takes checkpoints'):
        IQAModel('resnet18', weights=tmp_path / 'c.pth')


def test_a_parameter_of_a_network_needs_no_flag(monkeypatch):
    class Deep(Network):
        def __init__(self, depth: int = 3):
            super().__init__()
            self.depth = depth
    monkeypatch.setitem(NETWORKS, 'deep', Entry(Deep, 'tests'))
    assert build_model(TRAIN.parse(['-arch', 'deep'])).depth == 3


@pytest.mark.parametrize(('options', 'message'), [
    ({'P7': 0}, 'P7: 0 is out of range: at least 1'), ({'P6': 1.5}, "P6: '1.5' is not a whole number"),
    ({'pool': 'sum'}, "pool: unknown pool 'sum'"), ({'lora': 'dr6*', 'rank': 0}, 'rank 0: expected at least 1')])
def test_values_that_the_command_line_refuses(options, message):
    with pytest.raises(UserError, match=message):
        create_model('resnet18', **options)
