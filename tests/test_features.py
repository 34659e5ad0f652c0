"""Pooled features computed once: the same training as without, its files, variants of images, probes, mistakes."""
import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import SMALL
from hypothesis import given
from hypothesis import strategies as st
from mini import MINI, stop_at
from PIL import Image
from torch.testing import assert_close

import hubconf
import main
import test_dataset
import test_demo
from iqa_data.augmentation import Augmentation, FixedAugmentation
from iqa_data.samplers import Shuffled
from iqa_runtime.checkpoint import load_checkpoint
from iqa_training import features
from iqa_training.ridge import Ridge, penalties
from IQAmodel import NETWORKS, create_model

FROZEN = ['--freeze', 'features']
WORDS = [*SMALL, *MINI, '-bs', '4', '-e', '3', '-lr', '.01', '-optl', 'O0']
CROPS = ['-cs_h', '40', '-cs_w', '40']
pytestmark = pytest.mark.usefixtures('one_thread')


def trained(folder: str, *words: str) -> dict:
    """Train with these words; return the checkpoint."""
    main.main([*words, '--checkpoint_dir', folder])
    (file,) = Path(folder).glob('*.pth')
    return load_checkpoint(file)


def largest_difference(one: dict, other: dict) -> float:
    assert set(one) == set(other)
    return max((one[name].double() - other[name].double()).abs().max().item() for name in one)


# The same training

@pytest.mark.parametrize('options', [
    [], ['--ema', '.8', '--loss_type', 'mse+plcc', '--target', '0', '100', '-valc', 'loss', '-accum', '2'],
    ['--augmentation', 'hflip', 'crop', *CROPS, '--fixed_augmentations', '3'],
    ['--test_crops', '4', *CROPS, '--augmentation', 'crop', '--fixed_augmentations', '2', '--val_every', '3'],
    ['--P7', '2', '--pool', 'mean_std', '--cache', 'ram', '-tdt']])
def test_a_run_on_cached_features_ends_as_one_without(tiny, options):
    words = [*tiny, *WORDS, *FROZEN, *options]
    computed, cached = trained('computed', *words), trained('cached', *words, '--features', 'cached')
    assert largest_difference(computed['model'], cached['model']) <= 1e-5
    assert cached['epoch'] == computed['epoch']
    for part, metrics in computed['metrics'].items():
        assert cached['metrics'][part] == pytest.approx(metrics, abs=1e-5)


@pytest.mark.parametrize('options', [
    ['-arch', 'cnniqa', '--freeze', 'conv1', '--dropout', '.3'],
    ['-arch', 'hyperiqa', '--backbone', 'timm/test_resnet', '--weights', 'none', '--freeze', 'res', '--enlarge',
     '--augmentation', 'hflip', 'crop', '-cs_h', '224', '-cs_w', '224', '--fixed_augmentations', '2',
     '--test_crops', '2']])
def test_a_run_of_another_system_on_cached_features_ends_as_one_without(tiny, options):
    words = [*tiny, '--loss_type', 'mse', '--target', '0', '100', '-bs', '4', '-e', '2', '--device', 'cpu', '--no-pbar',
             '--num_workers', '0', *options]
    computed, cached = trained('computed', *words), trained('cached', *words, '--features', 'cached')
    assert largest_difference(computed['model'], cached['model']) <= 1e-5


def test_a_backbone_at_learning_rate_0_keeps_its_statistics(tiny):
    words = [*tiny, *WORDS, '--features', 'cached']
    cached, frozen = trained('zero', *words, '-flr', '0'), trained('frozen', *words, *FROZEN)
    assert largest_difference(cached['model'], frozen['model']) == 0
    assert cached['model']['features.1.num_batches_tracked'] == 0


def test_a_stopped_run_ends_as_the_whole_one(tiny, monkeypatch):
    words = [*tiny, *WORDS, *FROZEN, '--features', 'cached', '--augmentation', 'crop', *CROPS,
             '--fixed_augmentations', '4']
    whole = trained('whole', *words, '--log_dir', 'others')
    stop_at(monkeypatch, 2, 5)
    for _ in range(2):
        with pytest.raises(SystemExit):
            main.main([*words, '--resume', 'auto'])
    assert largest_difference(whole['model'], trained('checkpoints', *words, '--resume', 'auto')['model']) == 0


