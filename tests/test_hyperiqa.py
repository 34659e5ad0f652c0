"""HyperIQA: its oracles, the recorded numbers, its groups and rates, and the files that it starts from."""
import copy
import json

import pytest
import torch
from golden import cases, filling, images, recorded, weights
from torch import nn
from torch.testing import assert_close

from iqa_networks.normalise import NORMALISATIONS
from iqa_networks.pretrained import load_pretrained
from iqa_networks.svd_layers import factored_layers
from iqa_runtime.errors import UserError
from iqa_training.optimizers import OPTIMIZERS, build_optimizer, forget, hyperiqa_groups
from iqa_training.options import TRAIN
from iqa_training.schedules import HYPERIQA_RATES, build_schedule, hyperiqa_rates
from IQAmodel import create_model

pytestmark = pytest.mark.usefixtures('one_thread')
SMALL = 'timm/tf_efficientnet_lite0'


@pytest.fixture(scope='module')
def small():
    torch.manual_seed(0)
    return create_model('hyperiqa', backbone=SMALL).double().eval()


@pytest.fixture(scope='module')
def published():
    torch.manual_seed(0)
    return create_model('hyperiqa')


def some_images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 224, 224, dtype=torch.float64, generator=torch.Generator().manual_seed(count)) * 2 - 1


@torch.no_grad()
def scores(network: nn.Module, x: torch.Tensor) -> torch.Tensor:
    return network(x)[0][:, 0]


# Oracles

def test_the_score_of_an_image_does_not_depend_on_the_batch(small):
    x = some_images(2)
    y = scores(small, x)
    assert y.shape == (2,)
    assert y.std() > 0
    assert_close(scores(small, x[1:]), y[1:], rtol=0, atol=1e-12)
    assert_close(scores(small, x.flip(0).to(memory_format=torch.channels_last)), y.flip(0), rtol=0, atol=1e-12)


@torch.no_grad()
def test_generators_of_nothing_but_the_last_bias_give_it_as_the_score(small):
    kept = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    for name, parameter in small.named_parameters():
        if name.startswith('fc'):
            parameter.fill_(3.25 if name == 'fc5b_fc.bias' else 0)
    assert_close(scores(small, some_images(2)), torch.full((2,), 3.25, dtype=torch.float64), rtol=0, atol=1e-12)
    small.load_state_dict(kept)


@torch.no_grad()
def test_empty_layers_below_the_last_one_give_it_halves(small):
    kept = {name: tensor.clone() for name, tensor in small.state_dict().items()}
    for name, parameter in small.named_parameters():
        if name.startswith('fc') and not name.startswith('fc5'):
            parameter.zero_()
    x = some_images(2)
    mean = small.conv1(small.res(x)[1]).mean((2, 3))
    half = .5 * small.fc5w_fc(mean).sum(1) + small.fc5b_fc(mean)[:, 0]
    assert_close(scores(small, x), half, rtol=0, atol=1e-12)
    small.load_state_dict(kept)


def test_the_target_network_against_loops(small):
    x = some_images(2)
    with torch.no_grad():
        described, last = small.res(x)
        layers = small.generate(last)
    for n in range(2):
        q = described[n]
        for i, (matrix, bias) in enumerate(layers):
            q = torch.stack([sum(w * v for w, v in zip(row, q, strict=True)) for row in matrix[n]]) + bias[n]
            q = q if i == 4 else 1 / (1 + torch.exp(-q))
        assert_close(scores(small, x)[n:n + 1], q, rtol=0, atol=1e-10)
    assert [tuple(matrix.shape[1:]) for matrix, _ in layers] == [(112, 224), (56, 112), (28, 56), (14, 28), (1, 14)]


def test_two_groups_hold_every_parameter_once(published):
    hyper, backbone = hyperiqa_groups(published)
    assert sum(p.numel() for p in hyper) == 3_391_977
    assert sum(p.numel() for p in backbone) == 23_983_392
    assert len({*hyper, *backbone}) == len([*hyper, *backbone]) == len(list(published.parameters()))


