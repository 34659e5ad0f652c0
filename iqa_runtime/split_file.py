"""Write, read and hash a split: the table split.csv, with columns image and part, of one data set or of several."""
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path

from iqa_runtime.errors import UserError
from iqa_runtime.files import replacing
from iqa_runtime.names import PARTS, cell
from iqa_runtime.tables import Table, write_columns

Split = dict[str, list[str]]  # part, one of PARTS -> names of its images


def names_in_parts(sets: Sequence[str], names: Sequence[Mapping[str, Sequence[str]]]) -> Split:
    """Return the split of several data sets as one: each image's name begins with the name of its set, and /.

    `names`: the split of each set. That of a single set stays as it is.
    """
    if len(sets) == 1:
        return {part: list(some) for part, some in names[0].items()}
    return {part: [f'{name}/{image}' for name, parts in zip(sets, names, strict=True) for image in parts.get(part, ())]
            for part in PARTS if any(part in parts for parts in names)}


def split_hash(names: Mapping[str, Sequence[str]]) -> str:
    """Return a hash of a split, 16 hexadecimal digits, which depends neither on the order nor on repeated rows."""
    lines = sorted({f'{name}\t{part}\n' for part, some in names.items() for name in some})
    return hashlib.sha256(''.join(lines).encode()).hexdigest()[:16]


def write_split(path: str | Path, names: Mapping[str, Sequence[str]]) -> None:
    """Write a split, each image once."""
    rows = [(cell(name), part) for part, some in names.items() for name in dict.fromkeys(some)]
    with replacing(path) as temporary:
        write_columns(temporary, {'image': [name for name, _ in rows], 'part': [part for _, part in rows]})


def read_split(path: str | Path) -> Split:
    """Read a split; UserError if it has no image, an image twice, or another part than train, val and test."""
    table = Table.read(path)
    table.needs('image', 'part')
    names, parts = table.images(), table.parts()
    table.once(names)
    if not names:
        raise UserError(f'{path}: it holds no images')
    return {part: [name for name, other in zip(names, parts, strict=True) if other == part]
            for part in PARTS if part in parts}


def by_set(split: Split, sets: Sequence[str], path: str | Path) -> dict[str, Split]:
    """Return name of a data set -> its split: what `names_in_parts` made one of.

    Raises UserError, which names the file, if the name of an image begins with that of no set.
    """
    if len(sets) == 1:
        return {sets[0]: split}
    longest = sorted(sets, key=len, reverse=True)  # names of sets may contain /
    found: dict[str, Split] = {name: {} for name in sets}
    for part, names in split.items():
        for image in names:
            name = next((name for name in longest if image.startswith(f'{name}/')), None)
            if name is None:
                raise UserError(f'{path}: {image} is of no data set of the run; expected SET/IMAGE, where SET is one '
                                f'of: {", ".join(sets)}')
            found[name].setdefault(part, []).append(image.removeprefix(f'{name}/'))
    return found
