"""Cached images have the decoded pixels, are verified, and are decoded again after a change."""
import json
import os
import pickle
import re
import signal
import zlib
from pathlib import Path

import numpy as np
import pytest
from conftest import SMALL
from mini import MINI
from PIL import Image
from processes import launch

import main
from iqa_data import cache as decoded
from iqa_data.cache import in_memory, on_disk
from iqa_data.transforms import Preprocess
from iqa_runtime.errors import UserError
from iqa_training.options import TRAIN
from IQAdataset import get_data_loaders
from IQAperformance import evaluate


@pytest.fixture
def paths(tmp_path):
    """Five images of three sizes and two formats."""
    rng = np.random.RandomState(0)
    paths = [tmp_path / f'{i}.{"jpg" if i % 2 else "png"}' for i in range(5)]
    for i, path in enumerate(paths):
        Image.fromarray(rng.randint(0, 256, (20 + i % 3, 30, 3), np.uint8)).save(path)
    return paths


@pytest.mark.parametrize('preprocess', [Preprocess(), Preprocess((10, 15)), Preprocess((10, 15), (50, 50))])
def test_pixels_are_those_of_pil_bit_for_bit(paths, tmp_path, preprocess):
    for images in (on_disk(paths, preprocess, tmp_path / 'cache'), on_disk(paths, preprocess, tmp_path / 'cache'),
                   in_memory(paths, preprocess)):
        for path in paths:
            assert np.array_equal(images(path), np.asarray(preprocess(path)))
            assert images.size(path) == images(path).shape[:2]


def test_a_cache_is_written_once_and_announced(paths, tmp_path, capsys):
    on_disk(paths, Preprocess((10, 15)), tmp_path / 'cache')
    assert 'Decoding 5 images into ' in (out := capsys.readouterr().out)
    assert '0.0 MB (' in out
    on_disk(reversed(paths), Preprocess((10, 15)), tmp_path / 'cache')
    assert capsys.readouterr().out == ''
    on_disk(paths, Preprocess((10, 16)), tmp_path / 'cache')
    assert 'Decoding' in capsys.readouterr().out
    assert len(list((tmp_path / 'cache').glob('*.npy'))) == 2


def other_version(npy, index, paths):
    index.write_text(json.dumps({**json.loads(index.read_text()), 'pillow': '1.0'}))


def changed_image(npy, index, paths):
    Image.new('RGB', (30, 20)).save(paths[0])


def touched_image(npy, index, paths):
    os.utime(paths[3], (0, 0))


def cut(npy, index, paths):
    npy.write_bytes(npy.read_bytes()[:3000])


def other_decoder(npy, index, paths):
    """The pixels of the last image, and their CRC-32, as another decoder makes them."""
    pixels = np.load(npy)
    pixels[-1] ^= 255
    np.save(npy, pixels)
    made = json.loads(index.read_text())
    made['crcs'][-1] = zlib.crc32(pixels[-21 * 30 * 3:])  # it is 21 high
    made['checksum'] = zlib.crc32(json.dumps([made['sizes'], made['crcs']]).encode())
    index.write_text(json.dumps(made))


def no_json(npy, index, paths):
    index.write_text('{')


@pytest.mark.parametrize(('spoil', 'reason'), [
    (other_version, 'made with pillow 1.0, now'), (changed_image, '1 images changed since, as .*0.png'),
    (touched_image, '1 images changed since, as .*3.jpg'), (cut, 'mmap length'), (other_decoder, 'other pixels than'),
    (no_json, 'Expecting property name')])
def test_an_invalid_cache_is_written_again(paths, tmp_path, capsys, spoil, reason):
    on_disk(paths, Preprocess(), tmp_path / 'cache')
    (npy,), (index,) = (tmp_path / 'cache').glob('*.npy'), (tmp_path / 'cache').glob('*.json')
    spoil(npy, index, paths)
    capsys.readouterr()
    images = on_disk(paths, Preprocess(), tmp_path / 'cache')
    out = capsys.readouterr().out
    assert re.search(reason, out), out
    assert 'it is replaced' in out
    for path in paths:
        assert np.array_equal(images(path), np.asarray(Preprocess()(path)))


@pytest.mark.parametrize(('damaged', 'writable'), [((1, 4), True), ((1, 3), False)])
def test_pixels_that_changed_on_the_disk_are_decoded_again(paths, tmp_path, capsys, damaged, writable):
    on_disk(paths, Preprocess(), tmp_path / 'cache')
    (npy,) = (tmp_path / 'cache').glob('*.npy')
    whole = npy.read_bytes()
    starts = np.cumsum([128] + [(20 + i % 3) * 30 * 3 for i in range(5)])
    for i in damaged:
        npy.write_bytes(npy.read_bytes()[:starts[i]] + bytes(700) + npy.read_bytes()[starts[i] + 700:])
    capsys.readouterr()
    images = on_disk(paths, Preprocess(), tmp_path / 'cache')
    if not writable:
        npy.unlink()
        npy.mkdir()
    for _ in range(2):
        for path in reversed(paths):
            assert np.array_equal(images(path), np.asarray(Preprocess()(path)))
    out = capsys.readouterr().out
    for i in damaged:
        assert f'is damaged at {paths[i]}, which is decoded again' in out
    assert 'it is replaced' not in out
    if writable:
        assert npy.read_bytes() == whole


