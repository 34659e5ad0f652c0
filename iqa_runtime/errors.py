"""Errors of the user, the end of a command, packages that only some need, and names picked from a table."""
import difflib
import errno
import importlib
import io
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from functools import wraps
from pathlib import Path
from types import ModuleType

PATIENCE = 20  # seconds that a process may take to fail, end, and be noticed by torchrun, on a busy machine
WRITING = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EBADF}  # what a print to a file may raise


def one_line(text: str) -> str:
    """Return a text on one line, in characters that a terminal shows: all others (ESC, newline ...) are escaped."""
    if text.isprintable():  # as nearly all are, and a name of every image comes here
        return text
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's text, or its kind if it has none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class UserError(ValueError):
    """A mistake of the user, in one line: the file or option, what was found, what is expected."""


def needed(module: str, package: str, what: str) -> ModuleType:
    """Import a module; UserError that names the package to install if it is not there."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f'{what} needs {package}: pip install {package}') from None


def command(main: Callable) -> Callable:
    """Turn a script's `main` into a command.

    A UserError, or an error of the system such as a full disk, is one line on stderr and exit status 2, without
    traceback. If the reader of stdout has gone, as with `| head`, the command ends quietly with status 141.
    """
    @wraps(main)
    def run(argv: list[str] | None = None):
        try:
            try:
                open_streams()
                return main(argv)
            finally:
                if sys.stdout:
                    sys.stdout.flush()
        except UserError as error:
            reason = str(error)
        except BrokenPipeError:
            _close_stdout()
            raise SystemExit(141) from None
        except OSError as error:
            reason = _reason(error)
        wait_for_the_first()
        with suppress(OSError):
            print(f'{Path(sys.argv[0]).name}: error: {one_line(reason)}', file=sys.stderr)
        raise SystemExit(2)
    return run


def wait_for_the_first() -> None:
    """Let the first process of this machine report an error that all have, if torchrun started this one.

    When a process fails, torchrun ends the others, and this one while it waits. It goes on if the error is its own.
    """
    if 'TORCHELASTIC_RUN_ID' in os.environ and os.environ.get('LOCAL_RANK', '0') != '0':
        time.sleep(PATIENCE)


def open_streams() -> None:
    """Open stdin, stdout and stderr if they are closed, and let stdout escape characters that its encoding lacks.

    Else a file that is written would get the number of a stream, and what a library prints there. UserError if stdout
    was closed: what is asked for would be lost.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # it gets the lowest number that is free, which is this one
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115 (as long as the process)
    sys.stderr = sys.stderr or open(os.devnull, 'w')  # noqa: SIM115
    if sys.stdout is None:
        raise UserError('stdout is closed, and with it the output; >/dev/null throws it away')
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')


def _close_stdout() -> None:
    """Let what is still to be printed go nowhere: Python would complain of it while it ends."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reason(error: OSError) -> str:
    """Return an error of the system in words, with the file's name, or without one the stream's."""
    if error.filename is not None:
        return f'{error.filename}: {error.strerror}'
    if error.errno not in WRITING:
        return str(error)
    _close_stdout()
    return f'cannot write to stdout: {error.strerror}'


def pick(table: Iterable[str], name: str, what: str) -> str:
    """Return the name in `table` that is meant, as `ResNet-18` means resnet18: case, - and _ do not count.

    Raises UserError that lists the names and the nearest one.
    """
    names = list(table)
    if name in names:
        return name
    alike = [known for known in names if _letters(known) == _letters(name)]
    if len(alike) == 1:
        return alike[0]
    near = difflib.get_close_matches(name.lower(), [known.lower() for known in names], n=1, cutoff=.5)
    hint = f' (did you mean {next(known for known in names if known.lower() == near[0])}?)' if near else ''
    raise UserError(f'unknown {what} {name!r}{hint}; expected one of: {", ".join(names)}')


def _letters(name: str) -> str:
    return name.casefold().translate(str.maketrans('', '', '-_ '))
