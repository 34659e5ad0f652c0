"""Convert names of files and images for terminals, table cells and file systems, and find the nearest file."""
import difflib
import hashlib
import os
import re
import unicodedata
from collections.abc import Collection
from pathlib import PurePath

from iqa_runtime.errors import one_line

PARTS = ('train', 'val', 'test')  # of a data set
FORMULA = re.compile(r'[=+\-@\t\r＝＋－＠].')  # spreadsheets compute such cells, East Asian ones also the wide forms
ESCAPED = re.compile(r'\./(?=[=+\-@\t\r＝＋－＠].)')


def path_text(path: str | os.PathLike) -> str:
    """Return a path as one line of valid UTF-8, different for every path.

    Bytes that are not UTF-8 become \\xNN, characters that a terminal does not show become their escapes, and a
    backslash is doubled (if it does not separate folders).
    """
    encoded = os.fsencode(path)
    if os.sep == '/':
        encoded = encoded.replace(b'\\', b'\\\\')
    return one_line(encoded.decode('utf-8', 'backslashreplace'))


def plain_path(path: str) -> str:
    """Return a path without ./ and repeated slashes; .. stays, since the folder before it may be a symbolic link."""
    return str(PurePath(path))


def cell(name: str) -> str:
    """Return a name as a table cell that no spreadsheet computes as a formula: an initial = + - @ is preceded by ./.

    A relative path still leads to the same file, and a number is unchanged.
    """
    return f'./{name}' if FORMULA.match(name) and not _is_number(name) else name


def from_cell(written: str) -> str:
    """Return the name from the cell that `cell` returned: its inverse."""
    return ESCAPED.sub('', written, count=1) if ESCAPED.match(written) else written


def as_file_name(written: str) -> str:
    """Return a text as the name of a file, different for every text.

    Characters that a file system may refuse become _; a digest of the text is then appended.
    """
    safe = re.sub(r'[^\w.+=-]+', '_', written)[:100]
    return safe if safe == written else f'{safe}-{hashlib.sha256(written.encode()).hexdigest()[:8]}'


def _is_number(name: str) -> bool:
    try:
        float(name)
    except ValueError:
        return False
    return '_' not in name  # float accepts 1_000, a spreadsheet does not


def nearest(path: str | os.PathLike) -> str:
    """Return a hint for an error message: the files nearest to a missing path; '' if there are none.

    Files whose names differ only in case, suffix or Unicode form come first, then files with similar names.
    """
    folder, name = os.path.split(path)
    while folder and not os.path.isdir(folder):
        folder, name = os.path.split(folder)
    try:
        there = sorted(os.listdir(folder or '.'))
    except OSError:
        return ''
    key, (stem, suffix) = _spelled(name), os.path.splitext(_spelled(name))
    known = {_spelled(other): other for other in there}
    same = [known[key]] if key in known else [
        other for spelled, other in known.items() if os.path.splitext(spelled)[0] in (key, stem)][:3]
    near = [known[other] for other in difflib.get_close_matches(key, list(known)[:10_000], 3, .5)]
    alike = [other for other in there if suffix and _spelled(other).endswith(suffix)][:3]
    close = same or near or alike
    form = ', in another form of Unicode' if close and unicodedata.normalize('NFC', close[0]) == unicodedata.normalize(
        'NFC', name) else ''
    paths = ', '.join(path_text(os.path.join(folder, other)) for other in close)
    return f'; nearest to it: {paths}{form}' if close else ''


def _spelled(name: str) -> str:
    """Return a name with case and Unicode form normalised."""
    return unicodedata.normalize('NFC', name).casefold()


def without_suffix(name: str, suffixes: Collection[str]) -> str:
    """Return a file name without its suffix if it is one of `suffixes`; other dots belong to the name."""
    head, suffix = os.path.splitext(name)
    return head if suffix.lower() in suffixes else name
