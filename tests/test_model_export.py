"""Exported models: the same scores outside of this package, for any batch and size, with what they are inside."""
import builtins
import json

import numpy as np
import pytest
import torch
from scored import needs_onnx, photo, random_checkpoint, saved

from iqa_runtime.checkpoint import load_checkpoint, save_checkpoint
from iqa_scoring import export
from IQAmodel import create_model, load

WORDS = ['--device', 'cpu']
new_torch = pytest.mark.skipif(tuple(map(int, torch.__version__.split('.')[:2])) < (2, 14),
                               reason='an older torch than requirements-export.txt says')


@pytest.fixture
def here(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    return tmp_path


@new_torch
def test_both_formats_with_resize(here, capsys):
    needs_onnx()
    import onnxruntime
    checkpoint = saved(here)
    words = ['--trained_model_file', checkpoint, *WORDS]
    differences = export.main([*words, '--onnx', 'm.onnx', '--torch_export', 'm.pt2'])
    assert set(differences) == {'m.onnx', 'm.pt2'}
    assert max(differences.values()) < 1e-3
    out = capsys.readouterr().out
    assert 'm.onnx: largest difference from PyTorch on random images' in out
    assert 'Largest difference from test_demo.py, which resizes with PIL' in out

    images = np.stack([photo(i, (80, 120)) for i in range(3)])
    expected = load(checkpoint).score(images)
    np.testing.assert_allclose(export.read_onnx('m.onnx')(images), expected, atol=1)  # but for PIL's rounding
    np.testing.assert_allclose(export.read_torch('m.pt2')(images), export.read_onnx('m.onnx')(images), atol=1e-3)
    same_size = np.stack([photo(i) for i in range(2)])
    np.testing.assert_allclose(export.read_onnx('m.onnx')(same_size), load(checkpoint).score(same_size), atol=1e-3)

    session = onnxruntime.InferenceSession('m.onnx', providers=['CPUExecutionProvider'])
    (entry,), (result,) = session.get_inputs(), session.get_outputs()
    assert (entry.name, entry.type, entry.shape) == ('images', 'tensor(uint8)', ['batch', 'height', 'width', 3])
    assert result.name == 'mos'
    extra = {'metadata.json': ''}
    torch.export.load('m.pt2', extra_files=extra)
    for about in (session.get_modelmeta().custom_metadata_map, json.loads(extra['metadata.json'])):
        assert about['architecture'] == 'resnet18'
        assert json.loads(about['resize']) == [48, 64]
        assert json.loads(about['mos_min']) == 20
        assert json.loads(about['higher_is_better']) is True


@new_torch
@pytest.mark.parametrize('head', [{'head': 'gaussian'}, {'head': 'histogram', 'levels': 3}])
def test_a_distribution_gives_score_and_uncertainty(here, head):
    needs_onnx()
    torch.manual_seed(3)
    options = {'name': 'resnet18', 'options': head}
    network = create_model('resnet18', **head)
    checkpoint = {**random_checkpoint(resize=None), 'network': options, 'model': network.state_dict(),
                  'k': [3., 3., 3.], 'b': [50., 50., 50.]}
    save_checkpoint('d.pth', checkpoint)
    differences = export.main(['--trained_model_file', 'd.pth', *WORDS, '--onnx', 'm.onnx', '--torch_export', 'm.pt2'])
    assert max(differences.values()) < 1e-3
    images = np.stack([photo(i, (80, 120)) for i in range(3)])
    scores, _, _, uncertainty = load('d.pth').measure_crops(torch.from_numpy(images).permute(0, 3, 1, 2))
    assert uncertainty.min() > 0
    for run in (export.read_onnx('m.onnx'), export.read_torch('m.pt2')):
        np.testing.assert_allclose(run(images), [scores, uncertainty], atol=1e-3)


HYPERIQA = {'name': 'hyperiqa', 'options': {'backbone': 'timm/test_resnet'}}
CROPS = {'count': 4, 'size': [224, 224], 'places': 'grid'}


def hyperiqa(crops: dict | None) -> list[str]:
    """Save a random HyperIQA as h.pth; return the options of export.py that name it."""
    network = create_model(HYPERIQA['name'], **HYPERIQA['options'])
    save_checkpoint('h.pth', {**random_checkpoint(resize=None), 'network': HYPERIQA, 'model': network.state_dict(),
                              'k': [300.], 'b': [50.], **({'crops': crops} if crops else {})})
    return ['--trained_model_file', 'h.pth', *WORDS]


@new_torch
@pytest.mark.slow
@pytest.mark.parametrize(('size', 'crops'), [((224, 224), None), ((240, 300), CROPS)])
def test_hyperiqa_of_one_crop_or_of_several(here, size, crops):
    needs_onnx()
    words = [*hyperiqa(crops), '--size', *map(str, size)]
    export.main([*words, '--onnx', 'm.onnx', '--torch_export', 'm.pt2'])
    images = np.stack([photo(i, size) for i in range(3)])
    expected = load('h.pth').score(images)
    assert expected.std() > .1
    np.testing.assert_allclose(export.read_onnx('m.onnx')(images), expected, atol=1e-3)
    np.testing.assert_allclose(export.read_torch('m.pt2')(images), expected, atol=1e-3)


@pytest.mark.parametrize(('crops', 'size', 'message'), [
    (None, (), 'one size of images only: give --size H W'),
    (None, (224, 300), 'images of 224x300 (h x w) for a network of 224x224'),
    (CROPS, (200, 300), '300x200 pixels have no crops of 224x224')])
def test_hyperiqa_needs_a_size_that_it_takes(here, fails, crops, size, message):
    words = ['--size', *size] if size else []
    assert message in fails(export.main, *hyperiqa(crops), '--torch_export', 'm.pt2', *words)
    assert not (here / 'm.pt2').exists()


@new_torch
def test_pyramids_need_one_size(here, fails):
    needs_onnx()
    words = ['--trained_model_file', saved(here, resize=None, architecture='alexnet', P7=2,
                                           pool='mean_std'), *WORDS, '--onnx', 'm.onnx']
    assert 'this network can be exported for one size of images only: give --size H W' in fails(export.main, *words)
    assert export.main([*words, '--size', '130', '150'])['m.onnx'] < 1e-3
    images = np.stack([photo(i, (130, 150)) for i in range(5)])
    np.testing.assert_allclose(export.read_onnx('m.onnx')(images), load(words[1]).score(images), atol=1e-3)


@new_torch
def test_a_calibrated_model_of_any_size(here):
    checkpoint = load_checkpoint(saved(here, resize=None, architecture='alexnet'))
    save_checkpoint('c.pth', {**checkpoint, 'mapping': {'name': 'logistic', 'parameters': [90., 10., 0., .3]}})
    export.main(['--trained_model_file', 'c.pth', *WORDS, '--torch_export', 'm.pt2'])
    for size in ((96, 128), (130, 201)):
        images = np.stack([photo(i, size) for i in range(2)])
        np.testing.assert_allclose(export.read_torch('m.pt2')(images), load('c.pth').score(images), atol=1e-3)


def test_a_difference_is_an_error(here, monkeypatch, capsys):
    def write(model, example, dynamic, about, path):
        torch.save({}, path)

    def read(path):
        return lambda images: exported(torch.from_numpy(images)).numpy() + .01
    exported = export.Exported(load(saved(here, resize=None, architecture='mini')))
    monkeypatch.setitem(export.FORMATS, 'torch_export', (write, read))
    with pytest.raises(SystemExit) as stop:
        export.main(['--trained_model_file', saved(here, resize=None, architecture='mini'), *WORDS,
                     '--torch_export', 'm.pt2'])
    assert stop.value.code == 1
    assert 'm.pt2: above 0.001 MOS units: do not use' in capsys.readouterr().out


def test_a_file_that_does_not_run_is_an_error(here, monkeypatch, capsys):
    monkeypatch.setitem(export.FORMATS, 'torch_export', (
        lambda *arguments: arguments[-1].write_text(''), lambda path: lambda images: 1 / 0))
    with pytest.raises(SystemExit):
        export.main(['--trained_model_file', saved(here, resize=None, architecture='mini'), *WORDS,
                     '--torch_export', 'm.pt2'])
    assert 'm.pt2: does not run: division by zero' in capsys.readouterr().out


def test_mistakes(here, fails, monkeypatch):
    checkpoint = saved(here, architecture='mini')
    words = ['--trained_model_file', checkpoint, *WORDS]
    assert 'give --onnx FILE, --torch_export FILE or --half FILE' in fails(export.main, *words)
    (here / 'taken').write_text('')
    assert '--torch_export taken/m.pt2 cannot be written' in fails(export.main, *words, '--torch_export', 'taken/m.pt2')

    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith('onnx'):
            raise ImportError(f'No module named {name!r}', name=name)
        return real(name, *args, **kwargs)
    monkeypatch.setattr(builtins, '__import__', without)
    error = fails(export.main, *words, '--onnx', 'm.onnx')
    assert '--onnx needs onnx: pip install -r requirements-export.txt' in error
    assert not (here / 'm.onnx').exists()


def test_half_precision_scores_alike_at_half_the_size(here, capsys):
    """Every tensor of several dimensions is halved, the others are kept, and scores move little."""
    checkpoint = saved(here, architecture='mini')
    assert export.main(['--trained_model_file', checkpoint, *WORDS, '--half', 'small.pth']) == {}
    assert 'small.pth: ' in capsys.readouterr().out
    whole, small = load_checkpoint(checkpoint), load_checkpoint('small.pth')
    assert (here / 'small.pth').stat().st_size < .52 * (here / checkpoint).stat().st_size
    for name, tensor in whole['model'].items():
        kept = tensor if tensor.ndim < 2 else tensor.half()
        torch.testing.assert_close(small['model'][name], kept, rtol=0, atol=0)
    for key in ('network', 'input', 'options', 'k', 'b', 'metrics', 'split'):
        assert small.get(key) == whole.get(key)
    images = np.stack([photo(i) for i in range(3)])
    scale = whole['mos']['max'] - whole['mos']['min']
    np.testing.assert_allclose(load('small.pth').score(images), load(checkpoint).score(images), atol=.005 * scale)
    assert (here / 'small.md').read_text().startswith('# Model card')
    with pytest.raises(SystemExit):
        export.main(['--trained_model_file', checkpoint, *WORDS, '--half', checkpoint])
