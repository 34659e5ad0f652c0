"""Outputs of the scripts: nothing that is read is written over, two names never share a file, errors are one line."""
import json
import os
import resource
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pandas as pd
import pytest
import torch
from conftest import ROOT, SMALL
from mini import MINI
from processes import launch, prepare
from scored import save_photos

import main
import test_dataset
import test_demo
from data import check, make_info
from iqa_runtime.checkpoint import save_checkpoint
from iqa_runtime.errors import UserError
from iqa_scoring import ensemble, export
from iqa_training import train_ranker
from iqa_training.log import Log
from iqa_training.options import TRAIN
from iqa_training.state import state_file, states_of
from results_in_the_paper import bhat, compare, export_csv, tables

# Inputs stay as they are


@pytest.fixture
def kept(tmp_path):
    """Call it with paths: after the test, their bytes are as they were then."""
    before = {}
    yield lambda *paths: before.update({Path(path).absolute(): Path(path).read_bytes() for path in paths})
    assert before
    assert {path: path.read_bytes() for path in before} == before


@pytest.mark.parametrize('words', [
    ['--csv', 'm.pth'], ['--json', 'm.pth'], ['--report', 'link.pth'], ['--csv', 'images/00.png'],
    ['--json', 'images/11.png'], ['--report', 'images/03.png'], ['--csv', 's', '--json', './s'],
    ['--csv', 's', '--report', 's'], ['--csv', 's', '--map', 's'], ['--map', 'm.pth']])
def test_scores(scored, fails, kept, words):
    shutil.copy(scored[1], 'm.pth')
    Path('link.pth').symlink_to('m.pth')
    kept('m.pth', *Path('images').iterdir())
    error = fails(test_demo.main, '--img', 'images', '-modelfile', 'm.pth', *scored[2:], *words)
    assert words[0] in error
    assert any(wrong in error for wrong in ('would overwrite', 'needs a folder', 'is not a folder'))
    assert {path.name for path in Path().iterdir()} == {'images', 'link.pth', 'm.pth'}


def test_images_on_stdin(scored, fails, kept, monkeypatch):
    kept('images/05.png')
    read, write = os.pipe()
    os.write(write, b'images/04.png\nimages/05.png\n')
    os.close(write)
    with os.fdopen(read) as stdin:
        monkeypatch.setattr(sys, 'stdin', stdin)
        assert 'would overwrite --img images/05.png' in fails(test_demo.main, '--img', '-', *scored, '--csv',
                                                              'images/05.png')
    monkeypatch.setattr(sys, 'stdin', None)  # it is closed
    assert 'no path on stdin' in fails(test_demo.main, '--img', '-', *scored)


def test_a_calibration(scored, fails, kept):
    paths = save_photos(Path('rated'), 2)
    pd.DataFrame({'image': paths, 'mos': [1, 2]}).to_csv('ratings.csv', index=False)
    kept('ratings.csv', scored[1], paths[1])
    words = ['--calibrate', 'ratings.csv', *scored, '--out']
    assert 'would overwrite --calibrate ratings.csv' in fails(test_demo.main, *words, 'ratings.csv')
    assert 'would overwrite --calibrate rated/01.png' in fails(test_demo.main, *words, paths[1])
    assert 'would overwrite --trained_model_file' in fails(test_demo.main, *words, scored[1])


def test_training(tiny, fails, kept):
    shutil.copy('tiny/info.mat', 'split.csv')
    kept('tiny/info.mat', 'tiny/images/03.png', 'split.csv')
    words = [*tiny, *SMALL, '-e', '1']
    model = ['--trained_model_file']
    assert 'would overwrite --data_info' in fails(main.main, *words, *model, 'tiny/info.mat')
    assert 'would overwrite --im_dir tiny/images/03.png' in fails(main.main, *words, *model, 'tiny/images/03.png')
    assert 'would overwrite --split_file' in fails(main.main, *words, '--split_file', 'split.csv', *model, 'split.csv')
    Path('x.csv').symlink_to('x.pth')
    assert '--result_dir x.csv would overwrite --trained_model_file x.pth' in fails(main.main, *words, '--result_dir',
                                                                                     '.', *model, 'x.pth')
    shutil.copy('split.csv', 'y.md')
    assert 'would overwrite --split_file' in fails(main.main, *words, '--split_file', 'y.md', *model, 'y.pth')
    assert 'would overwrite --weights' in fails(main.main, *words, '--weights', 'split.csv', *model, 'split.csv')
    assert not Path('runs').exists()
    assert not Path('x.pth').exists()


