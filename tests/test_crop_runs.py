"""Runs that train on several crops of an image and score images by crops: training, testing, scoring, export."""
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL
from mini import MINI, stop_at
from PIL import Image

import IQAmodel
import main
import test_dataset
import test_demo
from iqa_data.crops import Crops, even_crops
from iqa_runtime.checkpoint import load_checkpoint, save_checkpoint
from iqa_runtime.errors import UserError
from iqa_scoring import export
from iqa_studies.cost import macs
from iqa_training.options import TRAIN
from IQAdataset import get_data_loaders

pytestmark = pytest.mark.usefixtures('one_thread')
SCORED = ['--test_crops', '4', '-cs_h', '32', '-cs_w', '32']
WORDS = [*SMALL[1:], *MINI, '-rs_h', '48', '-rs_w', '64', '--augmentation', 'crop', 'hflip', *SCORED, '--train_crops',
         '3', '-e', '2', '-bs', '5', '--seed', '1']


def only(pattern: str) -> Path:
    (path,) = Path().glob(pattern)
    return path


def test_an_epoch_holds_each_image_as_often_as_crops_are_asked_for(tiny):
    data = get_data_loaders(TRAIN.parse([*tiny, *WORDS, '--train_crops', '3']))
    loader = data.training_loader()
    seen = [float(mos) for _, (scores, _) in loader for mos in scores]
    own = data.datasets['train'].mos.flatten().tolist()
    assert sorted(seen) == sorted(own * 3)
    assert seen != sorted(seen)
    assert all(images.shape[2:] == (32, 32) for (images,), _ in loader)


def test_a_run_scores_by_crops_and_tests_as_it_validated(tiny):
    performance = main.main([*tiny, *WORDS])
    table = pd.read_csv(only('results/*.csv'))
    assert (table['spread'] > 0).all()
    np.testing.assert_array_equal(table['spread'], performance.spread)
    checkpoint = torch.load(only('checkpoints/*.pth'), weights_only=True)
    assert Crops(**checkpoint['crops']) == Crops(4, (32, 32))
    again = test_dataset.main([*tiny, '--trained_model_file', str(only('checkpoints/*.pth')), '--device', 'cpu'])
    np.testing.assert_array_equal(again.pq, performance.pq)
    np.testing.assert_array_equal(again.spread, performance.spread)


def test_a_stopped_run_ends_as_a_whole_one(tiny, monkeypatch):
    words = [*tiny, *WORDS, '--renew_optimizer', '--ema', '.9', '--crop_places', 'random', '--schedule', 'hyperiqa',
             '--rates', 'published_as_run', '--svd', 'features.0']
    main.main([*words, '--checkpoint_dir', 'whole'])
    stop_at(monkeypatch, 4, 12)
    for _ in range(2):
        with pytest.raises(SystemExit):
            main.main([*words, '--resume', 'auto'])
    main.main([*words, '--resume', 'auto'])
    whole, resumed = (torch.load(only(f'{folder}/*.pth'), weights_only=True) for folder in ('whole', 'checkpoints'))
    assert all(torch.equal(tensor, resumed['model'][name]) for name, tensor in whole['model'].items())
    assert whole['k'] == resumed['k']


@pytest.fixture
def checkpoint(tiny):
    """A checkpoint that scores by four crops of 32x32, in the working directory of the tiny data set."""
    main.main([*tiny, *WORDS, '-e', '1'])
    return only('checkpoints/*.pth')


