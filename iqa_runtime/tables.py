"""Tables of text: the one reader of CSV files."""
import csv
import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from iqa_runtime.errors import UserError

CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029]')


@dataclass(frozen=True)
class Table:
    """The cells of a CSV file as text, and the row of each, as a spreadsheet counts (the header is row 1)."""

    path: Path
    columns: dict[str, list[str]]
    rows: list[int]
    decimal: str = '.'

    @classmethod
    def read(cls, path: str | Path, header: Sequence[str] | None = None, separator: str | None = None) -> 'Table':
        """Read a CSV file, whose columns are `header` where it has no header of its own; UserError if it is none.

        Without `separator` it is the one of , ; and tab that the first line has most of.
        """
        try:
            with open(path, encoding='utf-8-sig', newline='') as file:
                first = file.readline()
                separator = separator or max(',;\t', key=first.count)
                file.seek(0)
                reader = csv.reader(file, delimiter=separator, skipinitialspace=True)
                cells = [(reader.line_num, [cell.strip() for cell in row]) for row in reader]
        except FileNotFoundError:
            raise UserError(f'{path}: no such file') from None
        except UnicodeDecodeError:
            raise UserError(f'{path}: not a text file in UTF-8; a spreadsheet saves one as "CSV UTF-8"') from None
        except (OSError, csv.Error) as error:
            raise UserError(f'{path}: not a table ({error})') from None
        names = list(header) if header else cells.pop(0)[1] if cells else []
        cells = [(line, row) for line, row in cells if any(row)]
        for name in {name for name in names if names.count(name) > 1}:
            raise UserError(f'{path}: two columns are called {name!r}')
        for line, row in cells:
            if any(row[len(names):]):
                raise UserError(f'{path} row {line}: {len(row)} cells in a table of {len(names)} columns')
        columns = {name: [row[i] if i < len(row) else '' for _, row in cells] for i, name in enumerate(names) if name}
        return cls(Path(path), columns, [line for line, _ in cells], '.' if separator == ',' else ',')

    def needs(self, *names: str, hint: str = '') -> None:
        """Raise UserError if a column is not there: it says which the table has and which are wanted."""
        lacks = [name for name in names if name not in self.columns]
        if lacks:
            raise UserError(f'{self.path}: lacks the column {", ".join(lacks)}; it has: '
                            f'{", ".join(self.columns) or "none"}; expected {", ".join(names)}{hint}')

    def numbers(self, column: str, empty: float | None = None) -> np.ndarray:
        """Return a column as (N,) float64; an empty cell is `empty`, or without it a UserError, as text always is."""
        def number(text: str, row: int) -> float:
            if not text:
                if empty is None:
                    raise UserError(f'{self.path} row {row}: the {column} is empty')
                return empty
            try:
                value = float(text.replace(self.decimal, '.'))
            except ValueError:
                value = math.nan
            if not math.isfinite(value):
                raise UserError(f'{self.path} row {row}: the {column} {text!r} is not a finite number')
            return value
        return np.array([number(*cell) for cell in zip(self.columns[column], self.rows, strict=True)], float)

    def images(self, column: str = 'image') -> list[str]:
        """A column as file names with / between folders; UserError if one is empty, odd, or of another system."""
        names = [str(PurePosixPath(name.replace('\\', '/'))) if name else '' for name in self.columns[column]]
        for name, row in zip(names, self.rows, strict=True):
            if not name:
                raise UserError(f'{self.path} row {row}: the {column} is empty')
            if CONTROL.search(name):
                raise UserError(f'{self.path} row {row}: the {column} {name[:80]!r} has a control character')
            if os.name != 'nt' and re.match('[A-Za-z]:/', name):
                raise UserError(f'{self.path} row {row}: {name} is an absolute path of a Windows machine; expected '
                                'one below the folder of the images (--im_dir)')
        return names

    def once(self, names: list[str], values: Sequence | None = None, what: str = '') -> None:
        """Raise UserError if an image comes twice: it counts them and says whether the values are the same."""
        first: dict[str, int] = {}
        again = [(first[name], i) for i, name in enumerate(names) if first.setdefault(name, i) != i]
        if again:
            i, j = again[0]
            told = '' if values is None else (f', with the same {what} {values[i]:g}' if values[i] == values[j] else
                                              f', with the {what} {values[i]:g} and {values[j]:g}')
            more = f' ({len(again)} rows repeat an image)' if len(again) > 1 else ''
            raise UserError(f'{self.path} row {self.rows[j]}: {names[j]} again, first in row {self.rows[i]}'
                            f'{told}{more}')