def test_a_full_disk_is_a_clear_error_and_leaves_nothing(paths, tmp_path, monkeypatch):
    def no_space(*args):
        raise OSError(28, 'No space left on device')
    monkeypatch.setattr(os, 'posix_fallocate', no_space)
    with pytest.raises(UserError, match='cannot write .*npy: No space left on device'):
        on_disk(paths, Preprocess(), tmp_path / 'cache')
    assert not list((tmp_path / 'cache').iterdir())
    monkeypatch.setattr(decoded.shutil, 'disk_usage', lambda folder: type('Usage', (), {'free': 100}))
    with pytest.raises(UserError, match=r'has 0.0 MB free, .* need 0.0 MB: --cache_dir names another place'):
        on_disk(paths, Preprocess(), tmp_path / 'cache')


def test_a_bad_image_is_named_and_no_cache_is_made(paths, tmp_path):
    data = paths[1].read_bytes()
    paths[1].write_bytes(data[:len(data) // 2])
    with pytest.raises(UserError, match=r'1 of 5 images cannot be read: .*1.jpg \('):
        on_disk(paths, Preprocess(), tmp_path / 'cache')
    assert not list((tmp_path / 'cache').glob('*.npy'))
    assert not list((tmp_path / 'cache').glob('.*.tmp'))


def test_images_that_are_all_missing_ask_for_their_folder(paths, tmp_path):
    for moved, asks in ((paths, True), (paths[1:], False)):
        with pytest.raises(UserError, match=rf'{len(moved)} of 5 images cannot be read: ') as error:
            on_disk([path.with_name(f'gone-{path.name}') if path in moved else path for path in paths], Preprocess(),
                    tmp_path / 'cache')
        assert ('is --im_dir the right folder?' in str(error.value)) == asks


def killed_at_the_first_image(folder: Path, files: list[Path]) -> None:
    """A process that is killed when it has made room for the cache."""
    decoded.decode = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
    on_disk(files, Preprocess(), folder)


def test_what_a_killed_run_left_is_removed(paths, tmp_path):
    folder = tmp_path / 'cache'
    killed = launch(killed_at_the_first_image, folder, paths)
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    assert len(list(folder.glob('.*.tmp'))) == 1
    on_disk(paths, Preprocess(), folder)
    assert {path.suffix for path in folder.iterdir()} == {'.npy', '.json'}


def test_a_whole_cache_in_a_read_only_folder(paths, tmp_path, capsys):
    folder = tmp_path / 'cache'
    on_disk(paths, Preprocess(), folder)
    before = [(path.name, path.stat().st_mtime_ns) for path in [folder, *folder.iterdir()]]
    folder.chmod(0o555)
    capsys.readouterr()
    images = on_disk(paths, Preprocess(), folder)
    assert np.array_equal(images(paths[3]), np.asarray(Preprocess()(paths[3])))
    assert capsys.readouterr().out == ''
    assert [(path.name, path.stat().st_mtime_ns) for path in [folder, *folder.iterdir()]] == before  # for root, too


def test_a_cache_that_another_process_rewrites_meanwhile(paths, tmp_path, monkeypatch):
    on_disk(paths, Preprocess(), tmp_path / 'cache')
    (index,) = (tmp_path / 'cache').glob('*.json')
    load = np.load

    def meanwhile(*arguments, **options):
        monkeypatch.undo()
        os.utime(index, (1, 1))
        return load(*arguments, **options)
    monkeypatch.setattr(np, 'load', meanwhile)
    images = on_disk(paths, Preprocess(), tmp_path / 'cache')  # read again, under the lock
    assert np.array_equal(images(paths[3]), np.asarray(Preprocess()(paths[3])))


def test_workers_get_the_map_and_not_the_pixels(paths, tmp_path):
    images = on_disk(paths, Preprocess((200, 200)), tmp_path / 'cache')
    sent = pickle.dumps(images)
    assert len(sent) < 2000
    assert np.array_equal(pickle.loads(sent)(paths[2]), images(paths[2]))  # noqa: S301 (our own bytes)


def test_training_is_the_same_whatever_the_cache(tiny):
    results = []
    for cache in ('disk', 'ram', 'none'):
        for workers in ('0', '2'):
            performance = main.main([*tiny, *SMALL, *MINI, '-e', '1', '--cache', cache, '--num_workers', workers])
            results.append(performance.pq)
    assert all(np.array_equal(results[0], other) for other in results)


def test_augmentation_from_the_cache_is_that_of_the_files(tiny):
    batches = []
    for cache in ('disk', 'none'):
        crops = ['--augmentation', '-cs_h', '32', '-cs_w', '32']
        args = TRAIN.parse([*tiny, *crops, '--cache', cache, '--num_workers', '1'])
        main.seed_everything(3, False)
        loader = get_data_loaders(args).training_loader()
        batches.append([images.numpy() for (images,), _ in loader])
    assert all(np.array_equal(a, b) for a, b in zip(*batches, strict=True))


def test_evaluation_in_batches_of_mixed_sizes_keeps_the_order(tiny, tmp_path):
    for i, path in enumerate(sorted((tmp_path / 'tiny/images').glob('*.png'))):
        if i % 3 == 0:
            Image.open(path).resize((80, 64)).save(path)
    model = main.build_model(TRAIN.parse([*tiny, *SMALL])).eval()
    results = []
    for batch_size in ('1', '4'):
        crops = ['--augmentation', '-cs_h', '8', '-cs_w', '8']  # which let training stack images of several sizes
        data = get_data_loaders(TRAIN.parse([*tiny, *crops, '--num_workers', '0', '-bs', batch_size]))
        results.append(evaluate(model, data.evaluation_loader('train')))
        assert results[-1].sq == pytest.approx(data.datasets['train'].mos.flatten().numpy())
    np.testing.assert_allclose(results[0].heads[0].raw, results[1].heads[0].raw, rtol=1e-4)