def test_scores_of_every_door_are_the_mean_of_the_crops(checkpoint, tiny):
    scorer = IQAmodel.load(checkpoint)
    image = Image.open('tiny/images/03.png').convert('RGB')
    plain = IQAmodel.load({key: value for key, value in load_checkpoint(checkpoint).items() if key != 'crops'})
    crops = [image.crop((left, top, left + 32, top + 32)) for top, left in even_crops(48, 64, 32, 4)]
    each = plain.score(crops)
    score = scorer.score('tiny/images/03.png')
    assert score == pytest.approx(each.mean(), rel=1e-5)
    floats = torch.tensor(np.array(image)).permute(2, 0, 1).float().div(255).requires_grad_()
    as_loss = scorer.score(floats, as_loss=True)
    assert as_loss.item() == pytest.approx(score, rel=1e-5)
    as_loss.backward()
    assert float(floats.grad.abs().sum()) > 0
    words = ['--img', 'tiny/images/02.png', 'tiny/images/03.png', '--trained_model_file', str(checkpoint), '--device',
             'cpu', '--csv', 'out.csv',
             '--map', 'maps', '--report', 'out.html']
    test_demo.main(words)
    row = pd.read_csv('out.csv').set_index('name').loc['tiny/images/03.png']
    assert row['score'] == pytest.approx(score, rel=1e-5)
    assert row['spread'] == pytest.approx(each.std(), rel=1e-4)
    assert len(list(Path('maps').iterdir())) == 2


def test_the_user_may_ask_for_other_crops(checkpoint, tiny):
    file, photo = ['--trained_model_file', str(checkpoint), '--device', 'cpu'], 'tiny/images/03.png'
    own = load_checkpoint(checkpoint)
    for words, crops in (('--test_crops 9', Crops(9, (32, 32))),
                         ('--test_crops 9 --crop_places toolbox -cs_h 24', Crops(9, (24, 32), 'toolbox')),
                         ('--crop_places random', Crops(4, (32, 32), 'random'))):
        assert test_demo.main(['--img', photo, *file, *words.split()]) == pytest.approx(
            IQAmodel.load(own, crops=crops).score(photo), rel=1e-5)
    without = {key: value for key, value in own.items() if key != 'crops'}
    assert test_demo.main(['--img', photo, *file, '--test_crops', '0']) == IQAmodel.load(without).score(photo)
    test_dataset.main([*tiny, *file, '--test_crops', '9'])
    assert only('results/*-crops9-32x32-grid.csv')


def test_images_that_are_too_small_have_an_error_each_or_are_enlarged(checkpoint, capsys):
    Image.new('RGB', (20, 40)).save('small.png')
    file = ['--trained_model_file', str(checkpoint), '--device', 'cpu', '--img', 'small.png', 'tiny/images/03.png']
    with pytest.raises(SystemExit) as stop:
        test_demo.main([*file, '--csv', 'out.csv'])
    assert stop.value.code == 1
    assert 'small.png: 20x40 pixels' in capsys.readouterr().err
    assert test_demo.main([*file, '--csv', 'out.csv', '--enlarge']) == 2
    large = Image.open('small.png').resize((32, 64), Image.Resampling.BILINEAR)
    score = pd.read_csv('out.csv').set_index('name')['score']['small.png']
    assert score == pytest.approx(IQAmodel.load(checkpoint).score(large), rel=1e-5)


def test_a_calibrated_checkpoint_keeps_its_crops(checkpoint):
    names = sorted(path.name for path in Path('tiny/images').iterdir())
    pd.DataFrame({'image': names, 'mos': np.linspace(1, 5, 24)}).to_csv('ratings.csv', index=False)
    test_demo.main(['--calibrate', 'ratings.csv', '--im_dir', 'tiny/images', '--trained_model_file', str(checkpoint),
                    '--out', 'new.pth', '--force', '--device', 'cpu'])
    assert load_checkpoint('new.pth')['crops'] == load_checkpoint(checkpoint)['crops']
    assert 'mean of 4 crops of 32x32' in Path('new.md').read_text()


def test_an_exported_file_scores_the_same_crops(checkpoint, capsys):
    words = ['--trained_model_file', str(checkpoint), '--torch_export', 'm.pt2', '--device', 'cpu']
    assert export.main([*words, '--size', '48', '64'])['m.pt2'] < 1e-3
    photos = np.stack([np.array(Image.open(f'tiny/images/{i:02d}.png').convert('RGB')) for i in range(3)])
    np.testing.assert_allclose(export.read_torch('m.pt2')(photos), IQAmodel.load(checkpoint).score(photos), atol=1e-3)
    for more, message in (('', 'one size of images only: give --size H W'),
                          ('--size 48 64 --crop_places random', 'give --crop_places grid')):
        with pytest.raises(SystemExit):
            export.main([*words, *more.split()])
        assert message in capsys.readouterr().err