def test_large_images_go_through_the_trunk_few_at_a_time(tiny, monkeypatch):
    words = [*tiny, *WORDS, *FROZEN, '--features', 'cached', '-e', '1']
    whole = trained('whole', *words, '--cache_dir', 'other')
    monkeypatch.setattr(features, 'AT_ONCE', 2 * 64 * 48)
    counts, pooled_of = [], features.pooled_of
    monkeypatch.setattr(features, 'pooled_of', lambda network, images, crops: (
        counts.append(len(images)) or pooled_of(network, images, crops)))
    assert largest_difference(whole['model'], trained('few', *words)['model']) <= 1e-5
    assert max(counts) == 2


def test_the_checkpoint_is_a_usual_one(tiny, capsys):
    made = trained('checkpoints', *tiny, *WORDS, *FROZEN, '--features', 'cached')
    (file,) = Path('checkpoints').glob('*.pth')
    score = test_demo.main(['--img', 'tiny/images/00.png', '-modelfile', str(file), '--map', 'map.png'])
    assert hubconf.linearity_iqa(str(file)).score('tiny/images/00.png') == pytest.approx(score, abs=1e-4)
    tested = test_dataset.main(['-modelfile', str(file), '--im_dir', 'tiny/images', '--no-pbar', '--device', 'cpu'])
    assert tested.srocc == pytest.approx(made['metrics']['test']['SROCC'])


@pytest.mark.parametrize('name', [name for name, row in NETWORKS.items() if not row.svd and row.system in
                                  ('LinearityIQA', 'SVD-CNNIQA', 'HyperIQA')])
def test_networks_are_their_trunk_and_what_is_behind_it(name):
    with torch.device('meta'):
        network = create_model(name).eval()
        x = torch.zeros(2, 3, 224, 224)
        pooled = network.pooled(x)
        shapes = [head.shape for head in network(x)]
        assert [head.shape for head in network.regress(*pooled)] == shapes
        assert network.described(*pooled).shape == (2, network.width)
        trunk = network.get_submodule(network.trunk)
        assert network.backbone in (None, trunk)


# Files of features

def computed_again(out: str) -> bool:
    return 'Computing the features' in out


def test_features_are_computed_once_and_again_if_they_are_not_right(tiny, capsys):
    words = [*tiny, *WORDS, *FROZEN, '--features', 'cached', '-e', '1']

    def run(*more: str) -> str:
        main.main([*words, *more])
        return capsys.readouterr().out
    assert computed_again(run())
    before = set(Path('cache').glob('*.npy'))
    (file,) = (path for path in before if 'crcs' in json.loads(path.with_suffix('.json').read_text())
               and 'sizes' not in json.loads(path.with_suffix('.json').read_text()))
    assert not computed_again(run('--loss_type', 'mse', '--seed', '7', '--pretrained', str(next(
        Path('checkpoints').glob('*.pth')))))  # the same trunk
    assert computed_again(run('--seed', '8'))  # other weights
    main.main([*tiny, *SMALL, *MINI, *FROZEN, '-bs', '4', '-e', '1', '--probe', 'ridge'])
    assert not computed_again(capsys.readouterr().out)
    assert file in set(Path('cache').glob('*.npy'))
    values = np.load(file)
    values[3, 5] += 1
    np.save(file, values)
    out = run()
    assert f'The features {file} are not right (damaged): they are computed again' in out
    assert not computed_again(run())
    np.save(file, values[:, :-1])
    assert 'are not right (of another size)' in run()
    file.with_suffix('.json').write_text('{')
    assert computed_again(run())
    Image.open('tiny/images/03.png').rotate(180).save('tiny/images/03.png')
    assert 'are not right (made with images that are others now)' in run()


def test_every_split_of_a_data_set_has_the_same_features(tiny, capsys):
    words = [*tiny, *WORDS, *FROZEN, '--features', 'cached', '-e', '1', '--exp_id']
    main.main([*words, '0'])
    capsys.readouterr()
    main.main([*words, '1'])
    assert not computed_again(capsys.readouterr().out)


