"""Run the commands of a job in this process: each Python script as a fresh main module, with packages loaded once."""
import json
import runpy
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from contextlib import ExitStack, redirect_stderr, redirect_stdout
from typing import TextIO

from iqa_runtime.errors import first_line
from iqa_runtime.files import locked, write_text
from iqa_studies.jobs import Job, log_of

SIGNALLED = 128  # exit statuses above it are of a run that was asked to stop


class Marked:
    """A stream that passes text on to another one, a mark before each line, and to a log; it keeps the last line.

    Args:
        stream: where the text goes.
        mark: what comes before each line.
        log: where the text goes too, without the mark; None: nowhere.
    """

    def __init__(self, stream: TextIO, mark: str, log: TextIO | None):
        self.stream, self.mark, self.log = stream, mark, log
        self.line, self.last = '', 'no output'

    def write(self, text: str) -> int:
        """Write the lines that the text completes."""
        *lines, self.line = (self.line + text).split('\n')
        for line in filter(str.strip, lines):
            self.last = line.strip()
            print(self.mark, line.rstrip(), file=self.stream, flush=True)
            if self.log:
                self.log.write(line + '\n')
        return len(text)

    def flush(self) -> None:
        """Do nothing: each line is flushed."""

    def isatty(self) -> bool:
        """Return False: progress bars are not drawn."""
        return False


def here(job: Job, mark: str) -> str | None:
    """Run the commands of a job in this process; return a description of the first failure, or None.

    A command that a signal has stopped raises KeyboardInterrupt.
    """
    began = time.perf_counter()
    if job.lock:
        with locked(job.lock, wait=True):
            pass
    with log_of(job) as log:
        for words in job.commands:
            print(mark, shlex.join(words), flush=True)
            out = Marked(sys.stdout, mark, log)
            if status := run_script(words[1:], out):
                if status > SIGNALLED:
                    raise KeyboardInterrupt
                return (f'{shlex.join(words)}: exit status {status}: {out.last}'
                        + (f' (log: {job.log})' if job.log else ''))
    if job.log:
        write_text(job.log.with_suffix('.json'), json.dumps({'seconds': time.perf_counter() - began}))
    print(f'{mark} done in {time.perf_counter() - began:.0f} s', flush=True)
    return None


def run_script(words: Sequence[str], out: Marked) -> int:
    """Run a Python script with its arguments as a command line would, its output into `out`; return the exit status."""
    before = sys.argv
    with ExitStack() as stack:
        stack.enter_context(redirect_stdout(out))
        stack.enter_context(redirect_stderr(out))
        stack.callback(setattr, sys, 'argv', before)
        sys.argv = list(words)
        try:
            runpy.run_path(words[0], run_name='__main__')
        except SystemExit as end:
            return status_of(end.code, out)
        except Exception as error:  # a run that fails must not end the others
            traceback.print_exc()
            out.write(f'{type(error).__name__}: {first_line(error)}\n')
            return 1
    return 0


def status_of(code: object, out: Marked) -> int:
    """Return the exit status of `SystemExit(code)`, whose message is printed if it is one."""
    if code is None or isinstance(code, int):
        return code or 0
    out.write(f'{code}\n')
    return 1
