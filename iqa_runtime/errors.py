"""Errors of the user, and names picked from a table."""
import difflib
import sys
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path


def one_line(text: str) -> str:
    """Return a text on one line, in characters that a terminal shows: all others (ESC, newline ...) are escaped."""
    return ''.join(c if c.isprintable() else c.encode('unicode_escape').decode() for c in text)


class UserError(ValueError):
    """A mistake of the user's, told in one line: the file or option, what was found, what is expected."""


def command(main: Callable) -> Callable:
    """Turn a script's `main` into a command: a UserError is one line on stderr and exit status 2, without traceback."""
    @wraps(main)
    def run(argv: list[str] | None = None):
        try:
            return main(argv)
        except UserError as error:
            print(f'{Path(sys.argv[0]).name}: error: {one_line(str(error))}', file=sys.stderr)
            raise SystemExit(2) from None
    return run


def pick(table: Iterable[str], name: str, what: str) -> str:
    """Return the name in `table`, written there in any case; UserError that lists the names and the nearest one."""
    names = list(table)
    if name in names:
        return name
    alike = [known for known in names if known.casefold() == name.casefold()]
    if len(alike) == 1:
        return alike[0]
    near = difflib.get_close_matches(name.lower(), [known.lower() for known in names], n=1, cutoff=.5)
    hint = f' (did you mean {next(known for known in names if known.lower() == near[0])}?)' if near else ''
    raise UserError(f'unknown {what} {name!r}{hint}; expected one of: {", ".join(names)}')
