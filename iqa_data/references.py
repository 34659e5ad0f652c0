"""Find the reference images of a full-reference set; keep its files inside their folder, and pairs of one size."""
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from iqa_data.datasets import Source
from iqa_data.info import Info
from iqa_runtime.errors import UserError
from iqa_runtime.files import same_file
from iqa_runtime.names import nearest


def stay_inside(folder: str | Path, names: Sequence[str]) -> None:
    """Raise UserError if a name leads outside the folder: by .., as an absolute path, or through a symbolic link."""
    root, folders = os.path.realpath(folder), {}

    def real(path: str) -> str:
        parent = os.path.dirname(path)
        if parent not in folders:
            folders[parent] = os.path.realpath(parent)
        return os.path.realpath(path) if os.path.islink(path) else os.path.join(folders[parent], os.path.basename(path))

    out = [name for name in names if not real(os.path.join(folder, name)).startswith(root.rstrip(os.sep) + os.sep)]
    if out:
        raise UserError(f'{len(out)} of {len(names)} images lie outside {folder}, as {out[0]}: if you trust the info '
                        'file, --allow_outside reads them')


def references_of(source: Source, name: str, info: Info, rows: np.ndarray, allow_outside: bool = False) -> list[Path]:
    """Return the reference file of each image in `rows`; UserError if a reference is missing."""
    wants = f'a full-reference network compares images with their references, and {name}'
    if info.references is None:
        raise UserError(f'{wants} has none: {source.info} has no column reference')
    named = [info.references[i].replace('\\', '/') for i in rows]
    folder = source.ref_dir or source.im_dir
    files = {reference: Path(folder, reference) for reference in dict.fromkeys(named)}
    missing = [reference for reference, path in files.items() if not reference or not path.is_file()]
    if missing:
        first = info.names[rows[named.index(missing[0])]]
        raise UserError(f'{wants} lacks {len(missing)} of {len(files)}: {missing[0]!r}, the reference of {first}, is '
                        f'no file in {folder} (--ref_dir names the folder of the reference images)'
                        + (nearest(files[missing[0]]) if missing[0] else ''))
    if not allow_outside:
        stay_inside(folder, list(files))
    images = (Path(source.im_dir, info.names[i]) for i in rows)
    if all(same_file(files[reference], image) for image, reference in zip(images, named, strict=True)):
        raise UserError(f'{wants} names each image as its own reference: --ref_dir names another folder')
    return [files[reference] for reference in named]


def check_pairs(items: Sequence[tuple[Path, ...]], size: Mapping[Path, tuple[int, int]]) -> None:
    """Raise UserError if the sizes of an image and its reference differ."""
    for reference, image in (item for item in items if len(item) == 2):
        if size[reference] != size[image]:
            (h, w), (height, width) = size[image], size[reference]
            raise UserError(f'{image} is {w}x{h}, its reference {reference} {width}x{height}: a full-reference network '
                            'needs both of one size (--resize brings them to it)')
