"""Run commands in parallel, a few at a time, with the job's number before each output line; Ctrl-C ends them all."""
import json
import os
import queue
import shlex
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO

from iqa_runtime.files import locked, write_text
from iqa_runtime.process import UNCAUGHT

INTERRUPTED = 130  # exit status after Ctrl-C


@dataclass(frozen=True)
class Job:
    """Commands that run one after another; if a command fails, the following ones are not run.

    Attributes:
        commands: lists of words; the first word, `python`, stands for the running interpreter.
        log: file to which the output is appended; the job's duration in seconds is written beside it, to NAME.json.
        lock: lock file to wait for, since a process whose parent was killed may still hold it for a moment.
    """

    commands: Sequence[Sequence[str]]
    log: Path | None = None
    lock: Path | None = None

    def alone(self) -> str | None:
        """Run the job in this process's environment; return a description of its failure, or None."""
        return next(iter(Runner([{}]).run([self])), None)


class Runner:
    """Run jobs in slots, one job per slot at a time.

    Args:
        slots: for each slot, environment variables, name -> value, that its commands get in addition.
    """

    def __init__(self, slots: Sequence[Mapping[str, str]]):
        self.count, self.free = len(slots), queue.SimpleQueue()
        for slot in slots:
            self.free.put(slot)
        self.children, self.lock, self.stopping = set(), threading.Lock(), False

    def run(self, jobs: Sequence[Job]) -> list[str]:
        """Run all jobs; return a line for each command that failed.

        After KeyboardInterrupt (Ctrl-C) or SystemExit (from a signal handler), the commands are sent SIGTERM, and the
        exception is re-raised when they have ended; a second one kills them.
        """
        with ThreadPoolExecutor(self.count) as pool:
            futures = [pool.submit(self._job, job, f'[{i}/{len(jobs)}]') for i, job in enumerate(jobs, 1)]
            try:
                failures = [future.result() for future in futures]
            except (KeyboardInterrupt, SystemExit):
                self._stop(signal.SIGTERM)
                try:
                    wait(futures)
                except (KeyboardInterrupt, SystemExit):
                    self._stop(signal.SIGKILL)
                raise
        return [failure for failure in failures if failure]

    def _stop(self, number: int) -> None:
        with self.lock:
            self.stopping = True
            for child in self.children:
                child.send_signal(number)

    def _job(self, job: Job, mark: str) -> str | None:
        slot, began = self.free.get(), time.perf_counter()
        try:
            if job.lock and not self.stopping:
                with locked(job.lock, wait=True):
                    pass
            with log_of(job) as log:
                for words in job.commands:
                    if failure := self._command(words, slot, mark, log):
                        return failure + (f' (log: {job.log})' if job.log else '')
        finally:
            self.free.put(slot)
        if job.log and not self.stopping:
            write_text(job.log.with_suffix('.json'), json.dumps({'seconds': time.perf_counter() - began}))
        return None

    def _command(self, words: Sequence[str], slot: Mapping[str, str], mark: str, log: TextIO | None) -> str | None:
        """Run a command; return a description of its failure, with the last line of its output, or None."""
        began, last = time.perf_counter(), 'no output'
        with self.lock:
            if self.stopping:
                return None
            print(mark, shlex.join(words), flush=True)
            # a session of its own: Ctrl-C in the terminal reaches only this process, which forwards it once
            child = subprocess.Popen([sys.executable, *words[1:]], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                     stderr=subprocess.STDOUT, text=True, errors='replace', start_new_session=True,
                                     env={**os.environ, 'PYTHONUNBUFFERED': '1', **slot})
            self.children.add(child)
        with child:
            for line in filter(str.strip, child.stdout):
                last = line.strip()
                print(mark, line.rstrip(), flush=True)
                if log:
                    log.write(line)
        with self.lock:
            self.children.discard(child)
        seconds = time.perf_counter() - began
        if child.returncode == 0:
            print(f'{mark} done in {seconds:.0f} s', flush=True)
            return None
        how = 'stopped' if self.stopping else 'FAILED'
        print(f'{mark} {how} with exit status {child.returncode} after {seconds:.0f} s', flush=True)
        return f'{shlex.join(words)}: exit status {child.returncode}: {last}'


def log_of(job: Job) -> AbstractContextManager[TextIO | None]:
    """Open the log of a job for appending; None if the job has no log."""
    if not job.log:
        return nullcontext()
    job.log.parent.mkdir(parents=True, exist_ok=True)
    return open(job.log, 'a', encoding='utf-8', buffering=1)


def slots(count: int, gpus: Sequence[str]) -> list[dict[str, str]]:
    """Return the environments of `count` slots: the GPUs in turn, or on CPUs an equal share of the cores."""
    if count == 1:
        return [{}]
    if gpus:
        return [{'CUDA_VISIBLE_DEVICES': gpus[i % len(gpus)]} for i in range(count)]
    threads = os.environ.get('OMP_NUM_THREADS') or str(max(1, (os.cpu_count() or 1) // count))
    return [{'OMP_NUM_THREADS': threads} for _ in range(count)]


def gpus() -> list[str]:
    """Return the numbers or identifiers of the GPUs that are visible to this process."""
    import torch
    visible = os.environ.get('CUDA_VISIBLE_DEVICES')
    if not torch.cuda.is_available():
        return []
    return visible.split(',') if visible else [str(i) for i in range(torch.cuda.device_count())]


@contextmanager
def terminable() -> Iterator[None]:
    """Treat SIGTERM, which job schedulers send, as Ctrl-C within the context, unless it is ignored."""
    def interrupt(number: int, _) -> None:
        raise KeyboardInterrupt

    before = signal.getsignal(signal.SIGTERM)
    if before in UNCAUGHT:
        yield
        return
    signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