def test_the_cost_of_scoring_counts_all_crops(checkpoint):
    content = load_checkpoint(checkpoint)
    found = []
    for crops in (Crops(1, (32, 32)), Crops(4, (32, 32))):
        save_checkpoint(Path('other.pth'), {**content, 'crops': crops.stored()})
        outcome = SimpleNamespace(checkpoint=Path('other.pth'), options={'dataset': 'tiny/images/x'}, tested_on='tiny',
                                  predictions=lambda: SimpleNamespace(image=['03.png']))
        found.append(macs(outcome))
    assert found[1] == 4 * found[0] > 0


@pytest.mark.parametrize(('crops', 'message'), [
    ({'count': 4, 'size': [32, 32], 'places': 'corners'}, 'corners'),
    ({'count': 0, 'size': [32, 32], 'places': 'grid'}, '0 crops of an image: expected 1 to 10000'),
    ({'count': 10 ** 9, 'size': [32, 32], 'places': 'grid'}, 'expected 1 to 10000'),
    ({'count': 4, 'size': [32], 'places': 'grid'}, 'crops: expected height and width'),
    ({'count': 4, 'size': [32, 32]}, 'places'),
])
def test_crops_of_a_checkpoint_are_checked(checkpoint, crops, message):
    with pytest.raises(UserError, match=message):
        IQAmodel.load({**load_checkpoint(checkpoint), 'crops': crops})


# Mistakes

@pytest.mark.parametrize(('words', 'message'), [
    ('--test_crops 4 -cs_h 32 -cs_w 65', '64x48 pixels have no crops of 65x32: --enlarge'),
    ('--crop_places toolbox', '--crop_places toolbox needs --test_crops'),
    ('--test_crops 5 --crop_places toolbox -cs_h 32 -cs_w 32', 'needs a square number, as 25'),
    ('--train_crops 2', '--train_crops 2 needs --augmentation with crop'),
    ('--train_crops 2 --augmentation hflip', '--train_crops 2 needs --augmentation with crop'),
    ('--enlarge --resize', '--enlarge is for images that keep their size'),
    ('--test_crops -1', 'out of range: at least 0'),
    ('--test_crops 10001', 'out of range: at least 0, at most 10000'),
])
def test_mistakes(tiny, fails, words, message):
    assert message in fails(main.main, *tiny, *SMALL[5:], *MINI, *words.split())


def test_crops_must_be_of_the_size_of_the_network(tiny, fails):
    words = '-arch maniqa_tiny --img_size 64 --resize -rs_h 64 -rs_w 64 --test_crops 2 -cs_h 32 -cs_w 32 --weights none'
    assert 'crops of 32x32 (h x w) for a network of 64x64: give --crop_size_h 64 --crop_size_w 64' in fails(
        main.main, *tiny, *words.split())


def test_small_images_are_enlarged_in_proportion(tiny):
    Image.open('tiny/images/00.png').resize((40, 20)).save('tiny/images/00.png')
    data = get_data_loaders(TRAIN.parse([*tiny, *WORDS, '--enlarge']))
    sizes = {name: size for part, names in data.names.items()
             for name, size in zip(names, data.sizes[part], strict=True)}
    assert sizes.pop('00.png') == (32, 64)
    assert set(sizes.values()) == {(48, 64)}
    part, = (part for part, names in data.names.items() if '00.png' in names)
    (pixels,), _ = data.datasets[part][data.names[part].index('00.png')]
    assert pixels.shape == (3, 32, 64)


def test_each_crop_decodes_again_without_a_cache(tiny, capsys):
    get_data_loaders(TRAIN.parse([*tiny, *WORDS, '--cache', 'none']))
    assert '--cache none decodes each training image 3 times in an epoch' in capsys.readouterr().out
