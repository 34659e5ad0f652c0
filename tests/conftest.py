"""Fixtures of all tests: the recorded data beside the project, if there is any, and a tiny data set."""
import os
import runpy
import signal
import sys
from pathlib import Path

os.environ.setdefault('OMP_WAIT_POLICY', 'PASSIVE')  # as every script does: read when torch is loaded
os.environ.setdefault('OMP_NUM_THREADS', '1')  # threads of so small networks cost more than they gain

import numpy as np
import pytest
import torch
from hypothesis import settings
from mini import MINI
from PIL import Image
from scored import save_photos, saved

from iqa_data.info import write_info
from iqa_scoring.options import SCORE
from iqa_training.options import TRAIN

ROOT = Path(__file__).parent.parent
SMALL = ['--resize', '-rs_h', '48', '-rs_w', '64', '-arch', 'resnet18', '--weights', 'none', '--device', 'cpu',
         '--no-pbar', '--num_workers', '0']

OTHER_DEFAULTS = {'summary': False, 'again': True, 'keep': 1, 'overwrite': True}

# the same cases each time; `pytest --hypothesis-profile=others` looks for more; a slow machine fails no test
settings.register_profile('others', deadline=None)
settings.register_profile('same cases', settings.get_profile('others'), derandomize=True, max_examples=50)
settings.load_profile('same cases')


@pytest.fixture(scope='session')
def shared() -> Path:
    """The folder ../shared with numbers recorded from the original package; skips where it is absent."""
    folder = ROOT.parent / 'shared'
    if not folder.is_dir():
        pytest.skip('needs ../shared, the numbers recorded from the original package, which are not published')
    return folder


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Seed torch before each test, so that none depends on those that ran before it."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def other_defaults(monkeypatch) -> None:
    """Let runs write no summary, which takes longer than such a run, replace earlier files, and keep their states."""
    for name, default in OTHER_DEFAULTS.items():
        for command in (TRAIN, SCORE):
            if name in command.defaults:
                monkeypatch.setitem(command.defaults, name, default)


def make_tiny(folder: Path, n: int = 24, size: tuple[int, int] = (64, 48)) -> Path:
    """n noisy gradients of `size` (w, h) whose noise grows as the score falls, and info.mat; all from fixed seeds."""
    rng = np.random.RandomState(5)
    mos = rng.uniform(10, 90, n)
    (folder / 'images').mkdir(parents=True)
    ramp = np.linspace(0, 255, size[0])[None, :, None]
    for i, score in enumerate(mos):
        noisy = ramp + rng.normal(0, 100 - score, (size[1], size[0], 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(folder / 'images' / f'{i:02d}.png')
    index = np.stack([rng.permutation(n) + 1 for _ in range(3)], axis=1)
    names = [f'{i:02d}.png' for i in range(n)]
    write_info(folder / 'info.mat', names, mos, rng.uniform(5, 15, n), range(1, n + 1), index)
    return folder


@pytest.fixture
def tiny(tmp_path, monkeypatch) -> list[str]:
    """A tiny data set in a fresh working directory; the options of main.py that use it."""
    make_tiny(tmp_path / 'tiny')
    monkeypatch.chdir(tmp_path)
    return ['--dataset', 'demo', '--im_dir', 'tiny/images', '--data_info', 'tiny/info.mat']


@pytest.fixture
def fails(capsys):
    """Call a command that must fail: returns its one line on stderr after checking the exit status 2."""
    def call(main, *argv: str) -> str:
        capsys.readouterr()
        with pytest.raises(SystemExit) as stop:
            main([str(word) for word in argv])
        error = capsys.readouterr().err
        assert stop.value.code == 2
        assert error.count('\n') == 1, error
        assert 'Traceback' not in error
        return error
    return call


@pytest.fixture
def script(monkeypatch):
    """Run a script by its path from a folder, as python does, in this process; returns its exit status.

    That each script finds its packages is a test of its own (test_help.py).
    """
    def call(path: str, *words, folder: str | Path = '/') -> int:
        monkeypatch.chdir(folder)
        monkeypatch.setattr(sys, 'argv', [str(ROOT / path), *map(str, words)])
        monkeypatch.setattr(sys, 'path', [*sys.path])  # to which it adds
        try:
            runpy.run_path(str(ROOT / path), run_name='__main__')
        except SystemExit as stop:
            return stop.code
        return 0
    return call


@pytest.fixture
def foreground():
    """The handlers of signals that a command in the foreground has; the tests may run where Ctrl-C is ignored."""
    before = {signal.SIGINT: signal.default_int_handler, signal.SIGTERM: signal.SIG_DFL}
    before = {number: signal.signal(number, handler) for number, handler in before.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def one_thread():
    """Small networks on a busy machine: threads that wait for one another cost more than they gain."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope='session')
def scored_folder(tmp_path_factory) -> Path:
    """A folder with checkpoint.pth, a random network, and images/00.png to 11.png."""
    folder = tmp_path_factory.mktemp('scored')
    saved(folder, architecture=MINI[1])
    save_photos(folder / 'images', 12)
    return folder


@pytest.fixture
def scored(scored_folder, tmp_path, monkeypatch, one_thread) -> list[str]:
    """A fresh working directory with images/00.png to 11.png; the options of test_demo.py that score with the model."""
    (tmp_path / 'images').symlink_to(scored_folder / 'images')
    monkeypatch.chdir(tmp_path)
    return ['--trained_model_file', str(scored_folder / 'checkpoint.pth'), '--device', 'cpu', '--no-pbar',
            '--num_workers', '2']
