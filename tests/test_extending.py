"""The six additions of docs/extending.md, each in a file of its own: trained with, resumed, scored, and refused."""
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT, SMALL

import main
import test_demo
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.errors import UserError
from iqa_training.options import TRAIN
from IQAmodel import NETWORKS, load

PAGE = (ROOT / 'docs/extending.md').read_text()
BLOCKS = dict(re.findall(r'<!-- file: (\w+\.py) -->\n```python\n(.*?)```', PAGE, re.S))
OWN = ['-arch', 'my_network.py:TinyNet']
WORDS = ['-e', '2', '-bs', '4', '--device', 'cpu', '--target', 'zscore', '-lr', '.01']


@pytest.fixture
def files(tiny):
    """The files of the page in the current folder, and the words that name the data set."""
    for name, source in BLOCKS.items():
        Path(name).write_text(source)
    yield tiny
    for name in [name for name in NETWORKS if '.py:' in name]:
        del NETWORKS[name]
    NETWORKS.parameters.pop('width', None)
    for name in [name for name in sys.modules if name.startswith('own network')]:
        del sys.modules[name]


def test_each_addition_is_a_file_of_about_ten_lines():
    assert len(BLOCKS) == 6
    for name, source in BLOCKS.items():
        assert len([line for line in source.splitlines() if line]) <= 13, name


def test_all_six_are_trained_with(files):
    modules = ', '.join(name.removesuffix('.py') for name in BLOCKS if name != 'my_network.py')
    words = [*files, *SMALL, *WORDS, *OWN, '--width', '5', '-lt', 'mse+relative:.5', '--relative_floor', '2',
             '--augmentation', 'grey', '--grey_p', '1', '--schedule', 'inverse', '--slowness', '3',
             '--optimizer', 'rmsprop', '--smoothing', '.5', '-valc', 'MAE']
    program = f'import {modules}, sys, main\nmain.main(sys.argv[1:])\nmain.main([*sys.argv[1:], "--help", "losses"])'
    done = subprocess.run([sys.executable, '-c', program, *words], capture_output=True, text=True, check=False,
                          env={**os.environ, 'PYTHONPATH': f'{ROOT}{os.pathsep}.'})
    assert done.returncode == 0, done.stderr
    assert re.search(r'--relative_floor FLOOR +relative: lowest MOS to divide by \(default: 1\)', done.stdout)
    assert 'MAE' in done.stdout
    (checkpoint,) = Path('checkpoints').glob('*.pth')
    assert 'rmsprop' in checkpoint.name
    content = load_checkpoint(checkpoint)
    assert content['network'] == {'name': 'my_network.py:TinyNet', 'options': {'width': 5}}
    stored = {'relative_floor': 2., 'grey_p': 1., 'slowness': 3., 'smoothing': .5, 'width': 5}
    assert {name: content['options'][name] for name in stored} == stored


def test_a_class_of_ones_own_is_scored_with_only_if_it_is_typed_again(files, capsys, fails):
    Path('folder').mkdir()
    shutil.move('my_network.py', 'folder')
    own = ['-arch', 'folder/my_network.py:TinyNet']
    main.main([*files, *SMALL, *WORDS, *own, '--width', '3', '-lt', 'mae'])
    (checkpoint,) = Path('checkpoints').glob('*.pth')
    image = next(Path(files[files.index('--im_dir') + 1]).iterdir())
    score = ['--img', str(image), '--trained_model_file', str(checkpoint), '--device', 'cpu']
    assert isinstance(test_demo.main([*score, *own]), float)
    del NETWORKS['my_network.py:TinyNet']  # as in another process
    marker = Path('folder/my_network.py')
    marker.write_text('raise SystemExit("it was run")')
    for mistake in (fails(test_demo.main, *score), fails(TRAIN.parse, '--recipe', recipe(own))):
        assert 'is a class in a file, which only -arch' in mistake
    with pytest.raises(UserError, match='is a class in a file'):
        load(checkpoint)


def recipe(words: list[str]) -> str:
    Path('theirs.txt').write_text(' '.join(words))
    return 'theirs.txt'


@pytest.mark.parametrize(('source', 'message'), [
    ('x = 1', "AttributeError: module 'own network"), ('1 / 0', 'ZeroDivisionError: division by zero'),
    ('TinyNet = 3', 'TinyNet is no subclass of iqa_networks.network.Network'), (None, 'FileNotFoundError'),
    ('import nothing_of_that_name', 'ModuleNotFoundError')])
def test_a_file_without_such_a_network_is_one_line(source, message, files, fails):
    Path('my_network.py').unlink()
    if source:
        Path('my_network.py').write_text(source)
    error = fails(TRAIN.parse, *OWN)
    assert '-arch my_network.py:TinyNet: ' in error
    assert message in error
