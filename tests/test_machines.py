"""Machines that lack something: a GPU without float64, as Apple's, and a system without os.sysconf, as Windows."""
import os

import numpy as np
import torch
from scored import photo, random_checkpoint
from torch import nn

from iqa_networks.svd_layers import SVDLinear
from iqa_runtime.process import memory
from iqa_scoring.maps import quality_maps
from IQAmodel import create_model, load
from IQAperformance import IQAPerformance


class WithoutFloat64(torch.Tensor):
    """A tensor on a device without float64, as are all tensors computed from it."""

    def cpu(self):
        return self.as_subclass(torch.Tensor)

    def double(self):
        raise TypeError('Cannot convert a tensor to float64 dtype as the framework does not support float64')

    def to(self, *args, **kwargs):
        if torch.float64 in args or kwargs.get('dtype') == torch.float64:
            self.double()
        return self.cpu() if 'cpu' in args else super().to(*args, **kwargs)


def moved(tensor):
    return tensor.as_subclass(WithoutFloat64)


def test_the_metric_without_float64():
    scores = torch.rand(3, 6, 1)
    metrics = IQAPerformance(), IQAPerformance()
    for metric, place in zip(metrics, (torch.Tensor.clone, moved), strict=True):
        metric.update(([place(scores[0])], (place(scores[1]), place(scores[2]))))
    expected, found = (metric.compute() for metric in metrics)
    assert np.array_equal(expected.pq, found.pq)


def test_factored_layers_without_float64():
    layer = SVDLinear(nn.Linear(5, 4))
    expected = layer.S.clone()
    layer.weight = nn.Parameter(moved(layer.weight.detach()))
    layer.decompose()
    assert torch.equal(layer.S.cpu(), expected)


def test_scores_and_maps_without_float64(one_thread, monkeypatch):
    scorer = load(random_checkpoint(resize=None))
    pixels = torch.from_numpy(photo(0, (96, 128))).permute(2, 0, 1)[None]
    expected = scorer.heads(pixels), quality_maps(scorer, pixels)
    forward, local = scorer.network.forward, scorer.network.local
    monkeypatch.setattr(scorer.network, 'forward', lambda *images: tuple(map(moved, forward(*images))))
    monkeypatch.setattr(scorer.network, 'local', lambda *words: moved(local(*words)))
    for one, other in zip(expected, (scorer.heads(pixels), quality_maps(scorer, pixels)), strict=True):
        assert np.array_equal(one, other)


def test_a_system_that_does_not_report_its_memory(monkeypatch):
    assert memory() > 1 << 20
    monkeypatch.delattr(os, 'sysconf')
    assert memory() is None
    create_model('timm/test_resnet')
