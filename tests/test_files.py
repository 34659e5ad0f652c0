"""Files: written whole or not at all whatever happens, through links and to devices; locks; what may be written."""
import ast
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import ROOT
from processes import launch
from torch.utils.data import DataLoader

from iqa_runtime.errors import UserError
from iqa_runtime.files import check_outputs, locked, remove_left_over, replacing, write_text
from iqa_runtime.names import without_suffix

WRITE = '''
import sys
from iqa_runtime.files import replacing
with replacing(sys.argv[1]) as temporary:
    temporary.write_text('of the child')
    print('writing', flush=True)
    sys.stdin.readline()
'''


def child(code: str, *words, **options) -> subprocess.Popen:
    """A process that runs `code`, once it has printed a line."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    process = subprocess.Popen([sys.executable, '-c', code, *words], env=environment, stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True, **options)
    assert process.stdout.readline()
    return process


def left_over(folder: Path) -> list[Path]:
    return list(folder.glob('.*.tmp'))


# Temporary files

def test_a_killed_process_leaves_the_file_as_it_was(tmp_path):
    path = tmp_path / 'm.pth'
    write_text(path, 'before')
    process = child(WRITE, path)
    write_text(path, 'of this process')
    process.kill()
    process.communicate()
    assert path.read_text() == 'of this process'
    assert len(left_over(tmp_path)) == 1
    process = child(WRITE, path)
    write_text(path, 'meanwhile')
    process.communicate('go on\n')
    assert path.read_text() == 'of the child'


NAMES = ['m.pth', 'm', 'm.v2.pth', 'x' * 200, '日本' * 33, os.fsdecode(b'\xff.csv'), 'new\nline']


@pytest.mark.parametrize('name', [*NAMES, 'x' * 255, '日本' * 42])
def test_a_file_of_any_name_is_replaced(tmp_path, name):
    with replacing(tmp_path / name) as temporary:
        temporary.write_text('of another process')
        write_text(tmp_path / name, 'before')
        assert len(left_over(tmp_path)) == 1
    assert (tmp_path / name).read_text() == 'of another process'
    assert not left_over(tmp_path)


@pytest.mark.parametrize('name', NAMES)
def test_what_was_left_of_a_file_is_removed_and_nothing_else(tmp_path, name):
    unfinished = {other: replacing(tmp_path / other) for other in NAMES}
    left = {other: context.__enter__() for other, context in unfinished.items()}
    (tmp_path / '.m.pth.mine.tmp').touch()
    (tmp_path / name).write_text('before')
    before = set(tmp_path.iterdir())
    remove_left_over(tmp_path, lambda other: other == name)
    assert before - set(tmp_path.iterdir()) == {left[name]}


def test_an_error_leaves_the_file_as_it_was(tmp_path):
    write_text(tmp_path / 'file', 'before')

    def write(error: Exception) -> None:
        with replacing(tmp_path / 'file') as temporary:
            temporary.write_text('after')
            raise error
    with pytest.raises(UserError, match='cannot write .*file: No space left on device'):
        write(OSError(28, 'No space left on device'))
    with pytest.raises(KeyError):
        write(KeyError())
    assert (tmp_path / 'file').read_text() == 'before'
    assert [path.name for path in tmp_path.iterdir()] == ['file']


def test_the_mode_of_a_file_stays(tmp_path):
    write_text(tmp_path / 'file', '')
    usual = stat.S_IMODE((tmp_path / 'file').stat().st_mode)
    (tmp_path / 'file').chmod(0o640)
    write_text(tmp_path / 'file', 'private')
    assert stat.S_IMODE((tmp_path / 'file').stat().st_mode) == 0o640
    mask = os.umask(0)
    os.umask(mask)
    assert usual == 0o666 & ~mask


# Links and devices

def test_a_link_is_written_through(tmp_path):
    (tmp_path / 'there').mkdir()
    for name in ('real', 'new'):
        (tmp_path / f'to-{name}').symlink_to(Path('there', name))
    write_text(tmp_path / 'there/real', 'before')
    for name in ('real', 'new'):
        write_text(tmp_path / f'to-{name}', f'through {name}')
        assert (tmp_path / f'to-{name}').is_symlink()
        assert (tmp_path / 'there' / name).read_text() == f'through {name}'
    (tmp_path / 'loop').symlink_to('loop')
    with pytest.raises(UserError, match='cannot write .*loop: Too many levels of symbolic links'):
        write_text(tmp_path / 'loop', '')
    assert (tmp_path / 'loop').is_symlink()


def test_a_device_is_written_to():
    write_text('/dev/null', 'text')
    assert stat.S_ISCHR(os.stat('/dev/null').st_mode)
    with pytest.raises(UserError, match='cannot write /dev/full: No space left on device'):
        write_text('/dev/full', 'text')
    with pytest.raises(UserError, match='cannot write /dev: Is a directory'):
        write_text('/dev', 'text')


@pytest.mark.parametrize('file', [True, False])
def test_stdout_is_continued(tmp_path, file):
    code = ("from iqa_runtime.files import write_text\nprint('before')\nwrite_text('/dev/stdout', 'text\\n')\n"
            "print('after')")
    environment = {**os.environ, 'PYTHONPATH': str(ROOT)}
    with open(tmp_path / 'out', 'w') as out:
        done = subprocess.run([sys.executable, '-c', code], env=environment, check=True,
                              stdout=out if file else subprocess.PIPE, timeout=100)
    printed = (tmp_path / 'out').read_bytes() if file else done.stdout
    assert printed == b'before\ntext\nafter\n'


# What may be written

@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    """A working directory with a file under four names, another file, and a folder."""
    monkeypatch.chdir(tmp_path)
    Path('folder').mkdir()
    Path('m.pth').write_text('m')
    Path('other').write_text('o')
    Path('link').symlink_to('m.pth')
    Path('folder/hard').hardlink_to('m.pth')
    Path('folder/back').symlink_to('..')
    return tmp_path


@pytest.mark.parametrize('name', ['m.pth', './m.pth', 'folder/../m.pth', 'link', 'folder/hard', 'folder/back/m.pth'])
def test_an_output_is_no_input_under_any_name(here, name):
    for out, read in ((name, 'm.pth'), ('m.pth', name), (here / name, 'm.pth')):
        with pytest.raises(UserError, match=r'^--csv .* would overwrite --model .*: name another file$'):
            check_outputs({'--json': 'new', '--csv': out}, {'--img': ['gone', 'other'], '--model': read})
    check_outputs({'--csv': 'other', '--json': 'm.pth2'}, {'--model': name, '--ratings': None})


@pytest.mark.parametrize(('first', 'second'), [('m.pth', 'folder/hard'), ('new', 'folder/back/new'), ('new', './new'),
                                               ('a/new', 'a/b/../new'), ('link', 'm.pth')])
def test_an_output_is_no_other_output(here, first, second):
    with pytest.raises(UserError, match='--json .* would overwrite --csv '):
        check_outputs({'--csv': first, '--json': second})
    with pytest.raises(UserError, match='--out_dir .* would overwrite --out_dir '):
        check_outputs({'--out_dir': [first, second]})


def test_an_output_has_a_place(here):
    with pytest.raises(UserError, match='--csv folder is a folder; expected a file'):
        check_outputs({'--csv': 'folder'})
    with pytest.raises(UserError, match='--map new/x.png needs a folder where --csv new is a file'):
        check_outputs({'--csv': 'new', '--map': 'new/x.png'})
    with pytest.raises(UserError, match='--csv other/x/y cannot be written: .*other is not a folder'):
        check_outputs({'--csv': 'other/x/y'})
    check_outputs({'--csv': '/dev/null', '--json': '/dev/null', '--report': 'deep/down/below'})
    assert not Path('deep').exists()


def test_names_are_not_cut_at_a_dot():
    assert without_suffix('lr=0.0001-bs=8', ('.csv', '.mat')) == 'lr=0.0001-bs=8'
    assert without_suffix('my.v2.CSV', ('.csv', '.mat')) == 'my.v2'
    assert without_suffix('.csv', ('.csv',)) == '.csv'


# Locks

def test_a_lock_is_exclusive(tmp_path):
    def twice():
        with locked(tmp_path / 'new/lock'), locked(tmp_path / 'new/lock'):
            pass
    with pytest.raises(UserError, match='another process holds .*lock: it does the same work'):
        twice()
    with locked(tmp_path / 'new/lock'):
        pass


def hold(lock: Path, pids: Path) -> None:
    """Hold a lock while the workers of a loader run, and write their process ids."""
    with locked(lock):
        batches = iter(DataLoader(range(100), num_workers=2, multiprocessing_context='fork'))
        next(batches)
        write_text(pids, ' '.join(str(worker.pid) for worker in batches._workers))
        time.sleep(100)


@pytest.mark.skipif(sys.platform != 'linux', reason='where workers are forked')
def test_workers_do_not_keep_the_lock_of_a_killed_process(tmp_path):
    process, pids = launch(hold, tmp_path / 'lock', tmp_path / 'pids'), tmp_path / 'pids'
    while not pids.exists() and process.is_alive():
        time.sleep(.01)
    workers = [int(word) for word in pids.read_text().split()]
    with pytest.raises(UserError, match='another process holds'), locked(tmp_path / 'lock'):
        pass
    for worker in workers:
        os.kill(worker, 19)  # SIGSTOP: they cannot notice that their parent has gone
    try:
        process.kill()
        process.join()
        with locked(tmp_path / 'lock'):
            assert all(Path(f'/proc/{worker}').exists() for worker in workers)
    finally:
        for worker in workers:
            os.kill(worker, 9)


def test_everything_can_be_imported_where_unix_is_not():
    unix = {'fcntl', 'grp', 'posix', 'pwd', 'resource', 'termios'}
    others = ('tests', 'benchmarks', '.venv')
    files = [file for file in ROOT.rglob('*.py') if file.relative_to(ROOT).parts[0] not in others]
    for file in files:
        for node in ast.parse(file.read_text(encoding='utf-8')).body:  # what a function imports, it may do without
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ''] if isinstance(node, ast.ImportFrom) else []
            assert not unix & {name.partition('.')[0] for name in names}, file
