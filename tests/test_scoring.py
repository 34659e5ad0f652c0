"""Scores: from the raw output to MOS and its meaning, from Python and from the command line."""
import argparse
import doctest
import importlib
import shutil
import sys
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from conftest import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from scored import PHOTO_SCORE, photo, random_checkpoint

import IQAmodel
import test_demo
from iqa_data.transforms import Preprocess
from iqa_runtime.checkpoint import load_checkpoint, save_checkpoint
from iqa_runtime.errors import UserError
from iqa_scoring.mapping import Mapping, Scale, logistic
from iqa_scoring.maps import quality_maps
from iqa_scoring.scorer import resized
from IQAmodel import load

UNKNOWN = Scale(np.empty(0))


@pytest.fixture(scope='module')
def scorer(scored_folder):
    return load(scored_folder / 'checkpoint.pth')


def full_size(**network):
    return load(random_checkpoint(resize=None, **network))


def test_percentile_and_range():
    scale = Scale(np.array([10., 20, 20, 30]), 10, 30, True)
    assert [scale.percentile(score) for score in (5, 10, 20, 25, 30, 31)] == [0, 12.5, 50, 75, 87.5, 100]
    assert [scale.outside(score) for score in (-1, 10, 30, 30.1)] == ['below', '', '', 'above']
    assert [scale.clamp(score) for score in (-1, 15, 99)] == [10, 15, 30]
    assert str(scale) == 'MOS of the training images: 10 to 30, higher is better'
    assert (UNKNOWN.percentile(5), UNKNOWN.outside(5), UNKNOWN.clamp(5)) == (None, '', 5)
    assert 'not in this checkpoint' in str(UNKNOWN)


def test_mappings():
    raw = np.linspace(-3, 3, 7)
    np.testing.assert_allclose(Mapping('linear', (2, 1))(raw), 2 * raw + 1)
    np.testing.assert_allclose(logistic(raw, 90, 10, .5, 2), 10 + 80 / (1 + np.exp(-(raw - .5) / 2)))
    np.testing.assert_allclose(logistic(torch.tensor(raw), 90, 10, .5, 2), logistic(raw, 90, 10, .5, 2))
    with pytest.raises(UserError, match='unknown mapping'):
        Mapping('cubic', ())(raw)


def test_every_kind_of_image_gets_the_same_score(scorer, scored_folder):
    path = scored_folder / 'images/00.png'
    score = scorer.score(path)
    assert score == pytest.approx(PHOTO_SCORE, abs=1e-3)
    for image in (str(path), Image.open(path), photo(0)):
        assert scorer.score(image) == score
    tensor = torch.from_numpy(photo(0)).permute(2, 0, 1) / 255
    assert scorer.score(tensor).item() == pytest.approx(score, abs=1e-3)
    assert scorer.score(tensor).shape == ()
    batch = scorer.score(np.stack([photo(i) for i in range(9)]))
    assert batch.shape == (9,)
    assert batch.dtype == np.float64
    np.testing.assert_allclose(batch, [scorer.score(photo(i)) for i in range(9)], atol=1e-3)
    mixed = scorer.score([path, photo(1, (70, 50))])
    np.testing.assert_allclose(mixed, [score, scorer.score(photo(1, (70, 50)))], atol=1e-3)
    assert scorer.score([]).shape == (0,)


def test_images_of_several_sizes_without_resize():
    images = [photo(0), photo(1, (70, 50)), photo(2, (32, 32))]
    scorer = full_size()
    np.testing.assert_allclose(scorer.score(images), [scorer.score(image) for image in images], atol=1e-3)


