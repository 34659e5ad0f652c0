"""Temporary files: each is named for the process that writes it, so that those of killed processes can be removed.

The name is .NAME.PROCESS@HOST.START-COUNT.tmp, NAME that of the file whose place it is to take.
"""
import hashlib
import itertools
import os
import re
import secrets
import shutil
import socket
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

LONGEST = 180  # bytes of NAME: file systems allow 255 in all
HOST = re.sub(r'[^\w-]', '_', socket.gethostname(), flags=re.ASCII)[:32]
START = secrets.token_hex(4)  # of this run: after a container has started again, the same number is another process
COUNTER = itertools.count()
PATTERN = re.compile(r'\.(?P<name>.+)\.(?P<process>\d+)@(?P<host>[\w-]*)\.(?P<start>[0-9a-f]{8})-\d+\.tmp', re.DOTALL)


def temporary_beside(target: Path) -> Path:
    """Create an empty temporary file for `target`, with its mode if it is there; remove those that were left of it."""
    name = _brief(target.name)
    remove_left_over(target.parent, lambda other: other == name)
    path = target.with_name(f'.{name}.{os.getpid()}@{HOST}.{START}-{next(COUNTER)}.tmp')
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    with suppress(FileNotFoundError):
        shutil.copymode(target, path)
    return path


def _brief(name: str) -> str:
    """Return a file name, or if it is long its beginning and a digest."""
    whole = os.fsencode(name)
    if len(whole) <= LONGEST:
        return name
    return f'{whole[:LONGEST - 17].decode(errors="ignore")}~{hashlib.sha256(whole).hexdigest()[:16]}'


def remove_left_over(folder: Path, owns: Callable[[str], bool]) -> None:
    """Remove the temporary files in a folder that killed processes left of files whose names the caller owns."""
    with suppress(OSError):  # what cannot be removed does no harm to the file that is written
        for name in os.listdir(folder):
            parts = PATTERN.fullmatch(name)
            if parts and owns(parts['name']) and not _may_run(int(parts['process']), parts['host'], parts['start']):
                (folder / name).unlink(missing_ok=True)


def _may_run(process: int, host: str, start: str) -> bool:
    """Return whether a process may still write: of one on another host nothing is known."""
    if process == os.getpid() and host == HOST:
        return start == START
    if host != HOST or os.name == 'nt':  # where os.kill would end the process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # it is another user's
        return True
    return True
