"""Which images and shards are meant, and how their names are written.

A file name is written as valid UTF-8 on one line: bytes that are not UTF-8 become \\xNN, control characters and other
invisible ones their escapes (see `text`). It is the path as it was given (or found below a folder that was given),
without a leading ./; --resume recognises images by it.
"""
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from iqa_data.images import SUFFIXES
from iqa_runtime.errors import UserError, needed
from iqa_runtime.names import nearest, text
from iqa_scoring.shards import is_shard

MOST = 1_000_000  # names that braces may mean
LONGEST = 1 << 28    # characters of all of them
RANGE = re.compile(r'(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?')
LETTERS = re.compile(r'([A-Za-z])\.\.([A-Za-z])(?:\.\.-?\d+)?')


def find_images(words: Sequence[str], recursive: bool = False, stdin: Iterable[bytes] = ()) -> tuple[list[str], int]:
    """Return the files that `words` mean, each once, in the order of `words`; and how often one came again.

    A word is a file (whatever its suffix), a folder (its images, sorted, hidden ones left out; `recursive`: below it
    too), a glob pattern (** crosses folders), a pattern of braces ({00..99}, {a,b}), or - for a list on stdin, one path
    a line. A file that is named but not there is kept: whoever reads it reports it. Raises UserError if a folder or a
    pattern has no images, or a shard that is named is not there.
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
        yield from (path_in(line) for line in stdin if line.strip())
    elif os.path.isdir(word):
        images = list(_inside(word, recursive))
        if not images:
            raise UserError(f'--img {text(word)}: the folder has no images ({" ".join(sorted(SUFFIXES))})'
                            + _others(word, recursive))
        yield from images
    elif '{' in word and not os.path.lexists(word) and (names := expanded(word)) != [word]:
        if not any(glob.has_magic(name) or os.path.lexists(name) for name in names):
            raise UserError(f'--img {text(word)}: no file matches{nearest(names[0])}')
        for name in names:
            several = glob.has_magic(name) or os.path.isdir(name)
            yield from _meant(name, recursive, stdin) if several else (name,)
    elif glob.has_magic(word) and not os.path.lexists(word):
        images = [path for path in sorted(glob.iglob(word, recursive=True)) if os.path.isfile(path)]
        if not images:
            raise UserError(f'--img {text(word)}: no file matches{nearest(word)}')
        yield from images
    elif is_shard(word) and not os.path.lexists(word):
        raise UserError(f'--img {text(word)}: no such file{nearest(word)}')
    else:
        yield word


def path_in(line: bytes) -> str:
    """Return a line of a list as text, in which bytes that are no UTF-8 stay; UserError if no path can be like it."""
    if b'\0' in line:
        raise UserError('--img -: a null byte in the list, as find -print0 writes them; expected one path a line')
    return os.fsdecode(line.rstrip(b'\r\n'))


def expanded(word: str) -> list[str]:
    """Return the names that braces mean, as in a shell: {08..10} is 08, 09, 10; {a,b} is a, b; others stay as they are.

    Raises UserError if there are more than MOST, or if they have more than LONGEST characters.
    """
    braceexpand = needed('braceexpand', 'braceexpand', f'--img {text(word)}: a pattern of braces').braceexpand
    try:
        count = names_in(word)
        if count > MOST or count * len(word) > LONGEST:
            raise UserError(f'--img {text(word[:200])}: the braces mean more than {MOST} names or {LONGEST} characters')
        return list(braceexpand(word, escape=False))
    except UserError:
        raise
    except (ValueError, RecursionError):  # braces that do not close
        return [word]


def names_in(word: str) -> int:
    """Return how many names the braces in a word mean, or somewhat more, without making them."""
    count, depth, start = 1, 0, 0
    for i, character in enumerate(word):
        if character == '{':
            start = i + 1 if depth == 0 else start
            depth += 1
        elif character == '}':
            depth -= 1
            count *= _choices(word[start:i]) if depth == 0 else 1
    return count


def _choices(inside: str) -> int:
    """Return how many names a pair of braces means, by what is in it."""
    if match := RANGE.fullmatch(inside):
        return abs(int(match[2]) - int(match[1])) // max(1, int(match[3] or 1)) + 1
    if LETTERS.fullmatch(inside):
        return 52
    commas, depth = [-1], 0
    for i, character in enumerate(inside):
        depth += (character == '{') - (character == '}')
        if character == ',' and depth == 0:
            commas.append(i)
    return sum(names_in(inside[start + 1:end]) for start, end in zip(commas, [*commas[1:], len(inside)], strict=True))


def _others(folder: str, recursive: bool) -> str:
    """Return words that say what else may be meant by a folder without images."""
    shards = sorted({os.path.splitext(name)[1].lower() for name in os.listdir(folder) if is_shard(name)})
    if shards:
        return ''.join(f'; its shards are {text(os.path.join(folder, "*" + suffix))}' for suffix in shards)
    return '' if recursive else '; --recursive looks into the folders below it'


def _inside(folder: str, recursive: bool) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith('.')) if recursive else []
        yield from (os.path.join(root, name) for name in sorted(files)
                    if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith('.'))
