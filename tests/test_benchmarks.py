"""The benchmark for a GPU runs without one, with small networks: only what it prints is checked, never a time."""
import importlib
import re
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).resolve().parents[1] / 'benchmarks'


@pytest.fixture
def gpu(monkeypatch):
    """Return the module benchmarks/gpu.py, with its slowest and its fastest way only."""
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    module = importlib.import_module('gpu')
    monkeypatch.setattr(module, 'WAYS', (module.WAYS[0], module.WAYS[-1]))
    return module


def test_every_system_has_a_table(gpu, capsys):
    gpu.main(['--tiny', '--device', 'cpu', '--steps', '1'])
    found = capsys.readouterr().out
    assert set(re.findall(r'\*\*(.+)\*\*', found)) == set(gpu.SYSTEMS)
    tables = dict(zip(gpu.SYSTEMS, found.split('**')[2::2], strict=True))
    for system, table in tables.items():
        trains = [way.name for way in gpu.WAYS]
        cached = ['step on cached features'] * (system in ('LinearityIQA', 'SVD-CNNIQA', 'HyperIQA'))
        scores = ['scoring, 2 crops of an image' if system == 'HyperIQA' else 'scoring']
        rows = re.findall(r'^\| (.+?) \| [\d.]+ \| [\d.]+ \|', table, re.MULTILINE)
        assert rows == trains + cached + scores, system


def test_a_network_without_enough_memory_leaves_the_others(gpu, capsys, monkeypatch):
    def refuse(way, setting):
        raise gpu.torch.OutOfMemoryError('as on a small GPU')
    monkeypatch.setattr(gpu, 'step_of', refuse)
    gpu.main(['--tiny', '--device', 'cpu', '--steps', '1', '--systems', 'SVD-CNNIQA'])
    found = capsys.readouterr().out
    assert found.count('| out of memory |') == 2
    assert re.search(r'^\| scoring \| [\d.]+ \|', found, re.MULTILINE)
