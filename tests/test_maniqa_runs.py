"""MANIQA from the command line: training, resuming, maps, calibration, export, on a tiny data set."""
import os
import signal
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import make_tiny
from PIL import Image

import hubconf
import main
import test_dataset
import test_demo
from iqa_data.transforms import Preprocess
from iqa_networks.maniqa import MANIQA
from iqa_runtime.checkpoint import load_checkpoint
from iqa_scoring import export
from iqa_scoring.maps import quality_maps, score_and_weight
from iqa_training.run import Run
from IQAmodel import load

pytestmark = pytest.mark.usefixtures('one_thread')
WORDS = '''--dataset tiny/info.mat --im_dir tiny/images --device cpu --no-pbar --num_workers 0
-arch maniqa_tiny --img_size 64 --weights none --resize -rs_h 64 -rs_w 64 --filter cubic --augmentation hflip
--target 0 100 --line target --loss_type mse -lr 1e-3 --ft_lr_ratio 1 -bs 8 -e 2 --val_criterion SROCC+PLCC
--schedule cosine_warmup_restarts --first_cycle_steps 3 --warmup_steps 1 --sched_gamma .9
--split kfold-sorted --folds 3 --test_fold val'''
TRAINED = WORDS.split()


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """A folder with a tiny data set and a trained MANIQA, model.pth; and what the training returned."""
    folder = tmp_path_factory.mktemp('maniqa')
    make_tiny(folder / 'tiny')
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        performance = main.main([*TRAINED, '--trained_model_file', 'model.pth'])
    return folder, performance


@pytest.fixture
def here(folder, tmp_path, monkeypatch):
    """A fresh working directory with the data set and the model."""
    for name in ('tiny', 'model.pth'):
        (tmp_path / name).symlink_to(folder[0] / name)
    monkeypatch.chdir(tmp_path)
    return load_checkpoint('model.pth')


def test_the_checkpoint_scores_as_it_was_tested(folder, here):
    assert here['k'] == [100]
    assert here['b'] == [0]
    assert here['network'] == {'name': 'maniqa_tiny', 'options': {'img_size': 64, 'checkpoint_activations': False}}
    assert here['input']['preprocessing']['filter'] == 'cubic'
    assert here['split'].keys() == {'train', 'val'}
    scorer = load('model.pth')
    scores = [scorer.score(f'tiny/images/{name}') for name in here['split']['val']]
    np.testing.assert_allclose(scores, folder[1].pq, atol=1e-3)
    (hub,) = hubconf.linearity_iqa('model.pth').score(['tiny/images/00.png'])
    assert hub == pytest.approx(scorer.score('tiny/images/00.png'))


@pytest.mark.parametrize('more', [[], ['--loss_type', 'norm-in-norm', '--line', 'fitted', '-optl', 'bf16',
                                       '--checkpoint_activations']])
def test_a_resumed_run_ends_bit_for_bit_as_one_that_did_not_stop(here, more, monkeypatch, foreground):
    words = [*TRAINED, *more, '--patience', '3']
    main.main([*words, '--trained_model_file', 'whole.pth'])
    log_loss = Run.log_loss

    def log_and_stop(self, engine):
        log_loss(self, engine)
        if engine.state.iteration == 3:  # in the second epoch
            os.kill(os.getpid(), signal.SIGTERM)
    monkeypatch.setattr(Run, 'log_loss', log_and_stop)
    with pytest.raises(SystemExit):
        main.main([*words, '--trained_model_file', 'part.pth'])
    monkeypatch.setattr(Run, 'log_loss', log_loss)
    main.main([*words, '--trained_model_file', 'part.pth', '--resume', 'auto'])
    whole, part = (load_checkpoint(file) for file in ('whole.pth', 'part.pth'))
    assert all(torch.equal(tensor, part['model'][name]) for name, tensor in whole['model'].items())
    assert all(whole[key] == part[key] for key in ('k', 'b', 'epoch', 'metrics'))


def test_maps_are_the_patches_and_their_weighted_mean_is_the_score(here):
    scorer = load('model.pth')
    assert isinstance(scorer.network, MANIQA)
    pixels = torch.stack([torch.tensor(np.array(scorer.preprocess(f'tiny/images/0{i}.png'))).permute(2, 0, 1)
                          for i in range(3)])
    maps = quality_maps(scorer, pixels)
    assert maps.shape == (3, 2, 4, 4)
    for grid, raw in zip(maps, scorer.heads(pixels)[:, 0], strict=True):
        scores, weights = score_and_weight(grid)
        assert weights.max() == 1
        assert np.average(scores, weights=weights) == pytest.approx(scorer.mapping(raw), abs=1e-3)


def test_scoring_calibration_and_reports(here, capsys):
    words = ['--trained_model_file', 'model.pth', '--device', 'cpu', '--no-pbar']
    two = ['tiny/images/00.png', 'tiny/images/01.png']
    test_demo.main(['--img', *two, *words, '--map', 'maps', '--report', 'two.html'])
    assert [Image.open(path).size[0] for path in Path('maps').iterdir()] == [800, 800]
    assert Path('two.html').read_text().count('data:image/png') == 2
    test_demo.main(['--img', 'tiny/images', *words, '--csv', 'scores.csv'])
    table = pd.read_csv('scores.csv')
    pd.DataFrame({'image': table['name'], 'mos': 2 * table['score'] + 1}).to_csv('ratings.csv', index=False)
    assert test_demo.main(['--calibrate', 'ratings.csv', *words, '--out', 'new.pth']) == pytest.approx(0, abs=1e-3)
    assert len(test_dataset.main([*words, '--im_dir', 'tiny/images', '--part', 'all']).pq) == 24


def test_images_of_another_size(here, fails):
    words = [*TRAINED, '-rs_h', '96']
    assert 'images of 96x64 (h x w) for a network of 64x64' in fails(main.main, *words)
    words = '--dataset', 'tiny/info.mat', '--im_dir', 'tiny/images', '-arch', 'resnet18', '--img_size', '64'
    assert '--img_size: --architecture resnet18 takes no such option' in fails(main.main, *words)


def test_random_crops_are_validated_on_the_middle(here):
    make_tiny(Path('wide'), 12, (80, 96))
    words = [*TRAINED, '--dataset', 'wide/info.mat', '--im_dir', 'wide/images', '-rs_h', '80', '-rs_w', '96', '-e', '1',
             '--augmentation', 'crop', '-cs_h', '64', '-cs_w', '64', '--trained_model_file', 'crops.pth']
    performance = main.main(words)
    checkpoint, scorer = load_checkpoint('crops.pth'), load('crops.pth')
    scorer.preprocess = Preprocess()
    images = [middle(name) for name in checkpoint['split']['val']]
    np.testing.assert_allclose(scorer.score(images), performance.pq, atol=1e-3)


def middle(name):
    """The middle of an image, resized as in the run."""
    image = Preprocess((80, 96), filter='cubic')(f'wide/images/{name}')
    return image.crop((16, 8, 80, 72))


@pytest.mark.slow
def test_export(here):
    words = ['--trained_model_file', 'model.pth', '--torch_export', 'model.pt2', '--onnx', 'model.onnx']
    assert max(export.main(words).values()) < 1e-3
