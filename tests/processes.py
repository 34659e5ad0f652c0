"""Run functions in processes of their own, forked from one server that has imported everything, which takes seconds."""
import multiprocessing
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from multiprocessing import forkserver
from pathlib import Path
from unittest.mock import patch

from conftest import ROOT

PRELOADED = ['main', 'test_dataset', 'test_demo', 'iqa_studies.run', 'conftest', 'mini']
context = multiprocessing.get_context('forkserver')
context.set_forkserver_preload(PRELOADED)


def launch(target: Callable, *args, **options) -> multiprocessing.Process:
    """Start a process that calls target(*args, **options)."""
    with patch.dict(os.environ, PYTHONPATH=os.pathsep.join([str(ROOT), str(ROOT / 'tests')]), OMP_NUM_THREADS='1'):
        forkserver.ensure_running()
    started = context.Process(target=target, args=args, kwargs=options)
    started.start()
    return started


def prepare(folder: str | Path) -> None:
    """Let this process work in a folder with one thread, with the signals of a command in the foreground."""
    import torch
    os.chdir(folder)
    torch.set_num_threads(1)  # the sums of a run that is compared must be in the same order
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def die_at_file(number: int, of: str = '') -> None:
    """Let this process kill itself before file `number` is put in place; `of`: the end of the names that count."""
    replace, count = os.replace, iter(range(10 ** 6))

    def replace_or_die(source, target):
        if str(target).endswith(of) and next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        replace(source, target)
    os.replace = replace_or_die


def _of_two(rank: int, port: int, folder: str, function: Callable, args: tuple) -> None:
    """The work of one of two processes: the environment that torchrun gives it, and its output in a file."""
    prepare(folder)
    os.environ |= {'RANK': str(rank), 'LOCAL_RANK': str(rank), 'WORLD_SIZE': '2', 'LOCAL_WORLD_SIZE': '2',
                   'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': str(port), 'TORCHELASTIC_RUN_ID': 'none',
                   'CUDA_VISIBLE_DEVICES': ''}
    sys.stdout = sys.stderr = open(f'.{rank}.out', 'w', buffering=1)  # noqa: SIM115 (as long as the process)
    function(*args)


def in_two(function: Callable, *args) -> tuple[list[int], str]:
    """Call function(*args) in two processes as torchrun starts them; return their exit statuses and their output."""
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    started = [launch(_of_two, rank, port, os.getcwd(), function, args) for rank in range(2)]
    until = time.monotonic() + 300
    while any(one.exitcode is None for one in started) and time.monotonic() < until:
        if any(one.exitcode for one in started):  # as torchrun does, end the other if one fails
            until = min(until, time.monotonic() + 10)
        time.sleep(.01)
    for one in started:
        one.kill()
        one.join()
    files = [Path(f'.{rank}.out') for rank in range(2)]
    out = ''.join(file.read_text() for file in files if file.exists())
    for file in files:
        file.unlink(missing_ok=True)
    return [one.exitcode for one in started], out
