"""A run that is killed, stopped or out of disk is resumed, and ends as one that never stopped."""
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import sys
import time
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import SMALL, make_tiny
from mini import MINI, stop_at
from processes import die_at_file, launch, prepare
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.amp import GradScaler

import main
import modified_ignite_engine
from iqa_data.info import read_info, write_info
from iqa_runtime.checkpoint import load_checkpoint, read_tensors, save_checkpoint
from iqa_runtime.errors import UserError
from iqa_runtime.files import locked, replacing
from iqa_training import run as training_run
from iqa_training.naming import checkpoint_file
from iqa_training.state import random_states, set_random_states

WORDS = ['--dataset', 'demo', '--im_dir', 'tiny/images', '--data_info', 'tiny/info.mat', *SMALL, *MINI, '-e',
         '4', '-bs', '5', '--log_bhat', '--test_during_training', '--augmentation', '-cs_h', '32', '-cs_w', '32']
KILLS = 20


def run(folder: str, words: list[str], die_at: int | None = None, of: str = '', most_bytes: int | None = None,
        signalled: tuple[int, int] = (0, 0)) -> None:
    """A process's work: main.py in `folder`; kill itself before file number `die_at` is put in place.

    `of`: the end of the names of the files that are counted.
    `signalled`: an iteration, and the signal that the process sends to itself there.
    """
    prepare(folder)
    sys.stdout = open('stdout', 'a')  # noqa: SIM115
    sys.stderr = open('stderr', 'a')  # noqa: SIM115
    if die_at is not None:
        die_at_file(die_at, of)
    if most_bytes:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, most_bytes))
    log_loss = training_run.Run.log_loss

    def log_and_signal(self, engine):
        log_loss(self, engine)
        if engine.state.iteration == signalled[0]:
            os.kill(os.getpid(), signalled[1])
    training_run.Run.log_loss = log_and_signal
    main.main(words)


def start(folder: Path, *words: str, **options) -> multiprocessing.Process:
    """main.py as a process of its own."""
    return launch(run, str(folder), [*WORDS, *words], **options)


