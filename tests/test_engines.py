"""Scoring by ONNX Runtime: the scores of torch, whatever the size and number of the images."""
import builtins

import numpy as np
import pandas as pd
import pytest
import torch
from scored import needs_onnx, photo, save_photos, saved

import test_demo
from iqa_networks.network import Network
from iqa_scoring import engines
from IQAmodel import load

WORDS = ['--trained_model_file', 'checkpoint.pth', '--device', 'cpu']


@pytest.fixture
def here(tmp_path, monkeypatch, one_thread):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_scores_are_those_of_torch(here, monkeypatch):
    needs_onnx()
    monkeypatch.setattr(engines, 'SIZES', 1)
    saved(here, resize=None)
    save_photos(here / 'images', 3)
    save_photos(here / 'images' / 'larger', 2, (64, 96))  # one size more than are compiled: torch computes it
    found = {}
    for engine in engines.ENGINES:
        test_demo.main(['--img', 'images', '--recursive', *WORDS, '--engine', engine, '--csv', f'{engine}.csv'])
        found[engine] = pd.read_csv(f'{engine}.csv')
    assert len(found['onnx']) == 5
    assert found['onnx'].score.std() > 1
    for column in ('score', 'raw'):
        np.testing.assert_allclose(found['onnx'][column], found['torch'][column], atol=1e-3)


class Strange(Network):
    """A network that torch cannot export, since its graph depends on the values of the pixels."""

    def __init__(self):
        super().__init__()
        self.last_layer = torch.nn.Linear(3, 1)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor]:
        means = x.mean((2, 3))
        return (self.last_layer(means) if float(means.mean()) > 0 else self.last_layer(-means),)


def test_torch_computes_what_cannot_be_exported(capsys):
    needs_onnx()
    network = Strange().eval()
    images = torch.rand(2, 3, 8, 9)
    with torch.inference_mode():
        ours, = engines.OnnxNetwork(network).measure(images)
        assert torch.equal(ours, network(images)[0])
    warning = capsys.readouterr().err
    assert warning.count('\n') == 1
    assert 'torch computes this network, which cannot be exported for images of 9x8' in warning


def test_mistakes(here, fails, monkeypatch):
    saved(here)
    save_photos(here, 1)
    words = ['--img', '00.png', *WORDS, '--engine']
    assert "'onyx'" in fails(test_demo.main, *words, 'onyx')
    scorer = load('checkpoint.pth')
    monkeypatch.setattr(scorer, 'device', 'cuda')
    with pytest.raises(ValueError, match='--engine onnx computes on the CPU, not on cuda: give --device cpu'):
        engines.by_onnxruntime(scorer)
    real = builtins.__import__

    def without(name, *args, **kwargs):
        if name.startswith('onnx'):
            raise ImportError(f'No module named {name!r}', name=name)
        return real(name, *args, **kwargs)
    monkeypatch.setattr(builtins, '__import__', without)
    error = fails(test_demo.main, *words, 'onnx')
    assert '--engine onnx needs onnx: pip install -r requirements-export.txt' in error
    assert test_demo.main([*words, 'torch']) == pytest.approx(load('checkpoint.pth').score(photo(0)))