@pytest.mark.parametrize(('image', 'message'), [
    (np.zeros((4, 4, 3)), r'got float64 \(4, 4, 3\)'), (np.zeros((4, 4), np.uint8), r'got uint8 \(4, 4\)'),
    (torch.zeros(3, 4, 4, dtype=torch.uint8), 'expected a path'), (7, 'got int'),
    (torch.zeros(1, 4, 4), r'got \(1, 4, 4\)'), (torch.full((3, 4, 4), 255.), 'divide by 255'),
    (torch.zeros(4, 4), r'got \(4, 4\)'), (torch.zeros(3, 0, 4), r'\(3, 0, 4\)'),
    (np.zeros((0, 4, 3), np.uint8), r'\(0, 4, 3\)'), (np.zeros((4, 4, 3), np.float32), 'got float32'),
    (torch.linspace(-1, 1, 48).view(3, 4, 4), 'its samples are -1 to 1.*add 1 and divide by 2'),
    (torch.full((2, 3, 4, 4), torch.nan), 'its samples are nan'), (torch.full((3, 4, 4), torch.inf), 'inf'),
    (torch.linspace(-2, 2.5, 48).view(3, 4, 4).half(), 'its samples are -2 to 2.5')])
def test_what_is_no_image(scorer, image, message):
    kind = ValueError if hasattr(image, 'shape') else TypeError
    for as_loss in (False, True):
        if (isinstance(image, torch.Tensor) and image.is_floating_point()) or not as_loss:
            with pytest.raises(kind, match=message):
                scorer.score(image, as_loss=as_loss)


@given(st.sampled_from([(-1, 1), (0, 255), (-.06, 1), (0, 1.06), (0, 1), (-.04, 1.04), (0, .2)]),
       st.sampled_from([torch.float16, torch.bfloat16, torch.float32, torch.float64]), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_floats_in_a_file_and_in_a_tensor_pass_one_check(scorer, tmp_path_factory, ends, dtype, nan, batch):
    low, high = ends
    grey = torch.linspace(low, high, 48 * 64).view(48, 64).to(dtype)
    grey[5, 7] = torch.nan if nan else grey[5, 7]
    path = tmp_path_factory.getbasetemp() / 'grey.tif'
    Image.fromarray(grey.float().numpy()).save(path)
    image = grey.expand(3, -1, -1)
    image = torch.stack([torch.rand(image.shape).to(dtype), image]) if batch else image
    if nan or not -.05 <= low <= high <= 1.05:
        for form in (path, image):
            with pytest.raises(ValueError, match='its samples are'):
                scorer.score(form)
    else:
        eight_bits = (grey.float().clamp(0, 1) * 255).round().byte().expand(3, -1, -1).permute(1, 2, 0).numpy()
        assert scorer.score(path) == pytest.approx(scorer.score(eight_bits), abs=1e-3)
        score = scorer.score(image)
        assert score.dtype == torch.float32
        assert torch.equal(score, scorer.score(image.float()))


def test_empty_batches(scorer):
    assert scorer.score(torch.zeros(0, 3, 48, 64)).shape == (0,)
    assert scorer.score(np.zeros((0, 48, 64, 3), np.uint8)).shape == (0,)


def test_scores_depend_neither_on_autocast_nor_on_the_mode(scored_folder, one_thread):
    scorer, image = load(scored_folder / 'checkpoint.pth'), photo(0)
    x = torch.from_numpy(image).permute(2, 0, 1)[None] / 255
    brighter = (x + torch.linspace(0, .003, 6)[:, None, None, None]).clamp(0, 1).requires_grad_()
    buffers = {name: value.clone() for name, value in scorer.network.named_buffers()}

    def everything(**autocast):
        with torch.autocast('cpu', torch.bfloat16, **autocast):
            scores = scorer.score(brighter, as_loss=True)
            others = [scorer.score(image), scorer.score(x),
                      quality_maps(scorer, torch.from_numpy(image).permute(2, 0, 1)[None])]
        return [scores.detach(), *torch.autograd.grad(scores.sum(), brighter), *others]
    expected = everything(enabled=False)
    assert len(set(expected[0].tolist())) == 6
    scorer.network.train()
    for one, other in zip(everything(), expected, strict=True):
        assert np.array_equal(one, other)
    assert scorer.network.training
    assert all(torch.equal(value, buffers[name]) for name, value in scorer.network.named_buffers())


def test_only_float_tensors_have_a_gradient(scorer):
    with pytest.raises(TypeError, match='as_loss needs a float tensor'):
        scorer.score(photo(0), as_loss=True)
    x = torch.rand(2, 3, 48, 64, requires_grad=True)
    assert not scorer.score(x).requires_grad
    scorer.score(x, as_loss=True).sum().backward()
    assert x.grad.abs().max() > 0
    assert all(parameter.grad is None for parameter in scorer.network.parameters())


@pytest.mark.parametrize('resize', [None, (40, 36)])
def test_gradient_against_differences(resize, one_thread):
    scorer = load(random_checkpoint(resize=resize))
    scorer.network.double()
    x = torch.from_numpy(photo(3, (32, 40))).permute(2, 0, 1)[None].double() / 255
    x.requires_grad_()
    (gradient,) = torch.autograd.grad(scorer.score(x, as_loss=True).sum(), x)
    direction = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).double()
    step = 1e-6 * direction
    numeric = (scorer.score(x + step) - scorer.score(x - step)).item() / 2e-6
    assert (gradient * direction).sum().item() == pytest.approx(numeric, rel=1e-4)


