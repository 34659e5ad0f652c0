"""What runs leave on the disk: states and locks are removed by themselves, the rest by iqa_training/clean.py."""
from pathlib import Path

import pytest
from conftest import SMALL
from mini import MINI, stop_at

import main
from iqa_runtime.files import locked
from iqa_training import clean
from iqa_training.options import TRAIN

RUN = [*SMALL, *MINI, '-e', '2', '--cache', 'disk']


@pytest.fixture
def used(tiny, monkeypatch):
    """A folder with a finished run that kept its state, a stopped run, and a cache."""
    main.main([*tiny, *RUN, '--name', 'whole', '--keep', '1'])
    stop_at(monkeypatch, 3)
    with pytest.raises(SystemExit):
        main.main([*tiny, *RUN, '--seed', '1', '--name', 'stopped'])


def names(folder: str) -> set[str]:
    return {path.name.partition('-')[0] for path in Path(folder).glob('*.state')}


def test_a_finished_run_leaves_no_state_and_no_lock(tiny, monkeypatch):
    monkeypatch.setitem(TRAIN.defaults, 'keep', None)
    main.main([*tiny, *RUN])
    left = [path.suffix for folder in ('checkpoints', 'runs', 'cache') for path in Path(folder).rglob('*')
            if path.is_file()]
    assert not {'.state', '.lock', ''} & set(left)
    assert {'.pth', '.md', '.npy', '.json'} <= set(left)


def test_a_lock_is_removed_while_it_is_held(tmp_path):
    path = tmp_path / 'x.lock'
    with locked(path):
        assert path.exists()
    assert not path.exists()
    with locked(path):
        path.unlink()  # by the user


def test_it_lists_all_and_removes_what_is_asked_for(used, capsys):
    capsys.readouterr()
    clean.main([])
    listed = capsys.readouterr().out
    assert 'states: 1 files, ' in listed
    assert 'unfinished: 1 files, ' in listed
    assert 'locks: 0 files, 0.0 MB' in listed
    assert 'caches: 2 files, ' in listed
    assert 'MB  checkpoints/whole-' in listed
    assert names('checkpoints') == {'whole', 'stopped'}
    clean.main(['--remove', 'states'])
    assert capsys.readouterr().out.startswith('states: 1 files removed, ')
    assert names('checkpoints') == {'stopped'}
    clean.main(['--remove', 'caches', 'unfinished'])
    assert not list(Path('cache').iterdir())
    assert {path.suffix for path in Path('checkpoints').iterdir()} == {'.pth', '.md'}


def test_files_in_use_are_left(used, capsys):
    (state,) = Path('checkpoints').glob('stopped-*.state')
    with locked(f'{clean.checkpoint_of(state)}.lock'):
        clean.main(['--remove', 'unfinished', 'locks'])
        assert state.exists()
        assert Path(f'{clean.checkpoint_of(state)}.lock').exists()
    out, err = capsys.readouterr()
    assert 'unfinished: 0 files removed, 0.0 MB\nlocks: 0 files removed' in out
    assert f'{state} is left: another process holds' in err


def test_a_lock_that_a_killed_process_left(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path('checkpoints').mkdir()
    Path('checkpoints/x.pth.lock').touch()
    clean.main(['--remove', 'locks'])
    assert capsys.readouterr().out == 'locks: 1 files removed, 0.0 MB\n'
    assert not list(Path('checkpoints').iterdir())


def test_other_kinds_are_refused(fails):
    assert "unknown kind of files 'checkpoints'" in fails(clean.main, '--remove', 'checkpoints')