def test_a_test(tiny, scored_folder, fails, kept):
    shutil.copy(scored_folder / 'checkpoint.pth', 'm.pth')
    kept('tiny/info.mat', 'tiny/images/07.png', 'm.pth')
    words = [*tiny, '-modelfile', 'm.pth', '--part', 'all', '--device', 'cpu', '--no-pbar', '--report']
    for path, option in (('tiny/info.mat', '--data_info'), ('tiny/images/07.png', '--im_dir'),
                         ('m.pth', '--trained_model_file')):
        assert f'--report {path} would overwrite {option}' in fails(test_dataset.main, *words, path)
    results = 'results/m-on-demo-all.csv'
    assert f'would overwrite --result_dir {results}' in fails(test_dataset.main, *words, results)
    assert not Path('results').exists()


def test_other_scripts(tiny, scored, fails, kept, monkeypatch):
    Path('a.csv').write_text('name,mos,std,pq\na.png,1,1,1\nb.png,2,1,2\nc.png,3,1,2\n')
    Path('figureA1.pdf').write_text('bhat = 1\n')
    kept('a.csv', 'figureA1.pdf', 'tiny/images/02.png', 'tiny/info.mat', scored[1])
    assert '--out a.csv would overwrite files a.csv' in fails(compare.main, 'a.csv', '--out', 'a.csv')
    assert 'would overwrite log figureA1.pdf' in fails(bhat.main, 'figureA1.pdf', '--out_dir', '.')
    assert 'would overwrite TABLE a.csv' in fails(ensemble.main, 'a.csv', 'a.csv', '--out', 'a.csv')
    assert '--onnx' in fails(export.main, *scored[:2], '--onnx', scored[1])
    assert 'would overwrite' in fails(export.main, *scored[:2], '--onnx', 'x', '--torch_export', 'x')
    Path('r.csv').symlink_to('r.pth')
    assert '--result_dir r.csv would overwrite --ranker r.pth' in fails(train_ranker.main, '--ranker', 'r.pth',
                                                                         '--result_dir', '.', '--rows', '10', '-e', '1')
    words = ['demo', '--im_dir', 'tiny/images', '--data_info', 'tiny/info.mat', '--json']
    assert 'would overwrite --im_dir' in fails(check.main, *words, 'tiny/images/02.png')
    assert 'would overwrite DATASET' in fails(check.main, *words, 'tiny/info.mat')
    Path('meta_info_x.csv').write_text('image,mos\na.png,1\nb.png,2\n')
    kept('meta_info_x.csv')
    assert '--pyiqa' in fails(make_info.main, 'csv', '--source', 'meta_info_x.csv', '--out', 'x.csv', '--pyiqa')


