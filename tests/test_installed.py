"""Used from elsewhere: the command linearity-iqa, the installed package, torch.hub in a program with other packages."""
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import ROOT
from scored import save_photos, saved

from iqa_runtime.commands import SUBCOMMANDS, main

tomllib = pytest.importorskip('tomllib')  # Python 3.11


def test_everything_is_packaged():
    packaged = tomllib.loads((ROOT / 'pyproject.toml').read_text())['tool']['setuptools']
    folders = packaged['package-dir']
    for package in packaged['packages']:
        assert list((ROOT / folders.get(package, package.replace('.', '/'))).iterdir())
    assert {path.parent.name for path in ROOT.glob('iqa_*/*.py')} <= set(packaged['packages'])
    assert {path.stem for path in ROOT.glob('*.py')} == set(packaged['py-modules'])


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


OTHERS = """
import sys
import data, training, networks, utils, main
import torch
scorer = torch.hub.load(sys.argv[1], 'linearity_iqa', source='local', checkpoint=sys.argv[2])
assert all(package.own for package in (data, training, networks, utils, main))
print(scorer.score(sys.argv[3]))
"""


def test_torch_hub_in_a_program_with_packages_of_its_own(tmp_path):
    for name in ('data', 'training', 'networks', 'utils'):
        (tmp_path / name).mkdir()
        (tmp_path / name / '__init__.py').write_text('own = True\n')
    (tmp_path / 'main.py').write_text('own = True\n')
    (tmp_path / 'program.py').write_text(OTHERS)
    words = [str(ROOT), saved(tmp_path), *save_photos(tmp_path / 'images', 1)]
    found = subprocess.run([sys.executable, 'program.py', *words], cwd=tmp_path, capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    float(found.stdout)


@pytest.mark.slow
@pytest.mark.skipif(not importlib.util.find_spec('setuptools'), reason='builds with the installed setuptools')
def test_an_installed_toolkit(tmp_path):
    listed = subprocess.run(['git', 'ls-files'], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()
    for name in listed:  # a copy, so that the build leaves nothing behind
        copy = tmp_path / 'source' / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(Path(ROOT, name).read_bytes())
    subprocess.run([sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation', '--target',
                    str(tmp_path / 'site'), str(tmp_path / 'source')], check=True)
    program = 'import sys; sys.path[0] = sys.argv.pop(1); from iqa_runtime.commands import main; main()'

    def run(*words: str) -> str:
        found = subprocess.run([sys.executable, '-c', program, str(tmp_path / 'site'), *words], cwd=tmp_path,
                               capture_output=True, text=True)
        return found.stdout + found.stderr
    assert 'Norm-in-Norm' in run('train', '--recipe')
    assert 'resnet18' in run('train', '--list_models', 'resnet*')
    assert 'nothing.csv: no such file' in run('check', 'nothing.csv')
    assert not (tmp_path / 'site' / 'data').exists()