def result(folder: Path) -> dict:
    """All that a finished run left, without times: the checkpoint's bytes, the tables, the curves."""
    (checkpoint,), (summary,), (table,) = (list(folder.glob(pattern)) for pattern in
                                           ('checkpoints/*.pth', 'results/*.json', 'results/*.csv'))
    (log,) = (path for path in (folder / 'runs').iterdir() if path.is_dir())
    events = EventAccumulator(str(log), size_guidance={'scalars': 0}, purge_orphaned_data=False)
    events.Reload()
    curves = {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()['scalars']}
    return {'checkpoint': checkpoint.read_bytes(), 'card': checkpoint.with_suffix('.md').read_text(),
            'summary': json.loads(summary.read_text()), 'table': table.read_text(), 'curves': curves,
            'bhat': (log / 'bhat.csv').read_text()}


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run that was never interrupted: what it left, and how many seconds it took."""
    folder = tmp_path_factory.mktemp('whole')
    make_tiny(folder / 'tiny')
    launch(time.sleep, 0).join()  # the server imports everything before its first process
    started = time.monotonic()
    process = start(folder)
    process.join()
    assert process.exitcode == 0, (folder / 'stderr').read_text()
    return result(folder), time.monotonic() - started


@pytest.fixture
def folder(tmp_path):
    make_tiny(tmp_path / 'tiny')
    return tmp_path


def assert_same(folder: Path, whole: dict) -> None:
    found = result(folder)
    for name, value in whole.items():
        assert found[name] == value, name
    steps = [step for step, _ in found['curves']['train/loss']]
    assert steps == list(range(1, len(steps) + 1))


@pytest.mark.slow
def test_killed_at_random_moments(whole, folder):
    expected, seconds = whole
    rng, kills, ended = random.Random(4), 0, 0
    while kills < KILLS or not ended:
        process = start(folder, '--resume', 'auto')
        process.join(rng.uniform(.05, 1) * seconds if kills < KILLS else None)
        if process.exitcode is None:
            process.kill()
            process.join()
            kills += 1
            continue
        assert process.exitcode == 0, (folder / 'stderr').read_text()
        assert_same(folder, expected)
        ended += 1
        for name in ('checkpoints', 'results', 'runs'):
            shutil.rmtree(folder / name, ignore_errors=True)


@pytest.mark.slow
def test_killed_in_the_middle_of_every_write(whole, folder):
    codes = []
    while not codes or codes[-1] != 0:  # each attempt gets one file further before it dies
        process = start(folder, '--resume', 'auto', die_at=len(codes))
        process.join()
        codes.append(process.exitcode)
        assert set(codes[:-1]) <= {-signal.SIGKILL}
    assert len(codes) > 5
    assert_same(folder, whole[0])


@pytest.mark.parametrize('of', ['.state', pytest.param('bhat.csv', marks=pytest.mark.slow)])
def test_killed_at_the_last_write_of_the_last_epoch(whole, folder, of):
    process = start(folder, die_at=3, of=of)  # the fourth of four epochs
    process.join()
    assert process.exitcode == -signal.SIGKILL
    process = start(folder, '--resume', 'auto')
    process.join()
    assert process.exitcode == 0
    assert_same(folder, whole[0])


@pytest.mark.parametrize(('number', 'status'), [
    (signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.slow)])
def test_asked_to_stop(whole, folder, number, status):
    process = start(folder)
    while 'Epoch 1/' not in ((folder / 'stdout').read_text() if (folder / 'stdout').exists() else ''):
        time.sleep(.01)
    os.kill(process.pid, number)
    process.join()
    out = (folder / 'stdout').read_text()
    assert process.exitcode == status, out
    assert 'the same command with --resume auto continues from there' in out
    process = start(folder, '--resume', 'auto')
    process.join()
    assert process.exitcode == 0
    assert_same(folder, whole[0])


def test_in_the_middle_of_an_epoch(whole, folder):
    process = start(folder, signalled=(7, signal.SIGTERM))  # of 3 iterations an epoch
    process.join()
    assert process.exitcode == 143
    assert 'Stopped after iteration 7' in (folder / 'stdout').read_text()
    process = start(folder, '--resume', 'auto')
    process.join()
    assert process.exitcode == 0
    assert '7 of 12 iterations are done' in (folder / 'stdout').read_text()
    assert_same(folder, whole[0])


@pytest.mark.parametrize('words', [[], ['--val_every', '2', '--augmentation', '-cs_h', '32', '-cs_w', '32']])
def test_a_network_with_dropout_in_the_middle_of_an_epoch(tiny, monkeypatch, words):
    words = [*tiny, *SMALL, '-arch', 'cnniqa', '-bs', '5', '-e', '3', *words]
    main.main([*words, '-modelfile', 'whole.pth'])
    stop_at(monkeypatch, 2, 4, 8)  # of 3 iterations an epoch
    for _ in range(3):
        with pytest.raises(SystemExit):
            main.main([*words, '-modelfile', 'stopped.pth', '--resume', 'auto'])
    main.main([*words, '-modelfile', 'stopped.pth', '--resume', 'auto'])
    whole, stopped = (read_tensors(f'{name}.pth.00000009.state') for name in ('whole', 'stopped'))
    assert all(torch.equal(tensor, stopped['model'][name]) for name, tensor in whole['model'].items())
    for tag, rows in whole['history'].items():
        assert torch.equal(rows[:, :2], stopped['history'][tag][:, :2]), tag


@pytest.mark.parametrize(('words', 'number', 'iterations'), [
    (['-accum', '5', '--optimizer', 'sgd'], signal.SIGTERM, (1, 7)),  # an epoch has 3 iterations
    pytest.param(['-accum', '2'], signal.SIGKILL, (2, 4, 5, 8, 11, 12), marks=pytest.mark.slow),
    pytest.param(['-accum', '3', '-bs', '4'], signal.SIGTERM, range(1, 16), marks=pytest.mark.slow)])  # it has 4
def test_between_the_batches_of_an_optimizer_step(folder, words, number, iterations):
    process = start(folder, *words)
    process.join()
    assert process.exitcode == 0, (folder / 'stderr').read_text()
    expected = result(folder)
    assert len(expected['curves']['train/loss']) == (16 if '-bs' in words else 12)
    for name in ('checkpoints', 'results', 'runs'):
        shutil.rmtree(folder / name)
    for iteration in iterations:
        process = start(folder, *words, '--resume', 'auto', signalled=(iteration, number))
        process.join()
        assert process.exitcode == (-number if number == signal.SIGKILL else 128 + number), iteration
    process = start(folder, *words, '--resume', 'auto')
    process.join()
    assert process.exitcode == 0, (folder / 'stderr').read_text()
    assert_same(folder, expected)


def test_a_full_disk_is_one_line_and_the_run_can_be_resumed(whole, folder):
    process = start(folder, most_bytes=1_000_000)  # the cache and the log fit, a checkpoint does not
    process.join()
    assert process.exitcode == 2
    error = (folder / 'stderr').read_text()
    assert 'error: cannot write checkpoints/' in error
    assert 'Traceback' not in error
    assert not list((folder / 'checkpoints').glob('*.pth'))
    assert not list((folder / 'checkpoints').glob('.*.tmp'))
    process = start(folder, '--resume', 'auto')
    process.join()
    assert process.exitcode == 0
    assert_same(folder, whole[0])


@pytest.fixture
def finished(tiny, capsys):
    words = [*tiny, *SMALL, *MINI, '-e', '3', '--debug']
    main.main([*words, '--keep', '2'])
    capsys.readouterr()
    return words


def test_a_finished_run_is_said(finished, capsys):
    assert main.main([*finished, '--resume', 'auto']) is None
    assert 'is finished: nothing to resume' in capsys.readouterr().out


def test_the_last_states_are_kept(finished):
    states = sorted(Path('checkpoints').glob('*.state'))
    assert [read_tensors(state)['iteration'] for state in states] == [4, 6]


def test_another_runs_state(finished, fails):
    state = sorted(Path('checkpoints').glob('*.state'))[-1]
    error = fails(main.main, *finished, '-lr', '1e-3', '--seed', '3', '--resume', state)
    assert 'the run had other options: --learning_rate 0.001 (was 0.0001), --seed 3 (was 19920517)' in error
    (checkpoint,) = Path('checkpoints').glob('*.pth')
    assert 'not the state of a run' in fails(main.main, *finished, '--resume', checkpoint)
    assert 'gone.state: no such file' in fails(main.main, *finished, '--resume', 'gone.state')


def test_a_split_that_changed(finished, fails):
    (checkpoint,) = Path('checkpoints').glob('*.pth')
    save_checkpoint(checkpoint, {**load_checkpoint(checkpoint), 'finished': False})
    info = read_info('tiny/info.mat')
    write_info('tiny/info.mat', info.names, info.mos, info.std, info.ref_ids, info.index[::-1])
    assert 'the run had another split' in fails(main.main, *finished, '--resume', 'auto')


def test_a_checkpoint_that_is_gone_is_noticed_at_once(finished, fails):
    (checkpoint,) = Path('checkpoints').glob('*.pth')
    checkpoint.unlink()
    error = fails(main.main, *finished, '--resume', 'auto')
    assert f'{checkpoint} is gone, which holds the best weights so far, of epoch' in error
    assert 'put it back, or start again without --resume' in error


def test_more_epochs_are_another_run(finished, tiny, fails, capsys):
    assert main.main([*finished, '-e', '4', '--resume', 'auto'])
    (name,) = (path.stem for path in Path('checkpoints').glob('*-e3-*.pth'))
    assert f'{name}, the run with these options and --epochs 3, is not resumed' in capsys.readouterr().out
    words = [*tiny, *SMALL, *MINI, '--debug', '-modelfile', f'checkpoints/{name}.pth', '--resume', 'auto']
    assert '--epochs 4 (was 3)' in fails(main.main, *words, '-e', '4')
    assert main.main([*words, '-e', '3']) is None


def test_nothing_to_resume_begins(tiny, capsys):
    assert main.main([*tiny, *SMALL, *MINI, '-e', '1', '--debug', '--resume', 'auto'])


def test_the_same_run_twice_at_once(tiny, fails):
    args = main.TRAIN.parse([*tiny, *SMALL])
    with locked(f'{checkpoint_file(args)}.lock'):
        assert 'another process holds checkpoints/resnet18' in fails(main.main, *tiny, *SMALL)


@pytest.mark.usefixtures('one_thread')
def test_a_step_that_is_done_ends_a_row_of_skipped_ones(tiny, monkeypatch):
    monkeypatch.setattr(modified_ignite_engine, 'autocast_dtype', lambda *_: torch.float16)
    monkeypatch.setattr(modified_ignite_engine, 'GradScaler', partial(GradScaler, init_scale=2. ** 40,
                                                                      growth_interval=1))
    main.main([*tiny, *SMALL, *MINI, '-bs', '2', '-e', '4'])
    (state,) = Path('checkpoints').glob('*.state')
    rows = read_tensors(state)['history']['train/skipped'][:, :2].tolist()
    assert len(rows) > training_run.MOST_SKIPPED
    for (before, count), (step, next_count) in pairwise(rows):
        assert next_count == (count + 1 if step == before + 1 else 1)


@pytest.mark.usefixtures('one_thread')
def test_ten_skipped_steps_end_a_run(tiny, fails, capsys, monkeypatch):
    monkeypatch.setattr(modified_ignite_engine, 'autocast_dtype', lambda *_: torch.float16)
    monkeypatch.setattr(modified_ignite_engine, 'GradScaler', partial(GradScaler, init_scale=2. ** 70))
    error = fails(main.main, *tiny, *SMALL, *MINI, '-bs', '4', '-e', '9')
    assert '10 steps in a row were skipped for infinite gradients (iteration 10)' in error


@pytest.mark.usefixtures('one_thread')
def test_a_skipped_step_changes_no_weight(tiny, monkeypatch):
    def weights(epochs: int) -> dict:
        main.main([*tiny, *SMALL, *MINI, '-bs', '8', '-e', str(epochs)])
        return read_tensors(sorted(Path('checkpoints').glob(f'*-e{epochs}-*.state'))[-1])

    monkeypatch.setattr(modified_ignite_engine, 'autocast_dtype', lambda *_: torch.float16)
    monkeypatch.setattr(modified_ignite_engine, 'GradScaler', partial(GradScaler, init_scale=2. ** 70))
    one, two = weights(1), weights(2)
    assert one['history']['train/skipped'][:, 1].tolist() == [1, 2]
    assert two['history']['train/skipped'][:, 1].tolist() == [1, 2, 3, 4]
    assert all(torch.equal(weight, two['model'][name]) for name, weight in one['model'].items() if 'running' not in name
               and 'num_batches' not in name)


def test_apex_that_is_not_there(tiny, fails):
    assert 'it was removed from apex in 2025' in fails(main.main, *tiny, *SMALL, '--amp_backend', 'apex')


def test_a_read_only_folder(tmp_path):
    path = tmp_path / 'file'
    path.write_text('before')

    def write():
        with replacing(path) as temporary:
            pd.DataFrame({'a': np.ones(3)}).to_csv(temporary)
            os.unlink(temporary)  # stands for a folder that vanished
    with pytest.raises(UserError, match='cannot write'):
        write()
    assert path.read_text() == 'before'


def test_random_states_come_back():
    torch.manual_seed(1)
    states = random_states()
    first = random.random(), np.random.rand(), torch.rand(1)
    set_random_states(states)
    assert (random.random(), np.random.rand(), torch.rand(1)) == first