def test_a_read_only_cache_is_read(tiny, capsys):
    words = [*tiny, *WORDS, *FROZEN, '--features', 'cached', '-e', '1']
    main.main(words)
    capsys.readouterr()
    for path in Path('cache').iterdir():
        path.chmod(0o444)
    os.chmod('cache', 0o555)
    try:
        main.main([*words, '--loss_type', 'mse'])
    finally:
        os.chmod('cache', 0o755)
    assert not computed_again(capsys.readouterr().out)


# Variants of images

@given(seed=st.integers(0, 2 ** 64 - 1), name=st.text(min_size=1), variant=st.integers(0, 99))
def test_a_variant_is_always_the_same_and_draws_nothing_from_the_global_generator(seed, name, variant):
    image = Image.linear_gradient('L').convert('RGB')
    fixed = FixedAugmentation(Augmentation(('hflip', 'crop'), crop_size_h=9, crop_size_w=9), 100, seed)
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    (one,) = fixed(name, variant, image)
    assert torch.equal(torch.rand(3), expected)
    (again, pair) = fixed(name, variant, image, image)
    assert one.tobytes() == again.tobytes() == pair.tobytes()


def test_variants_differ():
    image = Image.effect_noise((64, 64), 90).convert('RGB')
    fixed = FixedAugmentation(Augmentation(('crop',), crop_size_h=32, crop_size_w=32), 9, 5)
    assert len({fixed('a.png', variant, image)[0].tobytes() for variant in range(9)}) > 5
    assert fixed('a.png', 0, image)[0].tobytes() != fixed('b.png', 0, image)[0].tobytes()


@given(count=st.integers(1, 50), variants=st.integers(1, 9), seed=st.integers(0, 99))
def test_an_epoch_has_one_variant_of_each_image(count, variants, seed):
    torch.manual_seed(seed)
    order, plain = Shuffled(count, variants), Shuffled(count)
    for _ in range(3):
        rows = list(order)
        assert [row % count for row in rows] == list(plain)
        assert all(0 <= row < count * variants for row in rows)


# Probes

@given(rows=st.integers(2, 30), columns=st.integers(1, 40), penalty=st.floats(1e-5, 1e4), seed=st.integers(0, 999))
def test_ridge_regression_is_the_solution_of_the_normal_equations(rows, columns, penalty, seed):
    rng = np.random.default_rng(seed)
    x = rng.normal(3, rng.uniform(.1, 9, columns), (rows, columns))
    y = rng.normal(50, 10, rows)
    x[:, 0] = 7.3  # a constant tells nothing
    weight, bias = Ridge(x, y).at(penalty)
    assert weight[0] == 0
    if columns > 1:
        z = (x[:, 1:] - x[:, 1:].mean(0)) / x[:, 1:].std(0)
        expected = np.linalg.solve(z.T @ z / rows + penalty * np.eye(columns - 1), z.T @ (y - y.mean()) / rows)
        np.testing.assert_allclose(x @ weight + bias, y.mean() + z @ expected, rtol=1e-6, atol=1e-6)
    else:
        assert bias == pytest.approx(y.mean())


def test_a_probe_is_the_ridge_regression_whose_penalty_validates_best(tiny, capsys):
    words = [*tiny, *WORDS[:-4], *FROZEN, '--probe', 'ridge', '-e', '7', '-valc', 'RMSE']
    made = trained('checkpoints', *words)
    assert made['network']['options']['probe'] == 'ridge'
    assert set(made['model']) == {name for name in create_model('mini').state_dict() if name.startswith('features')
                                  } | {'probe.weight', 'probe.bias'}
    (file,) = Path('checkpoints').glob('*.pth')
    scorer = hubconf.linearity_iqa(str(file))
    pixels = {name: torch.from_numpy(np.array(Image.open(f'tiny/images/{name}'))).permute(2, 0, 1)[None]
              for names in made['split'].values() for name in names}

    def described(part):
        with torch.no_grad():
            return torch.cat([scorer.network.described(*scorer.network.pooled(*scorer.network.prepare(pixels[name])))
                              for name in made['split'][part]]).double().numpy()
    info = dict(zip(*[pd_column(column) for column in ('image', 'mos')], strict=True))
    mos = {part: np.array([info[name] for name in names]) for part, names in made['split'].items()}
    x = {part: described(part) for part in made['split']}
    fits = [Ridge(x['train'], mos['train']).at(penalty) for penalty in penalties(7)]
    errors = []
    for weight, bias in fits:
        raw = x['val'] @ weight + bias
        k, b = np.polyfit(raw, mos['val'], 1)
        errors.append(np.sqrt(np.mean((k * raw + b - mos['val']) ** 2)))
    best = int(np.argmin(errors))
    assert made['epoch'] == best + 1
    assert_close(made['model']['probe.weight'][0].double(), torch.tensor(fits[best][0]), rtol=1e-3, atol=1e-4)
    assert np.isfinite(test_demo.main(['--img', 'tiny/images/00.png', '-modelfile', str(file), '--map', 'map.png']))