def test_two_runs_are_not_exported_to_the_same_files(tmp_path, fails, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(export_csv, 'read_scalars', lambda _: {'train/loss': [(0., 1, .5)]})
    for folder, name in (('a', 'run'), ('b', 'run')):
        Path(folder).mkdir()
        Path(folder, 'options.json').write_text(json.dumps({'run_name': name, 'dataset': 'demo'}))
    error = fails(export_csv.main, 'a', 'b', '--csv_dir', 'csv')
    assert 'b csv/run-train_loss.csv would overwrite a csv/run-train_loss.csv' in error
    assert not Path('csv').exists()


def test_tables_of_the_paper_are_no_results(tmp_path, fails, kept, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path('table1.json').write_text(json.dumps({'metrics': {}, 'options': {}, 'dataset': 'demo', 'part': 'test'}))
    Path('table1.csv').write_text('name,mos,std,pq\n')
    kept('table1.json', 'table1.csv')
    error = fails(tables.main, 'table1', '--result_dir', '.', '--out_dir', '.')
    assert '--out_dir table1.csv would overwrite --result_dir table1.csv' in error


# Names

def test_the_files_of_models_whose_names_begin_alike(tmp_path):
    names = ['m.pth', 'm', 'm.v2.pth', 'm.pth.00000001', 'lr=0.0001-bs=8', 'lr=0']
    for name in names:
        state_file(tmp_path / name, 12).touch()
    for name in names:
        assert states_of(tmp_path / name) == [state_file(tmp_path / name, 12)]
    assert len(list(tmp_path.iterdir())) == len(names)


def test_models_trained_under_names_with_dots(tiny, capsys):
    for name in ('m.pth', 'm.v2.pth', 'lr=0.0001-bs=8', 'lr=0.0002-bs=8'):
        main.main([*tiny, *SMALL, *MINI, '-e', '1', '--trained_model_file', name, '--result_dir', 'trained'])
        test_dataset.main(['--im_dir', 'tiny/images', '--device', 'cpu', '--no-pbar', '--trained_model_file', name])
    expected = {f'{name}.{kind}' for name in ('m', 'm.v2', 'lr=0.0001-bs=8', 'lr=0.0002-bs=8')
                for kind in ('csv', 'json')}
    assert {path.name for path in Path('results').iterdir()} == expected
    assert {path.name for path in Path('trained').iterdir()} == expected
    assert {path.name for path in Path('runs').iterdir()} == {name.removesuffix('.csv') for name in expected
                                                               if name.endswith('.csv')}
    assert not list(Path().glob('*.lock'))
    assert len(list(Path().glob('*.state'))) == 4


def test_what_a_killed_run_left_is_removed(tiny):
    words = [*tiny, *SMALL, *MINI, '-e', '1', '--trained_model_file', 'm.pth']
    gone, kept = ['m.pth', 'm.pth.00000099.state'], ['m.v2.pth', 'm.v2.pth.00000099.state', 'notes.txt']
    for name in gone + kept:
        Path(f'.{name}.0123456789abcdef.tmp').touch()
    main.main(words)
    assert {path.name for path in Path().glob('.*.tmp')} == {f'.{name}.0123456789abcdef.tmp' for name in kept}


def test_two_runs_do_not_share_a_log(tmp_path):
    with Log(tmp_path / 'log').open({}, {'train': ['a']}), \
            pytest.raises(UserError, match='another process holds .*log/.lock'), \
            Log(tmp_path / 'log').open({}, {'train': ['a']}):
        pass


# Streams and disks

COMMAND = '''
import os, sys
from iqa_runtime.errors import command
from iqa_runtime.files import write_text
@command
def main(argv):
    write_text('new/file', 'kept')
    assert min(os.open('new/other', os.O_CREAT | os.O_WRONLY), 3) == 3
    print(*sys.argv[1:])
main()
'''


@pytest.mark.parametrize('script', ['main.py', '-m iqa_runtime.commands'])
def test_help_on_a_full_disk(script):
    done = subprocess.run(f'exec {sys.executable} {script} --help >/dev/full', shell=True, cwd=ROOT, timeout=100,
                          capture_output=True, text=True)
    name = 'main.py' if script == 'main.py' else 'commands.py'
    assert (done.returncode, done.stderr) == (2, f'{name}: error: cannot write to stdout: No space left on device\n')


def script(tmp_path: Path, *words, shell: str = '"$@"', **variables) -> subprocess.CompletedProcess:
    """Run COMMAND in a shell, which may redirect its streams."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), **variables}
    return subprocess.run(['sh', '-c', shell, 'sh', sys.executable, '-c', COMMAND, *words], env=environment,
                          cwd=tmp_path, capture_output=True, timeout=100)


@pytest.mark.parametrize(('shell', 'status', 'message', 'written'), [
    ('"$@" >/dev/full', 2, b'-c: error: cannot write to stdout: No space left on device\n', True),
    ('"$@" >&-', 2, b'-c: error: stdout is closed, and the output would be lost; >/dev/null discards it\n', False),
    ('ulimit -f 0; trap "" XFSZ; "$@" >out', 2, b'-c: error: cannot write new/file: File too large\n', False),
    ('"$@" <&- 2>&-', 0, b'', True), ('"$@" 2>/dev/full', 0, b'', True), ('"$@"', 0, b'', True)])
def test_streams(tmp_path, shell, status, message, written):
    done = script(tmp_path, 'x', shell=shell)
    assert (done.returncode, done.stderr) == (status, message)
    assert (tmp_path / 'new/file').exists() == written
    if written:
        assert (tmp_path / 'new/file').read_text() == 'kept'


@pytest.mark.parametrize('variables', [{'PYTHONIOENCODING': 'ascii'}, {'LC_ALL': 'C'}, {'LC_ALL': 'POSIX',
                                       'PYTHONUTF8': '0', 'PYTHONCOERCECLOCALE': '0'}])
def test_names_on_a_terminal_of_another_encoding(tmp_path, variables):
    done = script(tmp_path, b'caf\xe9', 'é', **variables)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(b'caf')
    assert done.stderr == b''


def test_files_whose_names_are_not_utf_8(scored, capsys):
    name = os.fsdecode(b'\xff')
    shutil.copy(scored[1], f'{name}.pth')
    images = ['images/00.png', 'images/01.png']
    words = ['--img', *images, '-modelfile', f'{name}.pth', *scored[2:], '--map', f'{name}-maps']
    outputs = [word for kind in ('csv', 'json', 'report') for word in (f'--{kind}', f'{name}.{kind}')]
    assert test_demo.main([*words, *outputs]) == 2
    assert r'2 images scored: \xff.csv, \xff.json, \xff.report, \xff-maps' in capsys.readouterr().out
    assert test_demo.main([*words, *outputs[:2], '--resume']) == 0
    assert len(Path(f'{name}.csv').read_text().splitlines()) == 3


def test_a_log_folder_whose_name_is_not_utf_8(capsys):
    with pytest.raises(SystemExit):
        TRAIN.parse(['--log_dir', os.fsdecode(b'\xff')])
    assert '--log_dir' in capsys.readouterr().err


def score_with_streams(folder: str, words: list[str]) -> None:
    """test_demo.py in a folder, its stdout and stderr in the files `out` and `err`."""
    prepare(folder)
    for number, name in ((1, 'out'), (2, 'err')):
        os.dup2(os.open(name, os.O_WRONLY | os.O_CREAT), number)
    sys.stdout, sys.stderr = open(1, 'w', closefd=False), open(2, 'w', closefd=False)  # noqa: SIM115
    test_demo.main(words)


def test_a_table_on_stdout_is_alone_there(scored):
    words = ['--img', 'images/00.png', 'images/01.png', *scored, '--csv', '/dev/stdout']
    done = launch(score_with_streams, os.getcwd(), words)
    done.join()
    assert Path('err').read_text() == '2 images scored: /dev/stdout\n'
    rows = Path('out').read_text().splitlines()
    assert [row.split(',')[0] for row in rows] == ['name', 'images/00.png', 'images/01.png']


@pytest.mark.parametrize('word', ['--resume', '--sort'])
def test_a_device_cannot_be_read_again(scored, fails, word):
    assert '/dev/null cannot be read again' in fails(test_demo.main, '--img', 'images', *scored, '--csv', '/dev/null',
                                                     word)


@contextmanager
def small_files(size):
    """Let no file grow beyond a size in bytes, as on a full disk; not longer than needed: pytest may print to one."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_a_full_disk_of_a_log(tmp_path, capfd):
    def write():
        log = Log(tmp_path / 'log')
        with small_files(3000), log.open({}, {'train': ['a']}):
            for step in range(1000):
                log.scalar('train/loss', .5, step)
            log.flush()
    with pytest.raises(UserError, match='cannot write .*log: File too large'):
        write()
    assert capfd.readouterr().err == ''


def test_a_full_disk_of_a_checkpoint(tmp_path, capfd):
    content = {'x': torch.zeros(2000), 'y': [torch.zeros(100) for _ in range(20)]}
    save_checkpoint(tmp_path / 'm.pth', content)
    size = (tmp_path / 'm.pth').stat().st_size
    for most in range(1, size, size // 40):
        with small_files(most), pytest.raises(UserError, match='cannot write .*n.pth: File too large'):
            save_checkpoint(tmp_path / 'n.pth', content)
    assert [path.name for path in tmp_path.iterdir()] == ['m.pth']
    assert capfd.readouterr().err == ''
