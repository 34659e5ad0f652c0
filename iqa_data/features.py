"""Pooled features of images, which a frozen trunk computes once: on disk for later runs too, or in this run's memory.

On disk they are two files in --cache_dir, as decoded images are (iqa_data/cache.py), named by a digest of the images,
the preprocessing, the trunk and its weights:

    DIGEST.npy   float32, (N, numbers of an image)
    DIGEST.json  the CRC-32 of each row, and everything else that the numbers depend on: each image file's size in bytes
                 and time of change, torch's version, and FORMAT; written last

Features that are cut or damaged, or that were computed of other files or by another version, are computed again, and
the reason is printed.
"""
import hashlib
import json
import math
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from iqa_data.cache import array_file, content_stamp, readable
from iqa_runtime.errors import UserError, one_line
from iqa_runtime.files import locked, read_text, write_text

FORMAT = 1
Fill = Callable[[np.ndarray], None]


class Features:
    """Features of N items; `features(names)` returns the tensors of some of them, (len(names), ...) each.

    Args:
        names: of the items.
        shapes: of the tensors of an item.
        values: (N, numbers) float32, the tensors of an item one after the other.
    """

    def __init__(self, names: Sequence[str], shapes: Sequence[tuple[int, ...]], values: np.ndarray):
        self.rows = {name: i for i, name in enumerate(names)}
        self.shapes, self.values = [tuple(shape) for shape in shapes], values

    def __call__(self, names: Sequence[str]) -> tuple[Tensor, ...]:
        flat = torch.from_numpy(self.values[[self.rows[name] for name in names]])
        parts = flat.split([math.prod(shape) for shape in self.shapes], 1)
        return tuple(part.reshape(len(names), *shape) for part, shape in zip(parts, self.shapes, strict=True))


@dataclass(frozen=True)
class Items:
    """Items whose features are wanted.

    Attributes:
        names: of the items, no two alike.
        files: the image of each.
        shapes: of the tensors of an item.
        depends_on: everything else that the numbers depend on: the trunk, the preprocessing ... as plain values.
        fill: writes the features into an array (N, numbers) float32.
    """

    names: Sequence[str]
    files: Sequence[Path]
    shapes: Sequence[tuple[int, ...]]
    depends_on: dict
    fill: Fill

    @property
    def shape(self) -> tuple[int, int]:
        """Return the shape of all features together."""
        return len(self.names), sum(map(math.prod, self.shapes))

    @property
    def title(self) -> str:
        """Return in words what is computed, and how large it is."""
        return f'the features of {len(self.names)} images, {readable(4 * math.prod(self.shape))}'

    def features(self, values: np.ndarray) -> Features:
        """Return the features in an array."""
        return Features(self.names, self.shapes, values)


def features_in_memory(items: Items) -> Features:
    """Compute the features into this process's memory."""
    print(f'Computing {items.title} of memory')
    values = np.empty(items.shape, np.float32)
    items.fill(values)
    return items.features(values)


def features_on_disk(items: Items, folder: str | Path) -> Features:
    """Open the features in a folder, computed now if they are not there or not right (see the module).

    Of several processes that need the same ones, the first computes them and the others wait. Those that are whole are
    only read.
    """
    digest = hashlib.sha256(json.dumps([items.depends_on, list(items.names)]).encode()).hexdigest()[:16]
    file = Path(folder, f'{digest}.npy')
    about = {'format': FORMAT, 'torch': str(torch.__version__), 'images': [content_stamp(path) for path in items.files]}
    values, _ = _open(file, about, items.shape)
    if values is None:
        with locked(file.with_suffix('.lock'), wait=True):
            values, trouble = _open(file, about, items.shape)
            if values is None:
                if trouble:
                    print(f'The features {file} are not right ({one_line(trouble)}): they are computed again')
                _make(file, about, items)
                values, trouble = _open(file, about, items.shape)
        if values is None:
            raise UserError(f'{file} cannot be read back ({trouble}): --cache_dir names another place, --cache ram '
                            'needs none')
    return items.features(values)


def _open(file: Path, about: dict, shape: tuple[int, int]) -> tuple[np.ndarray | None, str]:
    """Return the values in a file, or None and its fault in words; '' if it is not there."""
    index = file.with_suffix('.json')
    if not file.exists() or not index.exists():
        return None, ''
    try:
        made = json.loads(read_text(index, most=1 << 30))
        changed = [key for key, value in about.items() if made[key] != value]
        if changed:
            raise ValueError(f'made with {" and ".join(changed)} that are others now')
        values = np.load(file, mmap_mode='r', allow_pickle=False)
        if values.shape != shape or values.dtype != np.float32:
            raise ValueError('of another size')
        if made['crcs'] != [zlib.crc32(row) for row in values]:
            raise ValueError('damaged')
    except Exception as error:  # numpy and json raise many kinds on a broken file
        return None, str(error) or type(error).__name__
    return values, ''


def _make(file: Path, about: dict, items: Items) -> None:
    print(f'Computing {items.title}, into {file}; later runs use them', flush=True)
    index = file.with_suffix('.json')
    index.unlink(missing_ok=True)
    with array_file(file, np.float32, items.shape, 'the features', '--features computed needs none') as values:
        items.fill(values)
        crcs = [zlib.crc32(row) for row in values]
    write_text(index, json.dumps({**about, 'crcs': crcs}))
