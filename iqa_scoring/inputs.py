"""Which images are meant, and how their names are written.

A file name is written as valid UTF-8 on one line: bytes that are not UTF-8 become \\xNN, control characters and other
invisible ones their escapes (see `text`). It is the path as it was given (or found below a folder that was given),
without a leading ./; --resume recognises images by it.
"""
import glob
import os
from collections.abc import Iterable, Iterator, Sequence

from iqa_data.images import SUFFIXES
from iqa_runtime.errors import UserError
from iqa_runtime.names import text


def find_images(words: Sequence[str], recursive: bool = False, stdin: Iterable[bytes] = ()) -> tuple[list[str], int]:
    """Return the image files that `words` mean, each once, in the order of `words`; and how often one came again.

    A word is a file (whatever its suffix), a folder (its images, sorted, hidden ones left out; `recursive`: below it
    too), a glob pattern (** crosses folders), or - for a list on stdin, one path a line. A file that is named but not
    there is kept: whoever reads it reports it. Raises UserError if a folder or a pattern has no images.
    """
    found: dict[str, str] = {}
    count = 0
    for word in words:
        for path in _meant(word, recursive, stdin):
            count += 1
            found.setdefault(os.path.abspath(path), os.path.normpath(path))
    if not found:
        raise UserError('--img -: no path on stdin')
    return list(found.values()), count - len(found)


def _meant(word: str, recursive: bool, stdin: Iterable[bytes]) -> Iterator[str]:
    if word == '-':
        yield from (os.fsdecode(line.rstrip(b'\r\n')) for line in stdin if line.strip())
    elif os.path.isdir(word):
        images = list(_inside(word, recursive))
        if not images:
            below = '' if recursive else '; --recursive looks into the folders below it'
            raise UserError(f'--img {text(word)}: the folder has no images ({" ".join(sorted(SUFFIXES))}){below}')
        yield from images
    elif glob.has_magic(word) and not os.path.lexists(word):
        images = [path for path in sorted(glob.iglob(word, recursive=True)) if os.path.isfile(path)]
        if not images:
            raise UserError(f'--img {text(word)}: no file matches')
        yield from images
    else:
        yield word


def _inside(folder: str, recursive: bool) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith('.')) if recursive else []
        yield from (os.path.join(root, name) for name in sorted(files)
                    if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith('.'))
