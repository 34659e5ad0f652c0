"""Errors of the user in one line, the exit status of commands, optional packages, and look-up of misspelled names."""
import difflib
import errno
import importlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import wraps
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import IO

WRITING = {errno.ENOSPC, errno.EFBIG, errno.EDQUOT, errno.EIO, errno.EBADF}  # what a print to a file may raise


def one_line(text: str) -> str:
    """Return a text on one line, with all characters escaped that a terminal does not show (ESC, newline ...)."""
    if text.isprintable():  # the fast path, as this is called for the name of every image
        return text
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


def first_line(error: BaseException) -> str:
    """Return the first line of an error's message, or the name of its class if the message is empty."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


class UserError(ValueError):
    """A mistake of the user, described in one line: the file or option, the value found, the value expected."""


def needed(module: str, package: str, what: str) -> ModuleType:
    """Import a module of an optional package; UserError that names the package if it is not installed.

    `what`: the feature that needs the package, for the message.
    """
    try:
        return importlib.import_module(module)
    except ImportError:
        raise UserError(f'{what} needs {package}: pip install {package}') from None


def command(main: Callable) -> Callable:
    """Turn a script's `main` into a command.

    A UserError, or an error of the system such as a full disk, becomes one line on stderr and exit status 2, without
    traceback. If the reader of stdout has closed it, as `| head` does, the command ends silently with status 141.
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
        reason += spaces_hint(sys.argv[1:] if argv is None else argv)
        report(f'{Path(sys.argv[0]).name}: error: {one_line(reason)}')
        raise SystemExit(2)
    return run


def spaces_hint(words: Sequence[str]) -> str:
    """Return a hint if up to 8 neighbouring words of a command line make the path of a file that exists; else ''."""
    for first, last in combinations(range(len(words) + 1), 2):
        path = ' '.join(words[first:last])
        if 2 <= last - first <= 8 and os.path.exists(path):
            return f" (a path with spaces needs quotes: '{path}')"
    return ''


def report(line: str) -> None:
    """Print a line to stderr, unless another process that torchrun started on this machine has printed the same.

    Processes with the same mistake take turns, since torchrun ends the others as soon as one has failed: none may fail
    before the line is printed.
    """
    with suppress(OSError), _lines_printed() as lines:
        if f'{line}\n' not in lines.readlines():
            print(line, file=sys.stderr, flush=True)
            lines.write(f'{line}\n')


def _lines_printed() -> IO[str]:
    """Return the file of the lines that processes of torchrun on this machine have printed; one process has it open."""
    own = os.environ.get('TORCHELASTIC_ERROR_FILE')  # FOLDER/LOCAL_RANK/error.json
    with suppress(ImportError, OSError):
        if own:
            import fcntl  # which Windows lacks
            file = open(Path(own).parents[1] / 'printed', 'a+', encoding='utf-8')  # noqa: SIM115 (report closes it)
            fcntl.flock(file, fcntl.LOCK_EX)
            file.seek(0)
            return file
    return io.StringIO()


def open_streams() -> None:
    """Open stdout and stderr if they are closed, and let stdout escape characters that its encoding lacks.

    Otherwise the next opened file would get the descriptor of a stream, and receive the output that libraries print to
    it. UserError if stdout was closed, since the command's output would be lost.
    """
    for number in (1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    sys.stderr = sys.stderr or open(os.devnull, 'w')  # noqa: SIM115 (as long as the process)
    if sys.stdout is None:
        raise UserError('stdout is closed, and the output would be lost; >/dev/null discards it')
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors='backslashreplace')


def _close_stdout() -> None:
    """Discard the buffered output, which Python would otherwise fail to flush when it exits."""
    with suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _reason(error: OSError) -> str:
    """Return the message of a system error, with the name of the file, or of stdout if it has none."""
    if error.filename is not None:
        return f'{error.filename}: {error.strerror}'
    if error.errno not in WRITING:
        return str(error)
    _close_stdout()
    return f'cannot write to stdout: {error.strerror}'


def pick(table: Iterable[str], name: str, what: str) -> str:
    """Return the name in `table` that equals `name` up to case, spaces, - and _, as resnet18 does for `ResNet-18`.

    Raises UserError that lists the names and the nearest one; `what` is the noun of its message.
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
