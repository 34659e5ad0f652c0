"""Names of files and images as others see them: on a terminal, and as the cells of a table."""
import hashlib
import os
import re
from collections.abc import Collection

from iqa_runtime.errors import one_line

FORMULA = re.compile(r'[=+\-@\t\r＝＋－＠].')  # as a spreadsheet takes it; the wide ones count in East Asian ones
ESCAPED = re.compile(r'\./(?=[=+\-@\t\r＝＋－＠].)')


def text(path: str | os.PathLike) -> str:
    """Return a path as one line of valid UTF-8, another one for every path.

    Bytes that are not UTF-8 become \\xNN, characters that a terminal does not show their escapes, and a backslash two
    (if it does not part folders).
    """
    encoded = os.fsencode(path)
    if os.sep == '/':
        encoded = encoded.replace(b'\\', b'\\\\')
    return one_line(encoded.decode('utf-8', 'backslashreplace'))


def cell(name: str) -> str:
    """Return a name as the cell of a table that no spreadsheet computes: = + - @ at its beginning get ./ before them.

    A relative path stays a path to the same file, and a number stays as it is.
    """
    return f'./{name}' if FORMULA.match(name) and not _is_number(name) else name


def from_cell(written: str) -> str:
    """Return the name that `cell` was given."""
    return ESCAPED.sub('', written, count=1) if ESCAPED.match(written) else written


def file_name(written: str) -> str:
    """Return a text as the name of a file, a different one for every text.

    Characters that a file system may refuse become _; a digest of the text then follows.
    """
    safe = re.sub(r'[^\w.+=-]+', '_', written)[:100]
    return safe if safe == written else f'{safe}-{hashlib.sha256(written.encode()).hexdigest()[:8]}'


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return True


def without_suffix(name: str, suffixes: Collection[str]) -> str:
    """Return a file name without its suffix if that is one of `suffixes`: the name may hold dots of its own."""
    head, suffix = os.path.splitext(name)
    return head if suffix.lower() in suffixes else name
