"""Read further properties of images, such as votes, prompts or distortions, from a table with a row per image."""
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iqa_data.datasets import DATASETS, TEXTS
from iqa_data.info import read_info
from iqa_runtime.errors import UserError
from iqa_runtime.tables import Table


@dataclass(frozen=True)
class Facts:
    """The columns of a table of images; `rows` is {image: row}."""

    table: Table
    rows: dict[str, int]

    @classmethod
    def read(cls, path: str | Path) -> 'Facts':
        """Read a table with a column image or name, an info file, or the info file of a data set in DATASETS.

        Raises UserError if the file is none of these, or if it has an image twice.
        """
        path = Path(DATASETS[path].info if path in DATASETS else path)
        table = Table.read(path) if path.suffix.lower() in TEXTS else _of_info(path)
        column = next((name for name in ('image', 'name') if name in table.columns), 'image')
        table.needs(column)
        names = table.images(column)
        table.once(names)
        return cls(table, {name: row for row, name in enumerate(names)})

    def texts(self, column: str, names: Sequence[str]) -> list[str]:
        """Return the cells of a column for some images; UserError if the column or an image is missing."""
        self.table.needs(column)
        return [self.table.columns[column][row] for row in self._rows(names)]

    def numbers(self, column: str, names: Sequence[str]) -> np.ndarray | None:
        """Return a column for some images as (N,) float64, nan for empty cells; None if the column is missing."""
        if column not in self.table.columns:
            return None
        return self.table.numbers(column, math.nan)[self._rows(names)]

    def _rows(self, names: Sequence[str]) -> list[int]:
        missing = [name for name in names if name not in self.rows]
        if missing:
            raise UserError(f'{self.table.path}: lacks {missing[0]!r} ({len(missing)} images in all)')
        return [self.rows[name] for name in names]


def _of_info(path: Path) -> Table:
    """Return the columns of a MATLAB info file as a table."""
    info = read_info(path)
    columns = {'image': info.names, 'std': _texts(info.std), 'content': list(map(str, info.ref_ids))}
    columns |= {} if info.votes is None else {'votes': _texts(info.votes)}
    columns |= {} if info.references is None else {'reference': info.references}
    return Table(path, columns, list(range(1, len(info.names) + 1)))


def _texts(values: np.ndarray) -> list[str]:
    return ['' if math.isnan(value) else repr(value) for value in values.tolist()]


def parts_of_names(names: Sequence[str], pattern: str) -> list[str]:
    """Return the text that a regular expression finds in each name: its first group, or the whole match.

    Raises UserError if the pattern is not a regular expression, or if it does not match a name.

    >>> parts_of_names(['glide_normal_001.jpg', 'sd1.5_lowstep_007.jpg'], '^[^_]+')
    ['glide', 'sd1.5']
    """
    try:
        found = [re.search(pattern, name) for name in names]
    except re.error as error:
        raise UserError(f'{pattern!r} is no regular expression: {error}') from None
    parts = [match and match[min(1, match.re.groups)] for match in found]
    if None in parts:
        raise UserError(f'{pattern!r} does not match the name {names[parts.index(None)]!r}')
    return parts


def read_preferences(path: str | Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Read comparisons by people: columns first, second (images) and preference (share that prefer the first, 0..1).

    Returns the positions (P,) of both images in `names`, and the preferences (P,). Raises UserError for an image that
    is not in `names`, an image compared with itself, or a preference outside 0..1.
    """
    table = Table.read(path)
    table.needs('first', 'second', 'preference')
    if not table.rows:
        raise UserError(f'{path}: it holds no comparisons')
    place, preference = {name: i for i, name in enumerate(names)}, table.numbers('preference')
    both = [table.images(column) for column in ('first', 'second')]
    for row, value, *pair in zip(table.rows, preference, *both, strict=True):
        strangers = [name for name in pair if name not in place]
        if strangers:
            raise UserError(f'{path} row {row}: no predictions of {strangers[0]}')
        if pair[0] == pair[1]:
            raise UserError(f'{path} row {row}: {pair[0]} is compared with itself')
        if not 0 <= value <= 1:
            raise UserError(f'{path} row {row}: the preference is {value:g}; expected 0..1')
    return *(np.array([place[name] for name in column]) for column in both), preference