def test_optimising_an_image_raises_its_score(scorer):
    x = (torch.from_numpy(photo(4)).permute(2, 0, 1)[None] / 255).requires_grad_()
    before = scorer.score(x).item()
    optimizer = torch.optim.Adam([x], 2e-3)
    for _ in range(5):
        optimizer.zero_grad()
        (-scorer.score(x, as_loss=True)).sum().backward()
        optimizer.step()
    assert scorer.score(x).item() > before + 1


@pytest.mark.parametrize('shape', [(96, 128), (75, 50), (48, 64), (1, 1)])
def test_tensors_are_resized_much_as_pil_does(shape):
    image = photo(5, shape)
    ours = resized(torch.from_numpy(image).permute(2, 0, 1)[None].float(), Preprocess(resize=(48, 64)))[0]
    pil = np.asarray(Preprocess(resize=(48, 64)).of(Image.fromarray(image)), np.float32)
    assert np.abs(ours.permute(1, 2, 0).numpy() - pil).max() <= 1.01  # PIL rounds to 8 bits, twice


def test_a_calibrated_logistic_is_applied(scored_folder):
    checkpoint = load_checkpoint(scored_folder / 'checkpoint.pth')
    line = load(checkpoint)
    raw = (line.score(photo(1)) - checkpoint['b'][0]) / checkpoint['k'][0]
    curve = load({**checkpoint, 'mapping': {'name': 'logistic', 'parameters': [9., 1., raw, 1.]}})
    assert curve.score(photo(1)) == pytest.approx(5, abs=1e-4)


def test_load_without_options_of_the_network(scored_folder):
    checkpoint = load_checkpoint(scored_folder / 'checkpoint.pth')
    original = {name: checkpoint[name] for name in ('model', 'k', 'b')}
    scorer = load(original, architecture='mini', preprocess=Preprocess(resize=(48, 64)))
    assert scorer.score(photo(0)) == pytest.approx(PHOTO_SCORE, abs=1e-3)
    assert scorer.scale.low is None
    with pytest.raises(UserError, match='the checkpoint: the weights are not those of this network'):
        load(original)
    with pytest.raises(UserError, match='--architecture resnet50 conflicts'):
        load(checkpoint, architecture='resnet50')
    with pytest.raises(UserError, match="options of the network: 'depth' is no option"):
        load(checkpoint, depth=3)


def test_load_builds_no_parser(scored_folder, monkeypatch):
    def refuse(*_, **__):
        raise AssertionError('a parser was built')

    monkeypatch.setattr(argparse.ArgumentParser, '__init__', refuse)
    assert load(scored_folder / 'checkpoint.pth').score(photo(0)) == pytest.approx(PHOTO_SCORE, abs=1e-3)


def test_the_example_in_the_documentation(scored_folder, tmp_path, monkeypatch):
    shutil.copy(scored_folder / 'checkpoint.pth', tmp_path)
    shutil.copy(scored_folder / 'images/00.png', tmp_path / 'photo.png')
    monkeypatch.chdir(tmp_path)
    (example,) = doctest.DocTestFinder(recurse=False).find(load, 'load', globs=vars(IQAmodel).copy())
    result = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example)
    assert result.attempted == 5
    assert result.failed == 0


