"""Find the reference that each image is compared with: in files, folders of references, and tables of pairs."""
import csv
import os
from collections.abc import Iterable, Iterator, Sequence

from iqa_runtime.errors import UserError
from iqa_runtime.files import same_file
from iqa_runtime.names import nearest, path_text, plain_path
from iqa_scoring.inputs import find_images, path_in
from iqa_scoring.shards import is_shard

Item = str | tuple[str, str]  # a path, or a pair of them: reference, distorted
COLUMNS = ['image', 'reference']


def path_of(item: Item) -> str:
    """Return the path of the image that is scored."""
    return item if isinstance(item, str) else item[1]


def reference_of(item: Item) -> str:
    """Return the path of the reference, '' if there is none."""
    return '' if isinstance(item, str) else item[0]


def files_of(items: Iterable[Item]) -> list[str]:
    """Return the paths of all images and references."""
    return [path for item in items for path in ((item,) if isinstance(item, str) else item)]


def find_items(words: Sequence[str], reference: str | None, inputs: int, recursive: bool = False,
               stdin: Iterable[bytes] = ()) -> tuple[list[Item], int]:
    """Return the items that a network of 1 or 2 `inputs` scores, each once, and the number of repeated images.

    Args:
        words: see `find_images`; for pairs without `reference`, - alone: a table of pairs on stdin.
        reference: the file that all images are compared with, or a folder (see `match`).
    """
    if inputs == 2 and not reference and list(words) == ['-']:
        return table_of_pairs(stdin)
    with_references((), reference, inputs)  # report a mistake before anything is read
    paths, repeated = find_images(words, recursive, stdin)
    return with_references(paths, reference, inputs, recursive), repeated


def with_references(paths: Sequence[str], reference: str | None, inputs: int, recursive: bool = False) -> list[Item]:
    """Return the items that a network of 1 or 2 `inputs` scores; UserError if --ref is missing or not wanted."""
    if inputs == 1 and reference:
        raise UserError(f'--ref {path_text(reference)}: this network scores images without a reference')
    if inputs == 2 and not reference:
        raise UserError('this network compares an image with its reference: give --ref, a file or folder, or --img - '
                        'and a table on stdin, with an image and its reference in each row')
    shard = next(filter(is_shard, paths), None)
    if inputs == 2 and shard:
        raise UserError(f'--img {path_text(shard)}: shards and videos hold images without references, and this '
                        'network compares an image with its reference: give files')
    return list(paths) if inputs == 1 else match(paths, reference, recursive)


def match(paths: Sequence[str], reference: str, recursive: bool = False) -> list[tuple[str, str]]:
    """Return (reference, image) for each image; UserError if a reference is missing, or is the image itself for all.

    In a folder, the reference of an image is the file with its name; or with its name without the suffix; or with the
    longest part of its name before an underscore, as A0001.bmp for A0001_02_14.bmp. Case does not matter.
    """
    if not os.path.exists(reference):
        raise UserError(f'--ref {path_text(reference)}: no such file or folder{nearest(reference)}')
    if not os.path.isdir(reference):
        return [(plain_path(reference), path) for path in paths]
    files, _ = find_images([reference], recursive)
    named = {os.path.basename(file).lower(): file for file in files}
    stems: dict[str, list[str]] = {}
    for name, file in named.items():
        stems.setdefault(os.path.splitext(name)[0], []).append(file)
    found = [_reference_of(os.path.basename(path).lower(), named, stems) for path in paths]
    missing = [path for path, file in zip(paths, found, strict=True) if file is None]
    if missing:
        raise UserError(f'--ref {path_text(reference)}: it has no reference for {len(missing)} of {len(paths)} images, '
                        f'as {path_text(missing[0])}; expected a file of that name, or of the part before an '
                        'underscore')
    if paths and all(map(same_file, found, paths)):
        raise UserError(f'--ref {path_text(reference)}: the reference of each image is the image itself; expected a '
                        'folder of other files')
    return list(zip(found, paths, strict=True))


def _reference_of(name: str, named: dict[str, str], stems: dict[str, list[str]]) -> str | None:
    """Return the file of an image's reference; UserError if there are several."""
    if name in named:
        return named[name]
    stem = os.path.splitext(name)[0]
    while stem not in stems and '_' in stem:
        stem = stem.rpartition('_')[0]
    files = stems.get(stem, [None])
    if len(files) > 1:
        raise UserError(f'--ref: the reference of {path_text(name)} may be {path_text(files[0])} or '
                        f'{path_text(files[1])}')
    return files[0]


def table_of_pairs(lines: Iterable[bytes]) -> tuple[list[tuple[str, str]], int]:
    """Return the pairs in a table, and the number of repeated pairs.

    A row is the path of an image and that of its reference, with a comma between them and quotes where a path has one;
    a first row `image,reference` is a header. Raises UserError if a row is not a pair, or an image has two references.

    The table is not read by iqa_runtime.tables, which accepts UTF-8 only: paths may hold any bytes.
    """
    found: dict[str, str] = {}
    count = 0
    for number, cells in enumerate(_rows(lines), 1):
        if not cells or (number == 1 and cells == COLUMNS):
            continue
        if len(cells) != 2 or not all(cells):
            raise UserError(f'--img -: row {number} has {len(cells)} cells; expected image,reference')
        image, reference = map(plain_path, cells)
        if found.setdefault(image, reference) != reference:
            raise UserError(f'--img -: row {number}: {path_text(image)} again, with another reference')
        count += 1
    if not found:
        raise UserError('--img -: no pair on stdin')
    return [(reference, image) for image, reference in found.items()], count - len(found)


def _rows(lines: Iterable[bytes]) -> Iterator[list[str]]:
    """Yield the cells of each row; UserError if a line is not a row."""
    rows = csv.reader(map(path_in, lines), skipinitialspace=True)
    try:
        yield from rows
    except csv.Error as error:
        raise UserError(f'--img -: line {rows.line_num} is not a row image,reference ({error})') from None