def pd_column(name: str) -> list:
    """A column of the tiny set."""
    from iqa_data.info import read_info
    info = read_info('tiny/info.mat')
    return list(info.names) if name == 'image' else list(info.mos)


def test_a_ratio_for_a_backbone_that_the_network_lacks_is_reported(tiny, capsys):
    main.main([*tiny, *SMALL, '-arch', 'cnniqa', '-lt', 'mse', '-e', '1', '--debug', '--ft_lr_ratio', '0'])
    assert 'WARNING: cnniqa has no backbone, so that --ft_lr_ratio has no effect' in capsys.readouterr().out


def test_a_probe_of_every_kind_of_network_scores():
    for name, size in (('cnniqa', 40), ('resnet18', 64)):
        network = create_model(name, probe='ridge').eval()
        with torch.no_grad():
            (score,) = network(torch.rand(2, 3, size, size))
            assert score.shape == (2, 1)
            assert network.local(torch.rand(2, 3, 96, 128)).shape[0] == 2
    with torch.device('meta'):
        (score,) = create_model('hyperiqa', probe='ridge')(torch.zeros(2, 3, 224, 224))
    assert score.shape == (2, 1)


# Mistakes

@pytest.mark.parametrize(('words', 'message'), [
    (['--features', 'cached'], '--features cached needs a frozen backbone: --ft_lr_ratio 0, or --freeze'),
    (['--features', 'cached', '--freeze', 'features.0'], "a part of it is trained: --freeze 'features' freezes all"),
    (['--probe', 'ridge'], '--probe ridge needs a frozen backbone'),
    (['--probe', 'ridge', '--freeze', 'features.1'],
     '--probe ridge needs a frozen backbone, and a part of it is trained'),
    (['--probe', 'lasso', *FROZEN], 'ridge'),
    (['--probe', 'ridge', *FROZEN, '--loss_type', 'mse'], '--loss_type: --probe ridge is solved at once'),
    (['--probe', 'ridge', *FROZEN, '--ema', '.9'], '--ema: --probe ridge is solved at once'),
    (['--probe', 'ridge', *FROZEN, '-wd', '.1'], '--weight_decay: --probe ridge is solved at once'),
    (['--probe', 'ridge', *FROZEN, '-a', '1', '1'], '--alpha: --probe ridge is solved at once'),
    (['--probe', 'ridge', *FROZEN, '--warmup', '2'], '--warmup: --probe ridge is solved at once'),
    (['--features', 'cached', *FROZEN, '--augmentation', 'hflip'], '--fixed_augmentations K draws K of each image'),
    (['--fixed_augmentations', '3'], '--fixed_augmentations 3 needs --augmentation'),
    (['--fixed_augmentations', '0', '--augmentation', 'hflip'], '0 is out of range'),
    (['--fixed_augmentations', '3', '--augmentation', 'crop', *CROPS, '--train_crops', '2'], 'give one of them'),
    (['--features', 'cached', '-flr', '0', '-arch', 'maniqa_tiny', '-rs_h', '128', '-rs_w', '128'],
     '--features cached: maniqa_tiny has no trunk'),
    (['--features', 'cached', *FROZEN, '--lora', 'features.0', '--freeze', 'features*weight', 'features*bias'],
     'a part of it is trained')])
def test_mistakes(tiny, fails, words, message):
    assert message in fails(main.main, *tiny, *SMALL, *MINI, *words)
