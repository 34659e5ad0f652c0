"""Create temporary files beside the files that they replace, and remove those that killed processes left.

A temporary file is called .NAME.PROCESS@HOST.START-COUNT.tmp, NAME being the name of the file that it replaces.
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

LONGEST = 180  # bytes of NAME: file systems allow 255 for the whole name
HOST = re.sub(r'[^\w-]', '_', socket.gethostname(), flags=re.ASCII)[:32]
START = secrets.token_hex(4)  # identifies this run: a restarted container uses the same process numbers again
COUNTER = itertools.count()
PATTERN = re.compile(r'\.(?P<name>.+)\.(?P<process>\d+)@(?P<host>[\w-]*)\.(?P<start>[0-9a-f]{8})-\d+\.tmp', re.DOTALL)


def temporary_beside(target: Path) -> Path:
    """Create an empty temporary file for `target`, with its mode if it exists; remove those that were left of it."""
    name = _brief(target.name)
    remove_left_over(target.parent, lambda other: other == name)
    path = target.with_name(f'.{name}.{os.getpid()}@{HOST}.{START}-{next(COUNTER)}.tmp')
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    with suppress(FileNotFoundError):
        shutil.copymode(target, path)
    return path


def _brief(name: str) -> str:
    """Return a file name, shortened to its beginning and a digest if it is long."""
    whole = os.fsencode(name)
    if len(whole) <= LONGEST:
        return name
    return f'{whole[:LONGEST - 17].decode(errors="ignore")}~{hashlib.sha256(whole).hexdigest()[:16]}'


def remove_left_over(folder: Path, owns: Callable[[str], bool]) -> None:
    """Remove temporary files that killed processes left in a folder; `owns`: whether to remove those of a name."""
    with suppress(OSError):  # a temporary file that cannot be removed does no harm
        for name in os.listdir(folder):
            parts = PATTERN.fullmatch(name)
            if parts and owns(parts['name']) and not _may_run(int(parts['process']), parts['host'], parts['start']):
                (folder / name).unlink(missing_ok=True)


def _may_run(process: int, host: str, start: str) -> bool:
    """Return whether a process may still be running; on another host, this is unknown, and assumed."""
    if process == os.getpid() and host == HOST:
        return start == START
    if host != HOST or os.name == 'nt':  # on Windows, os.kill would end the process
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # a process of another user
        return True
    return True
