"""Mistakes of users: one line that names the mistake, exit status 2, before anything long has begun."""
import h5py
import numpy as np
import pytest
import torch
from conftest import SMALL
from mini import MINI
from PIL import Image

import main
import test_dataset
import test_demo


def test_no_data(tmp_path, monkeypatch, fails):
    monkeypatch.chdir(tmp_path)
    error = fails(main.main)
    assert './data/KonIQ-10kinfo.mat not found, which KonIQ-10k needs: download' in error
    assert '--dataset demo needs no download' in error
    assert 'gone not found' in fails(main.main, '--dataset', 'CLIVE', '--data_info', '.', '--im_dir', 'gone')


def test_a_bad_image_is_named_before_training(tiny, fails, tmp_path):
    (tmp_path / 'tiny/images/03.png').unlink()
    (tmp_path / 'tiny/images/07.png').write_text('not an image')
    data = (tmp_path / 'tiny/images/11.png').read_bytes()
    (tmp_path / 'tiny/images/11.png').write_bytes(data[:500])
    error = fails(main.main, *tiny, *SMALL)
    assert '3 of 24 images cannot be read' in error
    assert all(name in error for name in ('03.png (no such file)', '07.png', '11.png'))
    assert not (tmp_path / 'runs').exists()


def test_broken_info_and_split(tiny, fails, tmp_path):
    assert 'leaves val empty' in fails(main.main, *tiny, *SMALL, '-tr', '.8', '-tvr', '.8')
    with h5py.File(tmp_path / 'tiny/info.mat', 'r+') as file:
        del file['subjective_scoresSTD']
    assert 'tiny/info.mat: the info file lacks subjective_scoresSTD' in fails(main.main, *tiny, *SMALL)


def test_a_pyramid_that_does_not_fit(tiny, fails):
    assert 'feature map of 2x2 cannot be pooled into 5x5' in fails(main.main, *tiny, *SMALL, '--P7', '5')


def test_a_criterion_of_a_head_that_the_network_lacks(tiny, fails):
    words = [*tiny, *SMALL, '-arch', 'cnniqa', '-lt', 'mse']
    assert '--val_criterion PLCC1 needs a network of 2 heads, and this one has 1; expected PLCC' in fails(
        main.main, *words, '-valc', 'PLCC1')
    assert 'needs a network of 3 heads' in fails(main.main, *words, '-valc', 'RMSE2')


def test_a_folder_that_cannot_be_written(tiny, fails, tmp_path):
    (tmp_path / 'taken').write_text('')
    assert 'cannot write taken' in fails(main.main, *tiny, *SMALL, '--checkpoint_dir', 'taken/x', '-e', '1')


def test_a_device_that_is_not_there(tiny, fails):
    assert '--device' in fails(main.main, *tiny, *SMALL, '--device', 'cuda:99')
    assert '--device' in fails(main.main, *tiny, *SMALL, '--device', 'gpu')


@pytest.fixture
def trained(tiny, tmp_path, capsys):
    main.main([*tiny, *SMALL, *MINI, '-e', '1', '--debug'])
    (path,) = (tmp_path / 'checkpoints').glob('*.pth')
    return path


def test_checkpoints(trained, fails, tiny, tmp_path):
    image = 'tiny/images/00.png'
    assert '--architecture resnet50 conflicts with' in fails(test_demo.main, '--img', image, '-modelfile', trained,
                                                             '-arch', 'resnet50')
    assert 'gone.pth: no such file' in fails(test_demo.main, '--img', image, '-modelfile', 'gone.pth')
    (tmp_path / 'bad.pth').write_bytes(trained.read_bytes()[:1000])
    assert 'bad.pth: not a checkpoint' in fails(test_dataset.main, '-modelfile', 'bad.pth')
    state = torch.load(trained, weights_only=True)
    torch.save({name: state[name] for name in ('model', 'k', 'b')}, 'original')
    other = ['-modelfile', 'original', '--resize', '-arch', 'resnet50']
    assert 'the weights are not those of this network' in fails(test_demo.main, '--img', image, *other)
    ours = test_demo.main(['--img', image, '-modelfile', str(trained)])
    theirs = test_demo.main(['--img', image, '-modelfile', 'original', *SMALL, *MINI])
    assert ours == theirs


def test_images(trained, fails, tmp_path):
    (tmp_path / 'text.png').write_text('hello')
    assert '--img gone.png: no such file' in fails(test_demo.main, '--img', 'gone.png', '-modelfile', trained)
    assert '--img text.png: cannot identify' in fails(test_demo.main, '--img', 'text.png', '-modelfile', trained)
    Image.fromarray(np.zeros((60, 40), np.uint16)).save('deep.png')
    assert np.isfinite(test_demo.main(['--img', 'deep.png', '-modelfile', str(trained)]))


def test_another_info_file_than_in_training(trained, fails, tmp_path):
    with h5py.File(tmp_path / 'tiny/info.mat', 'r+') as file:
        for i in range(24):
            file['#refs#'][str(i)][0] = ord('a') + i // 10
    words = ['-modelfile', trained, '--im_dir', 'tiny/images']
    assert 'lacks 5 images of the test part' in fails(test_dataset.main, *words)


def test_a_batch_of_one(tiny, fails):
    batch_normalisation = 'at least 2 is needed for batch normalisation'
    assert f'--batch_size 1: {batch_normalisation}' in fails(main.main, *tiny, *SMALL, *MINI, '-bs', '1')
    ratios = ['--split', 'random', '-tr', '.05', '-tvr', '.5']
    error = fails(main.main, *tiny, *SMALL, *MINI, *ratios)
    assert 'demo has 1 training image, fewer than the 2 that batch normalisation needs' in error


def test_images_of_several_sizes(tiny, fails, tmp_path):
    Image.new('RGB', (99, 77)).save(tmp_path / 'tiny/images/04.png')
    error = fails(main.main, *tiny, *MINI, '--weights', 'none', '--device', 'cpu', '--split', 'random', '-tr', '.9',
                  '-tvr', '.95')
    assert 'give --resize or --augmentation crop' in error
    assert 'batch_size' not in error


def test_more_accumulation_steps_than_iterations(tiny, fails):
    error = fails(main.main, *tiny, *SMALL, *MINI, '-e', '2', '-accum', '5')
    assert '--accumulation_steps 5: the run has 4 iterations, too few for one step' in error
