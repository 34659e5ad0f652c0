"""LoRA: identity at the start, merging, what is trained, counts, training through the commands, mistakes."""
import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from mini import MINI
from torch import nn
from torch.testing import assert_close

import hubconf
import main
import test_demo
from iqa_networks.adapted_layers import adapted_layers, count_parameters, merge, merged
from iqa_networks.lora_layers import LowRank, add_low_rank
from iqa_networks.pretrained import load_pretrained
from iqa_runtime.checkpoint import load_checkpoint
from IQAmodel import create_model

WORDS = [*SMALL, *MINI, '-bs', '4', '-e', '2', '-optl', 'O0', '-lr', '.01']


def layers():
    """Layers of all kinds, with an input of each."""
    return st.sampled_from([
        (nn.Linear(7, 5), (2, 7)), (nn.Linear(9, 1, bias=False), (3, 4, 9)), (nn.Conv2d(3, 8, 3), (2, 3, 9, 8)),
        (nn.Conv2d(4, 6, (3, 2), stride=2, padding=1, groups=2, dilation=2, bias=False), (2, 4, 9, 8)),
        (nn.Conv2d(6, 6, 3, groups=6), (1, 6, 5, 5)), (nn.Conv2d(3, 5, 3, padding='same', padding_mode='reflect'),
                                                       (1, 3, 7, 7))])


@given(kind=layers(), rank=st.integers(1, 12), alpha=st.none() | st.floats(.1, 30), seed=st.integers(0, 99))
def test_a_layer_starts_as_the_plain_one_and_computes_with_the_weight_and_the_product(kind, rank, alpha, seed):
    plain, shape = copy.deepcopy(kind[0]).double(), kind[1]
    torch.manual_seed(seed)
    x = torch.randn(shape, dtype=torch.double)
    network = add_low_rank(nn.Sequential(copy.deepcopy(plain)), '0', rank, alpha)
    assert_close(network(x), plain(x), rtol=0, atol=0)
    layer = network[0]
    nn.init.normal_(layer.lora_b)
    a, b = (part.detach().numpy() for part in (layer.lora_a, layer.lora_b))
    rows = min(rank, *plain.weight.flatten(1).shape)
    assert a.shape == (rows, plain.weight[0].numel())
    assert b.shape == (len(plain.weight), rows)
    product = (1 if alpha is None else alpha / rows) * np.einsum('or,ri->oi', b, a)
    plain.weight.data += torch.tensor(product).view(plain.weight.shape)
    assert_close(network(x), plain(x), rtol=1e-9, atol=1e-9)
    assert_close(merged(network)(x), plain(x), rtol=1e-9, atol=1e-9)
    assert list(merge(network)) == [f'0.{name}' for name in plain.state_dict()]


def test_only_the_products_are_trained_and_they_are_counted():
    network = create_model('resnet18', lora='features.7.*conv*', rank=3)
    plain = create_model('resnet18')
    sizes = [layer.weight.flatten(1).shape for _, layer in adapted_layers(network)]
    assert len(sizes) == 4
    frozen = sum(outputs * inputs for outputs, inputs in sizes)
    trained = sum(3 * (outputs + inputs) for outputs, inputs in sizes)
    every = sum(parameter.numel() for parameter in plain.parameters())
    assert count_parameters(network) == {'trainable': every - frozen + trained, 'plain': every}
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    optimizer = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], .1)
    network.eval()(torch.rand(2, 3, 64, 64))[-1].square().sum().backward()
    optimizer.step()
    for name, layer in adapted_layers(network):
        assert torch.equal(layer.weight, before[f'{name}.weight'])
        assert not torch.equal(layer.lora_b, before[f'{name}.lora_b'])


def test_factored_layers_and_products_in_one_network():
    network = create_model('cnniqa', svd='fc*', lora='conv1', rank=2).eval()
    plain, x = create_model('cnniqa').eval(), torch.rand(2, 3, 20, 20)
    for name, parameter in network.named_parameters():
        if name.endswith(('delta', 'lora_b')):
            nn.init.normal_(parameter, std=.1)
    plain.load_state_dict(merge(network))
    assert_close(plain(x), network(x), rtol=1e-4, atol=1e-5)
    assert [name for name, _ in adapted_layers(network, LowRank)] == ['conv1']


def test_a_plain_file_is_loaded_and_leaves_the_products(tmp_path):
    plain = create_model('cnniqa').eval()
    torch.save(plain.state_dict(), tmp_path / 'plain.pth')
    network, x = create_model('cnniqa', lora='fc*').eval(), torch.rand(2, 3, 20, 20)
    assert 'plain.pth: 8 of 14 tensors' in load_pretrained(network, tmp_path / 'plain.pth')
    assert_close(network(x), plain(x))


@pytest.mark.usefixtures('one_thread')
def test_a_run_trains_them_beside_frozen_weights_and_its_scorer_is_merged(tiny, capsys):
    words = [*tiny, *WORDS, '--lora', 'features.*', '--rank', '2', '--freeze', 'features*weight', 'features*bias',
             '--ema', '.5', '-flr', '1']
    main.main(words)
    assert '2 layers have a product of low rank (features.0, features.3): ' in capsys.readouterr().out
    (file,) = Path('checkpoints').glob('*.pth')
    made = load_checkpoint(file)
    assert {name: made['network']['options'][name] for name in ('lora', 'rank')} == {'lora': 'features.*', 'rank': 2}
    assert made['model']['features.0.lora_b'].abs().max() > 0
    scorer = hubconf.linearity_iqa(str(file))
    assert not list(adapted_layers(scorer.network))
    network = create_model('mini', lora='features.*', rank=2)
    network.load_state_dict(made['model'])
    x = torch.rand(2, 3, 48, 64)
    assert_close(scorer.network(x), network.eval()(x), rtol=1e-4, atol=1e-4)
    assert np.isfinite(test_demo.main(['--img', 'tiny/images/00.png', '-modelfile', str(file)]))


@pytest.mark.parametrize(('words', 'message'), [
    (['--lora', 'x*'], '--lora x*: no linear layer or convolution has a matching name; layers: features.0'),
    (['--rank', '4'], '--rank needs --lora PATTERN'), (['--lora_alpha', '4'], '--lora_alpha needs --lora PATTERN'),
    (['--lora', 'dr*', '--rank', '0'], '0 is out of range: at least 1'),
    (['--lora', 'dr*', '--lora_alpha', '0'], '0 is out of range: above 0')])
def test_mistakes(tiny, fails, words, message):
    assert message in fails(main.main, *tiny, *WORDS, *words)
