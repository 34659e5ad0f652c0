"""Used from elsewhere: the command linearity-iqa, the installed package, torch.hub in a program with other packages."""
import importlib.util
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import ROOT
from scored import PHOTO_SCORE, save_photos, saved

from iqa_runtime.commands import SUBCOMMANDS, main

tomllib = pytest.importorskip('tomllib')  # Python 3.11


def test_everything_is_packaged():
    packages = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['setuptools']['packages']
    inside = {name.removeprefix('linearity_iqa.toolkit.') for name in packages[2:]}
    assert all(list((ROOT / folder).iterdir()) for folder in inside)
    assert {path.parent.name for path in ROOT.glob('iqa_*/*.py')} < inside


@pytest.mark.parametrize('name', ['IQAmodel', 'modified_ignite_engine', 'iqa_losses', 'iqa_networks.swin'])
def test_a_module_exists_once_under_both_names(name):
    assert importlib.import_module(f'linearity_iqa.{name}') is importlib.import_module(name)


@pytest.mark.parametrize('name', ['iqa_nothing', 'IQAnothing', 'nothing', 'iqa_data.nothing'])
def test_a_module_that_does_not_exist(name):
    with pytest.raises(ModuleNotFoundError, match='nothing'):
        importlib.import_module(f'linearity_iqa.{name}')


@pytest.mark.parametrize('name', SUBCOMMANDS)
def test_every_subcommand_is_a_script(name):
    module, about = SUBCOMMANDS[name]
    assert 'if __name__ == \'__main__\':' in (ROOT / f'{module.replace(".", "/")}.py').read_text()
    assert about


def test_the_command_lists_and_refuses(capsys, monkeypatch):
    main([])
    out = capsys.readouterr().out
    assert all(name in out for name in SUBCOMMANDS)
    with pytest.raises(SystemExit) as stop:
        main(['trian'])
    assert stop.value.code == 2
    assert "unknown command 'trian' (did you mean train?)" in capsys.readouterr().err


def test_the_version(capsys):
    main(['--version'])
    version = tomllib.loads((ROOT / 'pyproject.toml').read_text())['project']['version']
    assert capsys.readouterr().out == f'linearity-iqa {version}\n'


def test_a_subcommand_is_the_script():
    found = subprocess.run([sys.executable, '-m', 'iqa_runtime.commands', 'train', '--lossy'], cwd=ROOT,
                           capture_output=True, text=True)
    assert found.returncode == 2
    assert found.stderr.startswith('linearity-iqa train: error: unrecognized arguments: --lossy')


OWN = ('data', 'training', 'networks', 'utils', 'main', 'test_dataset', 'test_demo', 'hubconf')
HUB = f"""
import sys
import {', '.join(OWN)}
import torch
scorer = torch.hub.load(sys.argv[1], 'linearity_iqa', source='local', checkpoint=sys.argv[2])
assert all(module.own for module in ({', '.join(OWN)}))
print(scorer.score(sys.argv[3]))
assert not {{'h5py', 'pandas', 'matplotlib'}} & set(sys.modules)  # which hubconf.py does not list
"""
PROGRAM = f"""
import sys
import {', '.join(OWN)}

if __name__ == '__main__':
    import torch
    from linearity_iqa import IQAmodel
    from linearity_iqa.IQAdataset import load_data
    from linearity_iqa.main import train
    from linearity_iqa.results_in_the_paper.compare import COMPARE
    from linearity_iqa.test_demo import main as score
    torch.multiprocessing.set_start_method('spawn')
    data_set = load_data('set.csv', im_dir='images', resize=(48, 64), batch_size=4, num_workers=1)
    images, scores = next(iter(data_set.loader('train')))
    assert images[-1].shape == (4, 3, 48, 64)
    assert all(module.own for module in ({', '.join(OWN)}))
    print(IQAmodel.load(sys.argv[1]).score(sys.argv[2]))
"""


def write_program(folder: Path, program: str) -> None:
    """Write a program that has modules of its own under the names of the scripts and the folders of a clone."""
    for name in OWN:
        (folder / f'{name}.py').write_text('own = True\n')
    (folder / 'program.py').write_text(program)


def output_of(folder: Path, *words: str) -> str:
    """Run a command in a folder; return what it prints."""
    found = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.slow
def test_torch_hub_in_a_program_with_modules_of_its_own(tmp_path):
    write_program(tmp_path, HUB)
    words = [str(ROOT), saved(tmp_path), *save_photos(tmp_path / 'images', 1)]
    assert float(output_of(tmp_path, sys.executable, 'program.py', *words)) == pytest.approx(PHOTO_SCORE, abs=.1)


@pytest.fixture(scope='module')
def installed(tmp_path_factory) -> Path:
    """The folder of programs of a new environment with the installed toolkit; other packages are those of this one."""
    folder = tmp_path_factory.mktemp('installed')
    listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in listed:  # a copy, so that the build leaves nothing behind
        copy = folder / 'source' / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(Path(ROOT, name).read_bytes())
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', folder / 'venv'], check=True)
    python = folder / 'venv/bin/python'
    site = Path(output_of(folder, python, '-c', 'import sysconfig; print(sysconfig.get_path("purelib"))').strip())
    (site / 'others.pth').write_text(sysconfig.get_path('purelib'))
    before = set(site.iterdir())
    output_of(folder, python, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation', folder / 'source')
    assert {path.name.partition('-')[0] for path in set(site.iterdir()) - before} == {'linearity_iqa'}
    return python.parent


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec('setuptools'), reason='builds with the installed setuptools')
def test_an_installed_toolkit(installed, tmp_path):
    for command in ([installed / 'linearity-iqa'], [installed / 'python', '-m', 'linearity_iqa']):
        assert output_of(tmp_path, *command, '--version') == 'linearity-iqa 2.0\n'
        assert 'Norm-in-Norm' in output_of(tmp_path, *command, 'train', '--recipe')
    assert 'resnet18' in output_of(tmp_path, installed / 'python', '-m', 'linearity_iqa.main', '--list_models', 'res*')
    for name in SUBCOMMANDS:
        assert '--help' in output_of(tmp_path, installed / 'linearity-iqa', name, '--help')
    (photo,) = save_photos(tmp_path / 'images', 1)
    assert 'image quality score' in output_of(tmp_path, installed / 'linearity-iqa', 'score', '--img', photo)
    (tmp_path / 'set.csv').write_text('image,mos\n00.png,1\n')
    output_of(tmp_path, installed / 'linearity-iqa', 'info', 'csv', '--source', 'set.csv')
    assert (tmp_path / 'data/set.csv').exists()


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec('setuptools'), reason='builds with the installed setuptools')
def test_an_installed_toolkit_in_a_program_with_modules_of_its_own(installed, tmp_path):
    write_program(tmp_path, PROGRAM)
    paths = save_photos(tmp_path / 'images', 20)
    (tmp_path / 'set.csv').write_text('image,mos\n' + ''.join(f'{Path(path).name},{i}\n'
                                                              for i, path in enumerate(paths)))
    printed = output_of(tmp_path, installed / 'python', 'program.py', saved(tmp_path), paths[0])
    assert float(printed.split()[-1]) == pytest.approx(PHOTO_SCORE, abs=.1)