def test_torch_hub(scored_folder):
    scorer = torch.hub.load(str(ROOT), 'linearity_iqa', source='local', checkpoint=scored_folder / 'checkpoint.pth')
    assert scorer.score(photo(0)) == pytest.approx(PHOTO_SCORE, abs=1e-3)


def test_the_losses_alone_in_another_project(tmp_path, monkeypatch):
    shutil.copy(ROOT / 'IQAloss.py', tmp_path)
    for room in ('iqa_losses', 'iqa_runtime'):
        shutil.copytree(ROOT / room, tmp_path / room)
    ours = {name for name in sys.modules if name.startswith(('IQA', 'iqa_'))}
    with patch.dict(sys.modules):
        for name in ours:
            del sys.modules[name]
        monkeypatch.syspath_prepend(tmp_path)
        monkeypatch.setattr(sys, 'path', [path for path in sys.path if Path(path).resolve() != ROOT])
        alone = importlib.import_module('IQAloss')
        assert Path(alone.__file__).parent == tmp_path
        x = torch.randn(8, 1, requires_grad=True)
        alone.norm_loss_with_normalization(x, torch.randn(8, 1)).backward()
        assert x.grad.shape == (8, 1)


def test_one_image(scored, capsys):
    score = test_demo.main(['--img', 'images/00.png', *scored])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f'images/00.png: image quality score {score:.4g}'
    assert score == pytest.approx(PHOTO_SCORE, abs=1e-3)
    assert 'percentile 62.3. MOS of the training images: 20 to 80, higher is better' in lines[1]
    assert len(lines) == 2


def test_outside_the_range_and_clamped(scored, capsys, tmp_path):
    checkpoint = load_checkpoint(scored[1])
    save_checkpoint(tmp_path / 'low.pth', {**checkpoint, 'b': [b - 100 for b in checkpoint['b']]})
    words = ['--img', 'images/00.png', '--trained_model_file', 'low.pth', *scored[2:]]
    assert test_demo.main(words) < 0
    out = capsys.readouterr().out
    assert 'percentile 0.0' in out
    assert 'The score lies below that range' in out
    assert test_demo.main([*words, '--clamp']) == 20
    assert 'The score lies below that range' in capsys.readouterr().out


def test_a_checkpoint_of_the_original(scored, capsys):
    checkpoint = load_checkpoint(scored[1])
    torch.save({name: checkpoint[name] for name in ('model', 'k', 'b')}, 'original')
    words = ['--trained_model_file', 'original', '-arch', 'mini', '--resize', '-rs_h', '48', '-rs_w', '64',
             *scored[2:]]
    assert test_demo.main(['--img', 'images/00.png', *words]) == pytest.approx(PHOTO_SCORE, abs=1e-3)
    assert 'percentile -. MOS of the training images: not in this checkpoint' in capsys.readouterr().out
    test_demo.main(['--img', 'images', *words, '--csv', 'out.csv'])
    row = Path('out.csv').read_text().splitlines()[1].split(',')
    assert row[3:8] == ['', '', '', '', '']


def test_mistakes(scored, fails):
    for words, message in ((['--img', 'images', '--resume'], '--resume needs --csv, --json or'),
                           ([], 'give either --img'),
                           (['--img', 'images', '--calibrate', 'x.csv'], 'give either --img'),
                           (['--calibrate', 'x.csv', '--csv', 'y.csv'], '--csv needs --img'),
                           (['--about', 'x.pth', '--sort'], '--sort needs --img'),
                           (['--img', 'images', '--out', 'y.csv'], '--out needs --calibrate'),
                           (['--img', 'images', '--resume', '--csv', 'a', '--report', 'b'], 'leave out --resume'),
                           (['--img', 'gone.png'], '--img gone.png: no such file')):
        assert message in fails(test_demo.main, *words, *scored)