def test_macs_are_those_of_a_resnet_and_a_twentieth_more(published):
    macs = 0

    def count(layer, inputs, output):
        nonlocal macs
        macs += layer.weight.numel() * (output[0, 0].numel() if output.ndim == 4 else 1)
    handles = [layer.register_forward_hook(count) for layer in published.modules()
               if isinstance(layer, (nn.Conv2d, nn.Linear))]
    scores(published.eval(), torch.zeros(1, 3, 224, 224))
    for handle in handles:
        handle.remove()
    assert macs / 1e9 == pytest.approx(4.09 + .20, abs=.01)


# Groups and rates

def test_rates_are_those_of_the_published_code(shared):
    rates = json.loads(str(recorded(shared, 'hyperiqa')['lr']))
    assert set(rates) == set(HYPERIQA_RATES)
    for variant, rows in rates.items():
        assert [list(hyperiqa_rates(variant, epoch)) for epoch in range(len(rows))] == rows


@pytest.mark.parametrize('variant', HYPERIQA_RATES)
def test_a_run_has_these_rates(variant, small):
    words = f'-arch hyperiqa --schedule hyperiqa -lr 2e-4 -flr .1 -e 16 --rates {variant}'
    args = TRAIN.parse(words.split())
    optimizer = build_optimizer(args, small)
    schedule = build_schedule(args, optimizer, 3)
    assert schedule.unit == 'epoch'
    for epoch in range(16):
        wanted = [rate or 0 for rate in hyperiqa_rates(variant, epoch)]
        assert [group['lr'] for group in optimizer.param_groups] == pytest.approx(wanted, rel=1e-12)
        optimizer.step()
        schedule.step()


def test_a_warm_up_leads_both_parts_to_their_rates(small):
    args = TRAIN.parse(['-arch', 'hyperiqa', '--schedule', 'hyperiqa', '-lr', '2e-4', '-flr', '.1', '--warmup', '4'])
    optimizer = build_optimizer(args, small)
    schedule, rates = build_schedule(args, optimizer, 3), []
    for _ in range(5):
        rates.append([group['lr'] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    shares = [.25, .5, .75, 1, 1]
    assert rates == [pytest.approx([2e-4 * share, 2e-5 * share]) for share in shares]


@pytest.mark.parametrize(('words', 'message'), [
    ('-arch hyperiqa -flr 0', 'hyperiqa needs a backbone, and neither part may be frozen'),
    ('-arch hyperiqa --freeze res', 'neither part may be frozen'),
    ('-arch cnniqa', 'cnniqa needs a backbone'),
])
def test_two_rates_need_two_parts(words, message):
    args = TRAIN.parse(f'--schedule hyperiqa {words}'.split())
    network = create_model(args.architecture, **({'backbone': SMALL} if 'hyper' in words else {}))
    with pytest.raises(UserError, match=message):
        build_schedule(args, build_optimizer(args, network), 3)


@pytest.mark.parametrize('name', OPTIMIZERS)
def test_a_renewed_optimizer_steps_like_a_new_one(name):
    def steps(network, optimizer, count):
        for _ in range(count):
            optimizer.zero_grad()
            network(torch.linspace(-1, 1, 12).view(4, 3)).square().mean().backward()
            optimizer.step()
    args = TRAIN.parse(['--optimizer', name, '-lr', '.1', *(['--momentum', '.9'] if name == 'sgd' else [])])
    network = Plain(3)
    old = build_optimizer(args, network)
    steps(network, old, 3)
    twin = copy.deepcopy(network)
    forget(old)
    steps(network, old, 3)
    steps(twin, build_optimizer(args, twin), 3)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), twin.parameters(), strict=True))


class Plain(nn.Linear):
    """A layer that is a network without a backbone."""

    backbone = None

    def __init__(self, inputs):
        super().__init__(inputs, 1)


# Mistakes

@pytest.mark.parametrize('size', [(223, 224), (224, 256), (32, 32)])
def test_another_size_is_refused_in_one_line(small, size):
    with pytest.raises(UserError, match=rf'images of {size[0]}x{size[1]} \(h x w\) for a network of 224x224: .*crops'):
        small(torch.zeros(1, 3, *size))


