"""Find the images and shards that the words of --img stand for.

A file name is written as valid UTF-8 on one line: bytes that are not UTF-8 become \\xNN, control characters and other
invisible ones their escapes (iqa_runtime.names.path_text). It is the path as given (or as found below a given folder),
without a leading ./; --resume recognises images by it.
"""
import codecs
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence

from iqa_data.images import SUFFIXES
from iqa_runtime.errors import UserError, needed
from iqa_runtime.names import nearest, path_text, plain_path
from iqa_scoring.shards import is_shard

MOST = 1_000_000  # names that a pattern of braces may expand to
LONGEST = 1 << 28    # characters of all of them
RANGE = re.compile(r'(-?\d+)\.\.(-?\d+)(?:\.\.-?(\d+))?')
LETTERS = re.compile(r'([A-Za-z])\.\.([A-Za-z])(?:\.\.-?\d+)?')


def find_images(words: Sequence[str], recursive: bool = False, stdin: Iterable[bytes] = ()) -> tuple[list[str], int]:
    """Return the files that `words` stand for, each once, in the order of `words`, and the number of repeats.

    A word is a file (with any suffix), a folder (its images, sorted, without hidden ones; with `recursive`, also those
    in folders below it), a glob pattern (** crosses folders), a pattern of braces ({00..99}, {a,b}), or - for a list on
    stdin, one path a line. A file that does not exist is kept: its reader reports it. Raises UserError if a folder or a
    pattern has no images, or if a shard does not exist.
    """
    found: dict[str, str] = {}
    count, here = 0, os.getcwd()
    for word in words:
        for path in _meant(word, recursive, stdin):
            count += 1
            plain = plain_path(path)
            found.setdefault(os.path.join(here, plain), plain)
    if not found:
        raise UserError('--img -: no path on stdin')
    return list(found.values()), count - len(found)


def _meant(word: str, recursive: bool, stdin: Iterable[bytes]) -> Iterator[str]:
    if word == '-':
        yield from (path_in(line) for line in stdin if line.strip())
    elif os.path.isdir(word):
        images = list(_inside(word, recursive))
        if not images:
            raise UserError(f'--img {path_text(word)}: the folder has no images ({" ".join(sorted(SUFFIXES))})'
                            + _others(word, recursive))
        yield from images
    elif '{' in word and not os.path.lexists(word) and (names := expanded(word)) != [word]:
        if not any(glob.has_magic(name) or os.path.lexists(name) for name in names):
            raise UserError(f'--img {path_text(word)}: no file matches{nearest(names[0])}')
        for name in names:
            several = glob.has_magic(name) or os.path.isdir(name)
            yield from _meant(name, recursive, stdin) if several else (name,)
    elif glob.has_magic(word) and not os.path.lexists(word):
        images = [path for path in sorted(glob.iglob(word, recursive=True)) if os.path.isfile(path)]
        if not images:
            raise UserError(f'--img {path_text(word)}: no file matches{nearest(word)}')
        yield from images
    elif is_shard(word) and not os.path.lexists(word):
        raise UserError(f'--img {path_text(word)}: no such file{nearest(word)}')
    else:
        yield word


def path_in(line: bytes) -> str:
    """Return a line of a list as a path, which keeps bytes that are not UTF-8; UserError if it cannot be a path.

    A byte order mark, which lists from Windows begin with, is no part of it.
    """
    if b'\0' in line:
        raise UserError('--img -: a null byte in the list, as find -print0 writes them; expected one path a line')
    return os.fsdecode(line.removeprefix(codecs.BOM_UTF8).rstrip(b'\r\n'))


def expanded(word: str) -> list[str]:
    """Expand braces as a shell does: {08..10} is 08, 09, 10; {a,b} is a, b; others are not changed.

    Raises UserError if there are more than MOST names, or if they have more than LONGEST characters.
    """
    braceexpand = needed('braceexpand', 'braceexpand', f'--img {path_text(word)}: a pattern of braces').braceexpand
    try:
        count = names_in(word)
        if count > MOST or count * len(word) > LONGEST:
            raise UserError(f'--img {path_text(word[:200])}: the braces expand to more than {MOST} names or {LONGEST} '
                            'characters')
        return list(braceexpand(word, escape=False))
    except UserError:
        raise
    except (ValueError, RecursionError):  # braces that do not close
        return [word]


def names_in(word: str) -> int:
    """Return the number of names that the braces in a word expand to, or slightly more, without making them."""
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
    """Return the number of names that a pair of braces expands to, given the text inside it."""
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
    """Return a hint for a folder without images: its shards, or --recursive."""
    shards = sorted({os.path.splitext(name)[1].lower() for name in os.listdir(folder) if is_shard(name)})
    if shards:
        return ''.join(f'; its shards are {path_text(os.path.join(folder, "*" + suffix))}' for suffix in shards)
    return '' if recursive else '; --recursive looks into the folders below it'


def _inside(folder: str, recursive: bool) -> Iterator[str]:
    for root, folders, files in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith('.')) if recursive else []
        yield from (os.path.join(root, name) for name in sorted(files)
                    if os.path.splitext(name)[1].lower() in SUFFIXES and not name.startswith('.'))
