"""Names of runs and of their checkpoints on the command line; files that would be lost without a question."""
import os
from pathlib import Path

import pytest
from conftest import SMALL
from mini import MINI

import main
import test_dataset
import test_demo
from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.errors import UserError
from iqa_scoring.options import SCORE
from iqa_training.naming import named_checkpoint, run_digest
from iqa_training.options import TRAIN

OPTIONS = [*SMALL, *MINI, '-e', '1']


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of checkpoints, the last one the newest, in the current folder."""
    monkeypatch.chdir(tmp_path)
    for i, name in enumerate(('mine-0a1b2c3d', 'mine-ffff0000', 'yours-0a1f0000', 'plain', 'too-large')):
        path = Path('checkpoints', f'{name}.pth')
        path.parent.mkdir(exist_ok=True)
        path.touch()
        os.utime(path, (i, i))
    return Path('checkpoints')


@pytest.mark.parametrize(('named', 'found'), [
    ('yours', 'yours-0a1f0000'), ('mine-0a1b2c3d', 'mine-0a1b2c3d'), ('fff', 'mine-ffff0000'),
    ('0a1b', 'mine-0a1b2c3d'),
    ('0a1b2c3d', 'mine-0a1b2c3d'), ('plain', 'plain'), ('latest', 'too-large'),
    ('plain.pth', 'plain'), ('checkpoints/plain.pth', 'plain')])
def test_a_checkpoint_by_its_run_its_digest_or_its_age(folder, named, found):
    assert named_checkpoint(named, folder) == folder / f'{found}.pth'


@pytest.mark.parametrize('named', ['mine', '0a1', 'too', 'ff', 'checkpoints/gone.pth', '*'])
def test_other_names_list_what_is_there(folder, named):
    with pytest.raises(UserError, match=r'\.pth') as error:
        named_checkpoint(named, folder)
    assert ('mine-0a1b2c3d.pth' in str(error.value)) == (named in ('mine', '0a1') or 'no such file' in str(error.value))


def test_latest_of_an_empty_folder(tmp_path):
    with pytest.raises(UserError, match='checkpoints in .*: none'):
        named_checkpoint('latest', tmp_path)


def test_a_finished_run_is_not_trained_again_without_a_word(tiny, monkeypatch, fails, capsys):
    monkeypatch.setitem(TRAIN.defaults, 'again', False)
    words = [*tiny, *OPTIONS]
    performance = main.main([*words, '--name', 'mine'])
    digest = run_digest(TRAIN.parse(words))
    checkpoint = Path('checkpoints', f'mine-{digest}.pth')
    assert load_checkpoint(checkpoint)['finished']
    assert Path('runs', f'mine-{digest}', 'options.json').is_file()
    assert Path('results', f'mine-{digest}.csv').is_file()
    before = checkpoint.read_bytes()
    for again in (words, [*words, '--name', 'mine'], [*words, '--name', 'other']):  # the digest is the identity
        error = fails(main.main, *again)
        assert f'{checkpoint} is a finished run: --evaluate' in error
        assert '--again' in error
    assert checkpoint.read_bytes() == before
    assert main.main([*words, '--resume', 'auto']) is None
    assert main.main([*words, '--again']).srocc == performance.srocc
    capsys.readouterr()
    rest = ['--device', 'cpu', '--no-pbar', '--num_workers', '0']
    for named in ('mine', digest[:4], 'latest'):
        assert test_dataset.main([*tiny[2:], '--trained_model_file', named, *rest]).srocc == performance.srocc
    test_demo.main(['--about', 'mine', *rest])
    assert f'mine-{digest}' in capsys.readouterr().out
    assert main.main(['--summary', '--trained_model_file', 'mine']) is None


@pytest.mark.parametrize(('words', 'error'), [
    (['--name', 'latest'], "'latest': expected up to 100 letters"), (['--name', 'a/b'], "'a/b': expected"),
    (['--name', '../x'], 'expected up to 100'), (['--name', 'x' * 101], 'expected up to 100'),
    (['--name', 'x', '--trained_model_file', 'y.pth'], 'both name the checkpoint'),
    (['--again', '--resume', 'auto'], 'give one')])
def test_names_that_are_refused(words, error, fails):
    assert error in fails(TRAIN.parse, *words)


@pytest.mark.parametrize('kind', ['csv', 'json'])
def test_a_table_is_replaced_only_if_asked_for(kind, scored, monkeypatch, fails):
    monkeypatch.setitem(SCORE.defaults, 'overwrite', False)
    words = ['--img', 'images', *scored, f'--{kind}', 'out']
    Path('out').write_text('mine\n')
    assert f'--{kind} out exists: --resume scores what it lacks, and --overwrite replaces it' in fails(
        test_demo.main, *words)
    assert Path('out').read_text() == 'mine\n'
    assert test_demo.main([*words, '--overwrite']) == 12
    assert '--overwrite replaces it' in fails(test_demo.main, *words)
    assert test_demo.main([*words, '--resume']) == 0
    assert 'give one' in fails(test_demo.main, *words, '--resume', '--overwrite')


@pytest.mark.parametrize('content', [(), ('photo.png',), ('config.json',)])
def test_a_folder_of_photos_does_not_hide_the_run_of_its_name(tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    for folder in ('checkpoints', 'mine', 'photos'):
        Path(folder).mkdir()
    Path('checkpoints/mine-0a1b2c3d.pth').touch()
    for name in content:
        Path('mine', name).touch()
    found = 'mine' if 'config.json' in content else 'checkpoints/mine-0a1b2c3d.pth'
    assert named_checkpoint('mine', 'checkpoints') == Path(found)
    assert named_checkpoint('photos', 'checkpoints') == Path('photos')  # whose reader says what it lacks