@pytest.mark.parametrize(('backbone', 'message'), [
    ('timm/vit_tiny_patch16_224', 'four feature levels are needed, and it has 3: 192 channels at 1/16'),
    ('resnet5', 'unknown backbone .resnet5. .did you mean resnet50'),
    ('timm/resnet5', 'unknown network of timm'),
])
def test_a_backbone_that_does_not_fit_is_refused(backbone, message):
    with pytest.raises(UserError, match=message):
        create_model('hyperiqa', backbone=backbone)


# Files

def test_files_of_the_authors_and_of_others_load_by_their_names(published, tmp_path):
    own = published.state_dict()
    torch.save(own, tmp_path / 'koniq_pretrained.pkl')
    pyiqa = {}
    for name, tensor in own.items():
        part, _, rest = name.partition('.')
        layer = rest.rpartition('.')[0]
        k = next((int(letter) for letter in (layer if part == 'res' else part) if letter.isdigit()), 0) - 1
        end = name.rpartition('.')[2]
        if layer.startswith('lda'):
            place = '3.2' if k == 3 else f'{k}.{0 if "pool" in layer else 3}'
            pyiqa[f'lda_modules.{place}.{end}'] = tensor
        elif part == 'res':
            pyiqa[f'base_model.{rest}'] = tensor
        elif part.startswith('fc'):
            pyiqa[f'fc_{part[3]}_modules.{k}{".2" if part.endswith("_fc") else ""}.{end}'] = tensor
        else:
            pyiqa[name] = tensor
    torch.save({'params': pyiqa}, tmp_path / 'HyperIQA-resnet50-koniq10k.pth')
    backbone = {name.removeprefix('res.'): tensor for name, tensor in own.items() if name.startswith('res.')
                and '.lda' not in name} | {'fc.weight': torch.zeros(1000, 2048), 'fc.bias': torch.zeros(1000)}
    torch.save(backbone, tmp_path / 'resnet50.pth')
    network = create_model('hyperiqa')
    for file, whose, count in (('koniq_pretrained.pkl', 'the network', len(own)),
                               ('HyperIQA-resnet50-koniq10k.pth', "pyiqa's HyperNet", len(own)),
                               ('resnet50.pth', 'the backbone', len(backbone) - 2)):
        for parameter in network.parameters():
            parameter.data.fill_(7)
        assert f'{count} of {len(own)} tensors are those of {whose}' in load_pretrained(network, tmp_path / file)
        loaded = network.state_dict()
        assert sum(torch.equal(loaded[name], tensor) for name, tensor in own.items()) == count


def test_a_backbone_of_timm_starts_from_its_own_file(small, tmp_path):
    import timm
    network = timm.create_model('tf_efficientnet_lite0')
    torch.save(network.state_dict(), tmp_path / 'lite0.pth')
    loaded = create_model('hyperiqa', backbone=SMALL, weights=tmp_path / 'lite0.pth').res.features.network
    assert torch.equal(loaded.conv_stem.weight, network.conv_stem.weight)
    assert 'the backbone' in load_pretrained(create_model('hyperiqa', backbone=SMALL), tmp_path / 'lite0.pth')


def test_factored_layers_are_trained_by_their_singular_values_and_start_as_the_plain_ones(small):
    torch.manual_seed(0)
    network = create_model('hyperiqa', backbone=SMALL, svd='fc*w_conv').double().eval()
    assert [name for name, _ in factored_layers(network)] == ['fc1w_conv', 'fc2w_conv', 'fc3w_conv', 'fc4w_conv']
    x = some_images(1)
    assert_close(scores(network, x), scores(small, x), rtol=0, atol=1e-6)


# The recorded numbers

@pytest.fixture(scope='module')
def original(shared):
    return filling(shared), recorded(shared, 'hyperiqa'), json.loads(
        (shared / 'golden' / 'systems' / 'hyperiqa_names.json').read_text())


def filled(original, salt: str, gain: float) -> nn.Module:
    made, _, names = original
    network = create_model('hyperiqa').double().eval()
    network.load_state_dict(weights(made, names['shapes'], salt, gain), strict=False)
    return network


def normalised(x: torch.Tensor) -> torch.Tensor:
    return NORMALISATIONS['imagenet'](x)


