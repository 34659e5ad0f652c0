"""Files that are written whole or not at all, and locks."""
import fcntl
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from iqa_runtime.errors import UserError


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path in the folder of `path`; on success flush it to disk and put it in place of `path`.

    On an error, the previous file stays as it was and nothing is left behind. OSError becomes a UserError.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f'.{path.name[:100]}.', suffix='.tmp')
        os.close(handle)
        os.chmod(temporary, 0o666 & ~_umask())
        yield Path(temporary)
        with open(temporary, 'rb+') as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
        folder = os.open(path.parent, os.O_RDONLY)
        os.fsync(folder)  # the new name, too, outlives a power cut
        os.close(folder)
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror or error}') from error
    finally:
        if temporary and os.path.exists(temporary):
            os.unlink(temporary)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@contextmanager
def locked(path: str | Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`, which the system releases when the process ends, however it does.

    Raises UserError where another process holds it and `wait` is false.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, 'w')  # noqa: SIM115 (held open as long as the lock)
    except OSError as error:
        raise UserError(f'cannot write {path}: {error.strerror}') from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            raise UserError(f'another process holds {path}: it is at the same work') from None
        yield


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) to `path`, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


def read_text(path: str | Path, most: int = 1 << 24) -> str:
    """Read a text file (UTF-8); UserError if it cannot be read, is no text, or is larger than `most` bytes."""
    try:
        with open(path, 'rb') as file:
            content = file.read(most + 1)
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror or error})') from None
    if len(content) > most:
        raise UserError(f'{path}: larger than {most} bytes')
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError:
        raise UserError(f'{path}: not a text in UTF-8') from None