def measured(made, name: str, value: torch.Tensor) -> list[float]:
    along = torch.tensor(made.probe(name, tuple(value.shape)))
    return [float(value.norm()), float((value * along).sum())]


def test_names_and_shapes_are_the_originals(original, published):
    _, _, names = original
    own = {name: list(tensor.shape) for name, tensor in published.state_dict().items() if 'num_batches' not in name}
    assert own == names['shapes']
    assert sum(p.numel() for p in published.parameters()) == names['parameters'] == 27_375_369


@pytest.mark.parametrize('number', [pytest.param(0, marks=pytest.mark.slow), 1])
def test_outputs_gradients_and_batch_statistics_are_the_originals(original, number):
    made, numbers, _ = original
    case = cases(numbers, 'cases')[number]
    x = normalised(images(made, range(case['seed'], case['seed'] + case['n']), 224, 224)).requires_grad_()
    network = filled(original, case['salt'], case['gain'])
    y = network(x)[0][:, 0]
    y.sum().backward()
    assert_close(y.detach(), torch.tensor(numbers[f'{number}/eval']), rtol=0, atol=1e-8)
    assert_close(scores(network, x.detach()[:1]), torch.tensor(numbers[f'{number}/one']), rtol=0, atol=1e-8)
    parameters = dict(network.named_parameters())
    for name, (norm, dot) in zip(case['grad_names'], numbers[f'{number}/grad'].tolist(), strict=True):
        found = measured(made, name, x.grad if name == 'input' else parameters[name].grad)
        assert found == pytest.approx([norm, dot], rel=0, abs=1e-7 * norm), name
    with torch.no_grad():
        described, last = network.res(x)
        parts = [described, *(part for layer in network.generate(last) for part in layer)]
    for name, part, row in zip(case['part_names'], parts, numbers[f'{number}/parts'].tolist(), strict=True):
        found = [*measured(made, name, part.flatten(1)), float(part.mean())]
        assert found == pytest.approx(row, rel=1e-8, abs=1e-8), name
    network.train()
    assert_close(scores(network, x.detach()), torch.tensor(numbers[f'{number}/train']), rtol=0, atol=1e-6)
    statistics = network.state_dict()
    for name, row in zip(case['stats_names'], numbers[f'{number}/stats'].tolist(), strict=True):
        assert measured(made, name, statistics[name]) == pytest.approx(row, rel=0, abs=1e-6 * row[0]), name


@pytest.mark.slow
@pytest.mark.parametrize(('variant', 'later'), [('intended', (0, 1)), ('as_run', (1,))])
def test_training_steps_are_the_originals(original, variant, later):
    """`later`: the groups that are trained from the second epoch on."""
    made, numbers, _ = original
    case = cases(numbers, 'train/case')
    n, steps = case['n'], case['steps']
    x = normalised(images(made, range(case['seed'], case['seed'] + n * steps), 224, 224))
    network = filled(original, case['salt'], case['gain'])
    parameters = dict(network.named_parameters())
    start = {name: parameters[name].detach().clone() for name in case['watch']}
    target, losses = torch.tensor(case['target'], dtype=torch.float64), []
    network.train()
    for epoch in range(case['epochs']):
        groups = [{'params': part, 'lr': lr} for part, lr in
                  zip(hyperiqa_groups(network), reversed(case['lr']), strict=True)]
        optimizer = torch.optim.Adam([groups[i] for i in ((0, 1) if epoch == 0 else later)],
                                     weight_decay=case['weight_decay'])
        for step in range(steps):
            network.zero_grad()
            batch = slice(step * n, step * n + n)
            loss = nn.functional.l1_loss(network(x[batch])[0][:, 0], target[batch])
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    assert losses == pytest.approx(numbers[f'train/{variant}/loss'].tolist(), rel=1e-4)
    moved = [measured(made, name, parameters[name].detach() - start[name]) for name in case['watch']]
    for name, found, row in zip(case['watch'], moved, numbers[f'train/{variant}/moved'].tolist(), strict=True):
        assert found == pytest.approx(row, rel=0, abs=1e-4 * row[0]), name
    assert_close(scores(network.eval(), x), torch.tensor(numbers[f'train/{variant}/eval']), rtol=1e-4, atol=0)
