"""Read CSV files as tables of text, check and convert their columns, and write CSV files."""
import math
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, TextIO

import numpy as np

from iqa_runtime.checks import LARGEST as MOST
from iqa_runtime.errors import UserError
from iqa_runtime.files import check_regular
from iqa_runtime.names import PARTS

if TYPE_CHECKING:
    import pandas as pd

TOO_LONG = re.compile(r'in line (\d+), saw (\d+)')  # in pandas' error for a row with too many cells
FORM = {'header': None, 'dtype': object, 'na_filter': False, 'skipinitialspace': True, 'skip_blank_lines': False,
        'index_col': False}  # read every cell as text, every line as a row
LARGEST = float(np.finfo(np.float32).max)
BEFORE = re.compile(r'"?sep=(?P<separator>.)"?\r?\n|#[^,;\t].*', re.DOTALL)  # a line before the header
CONTROL = re.compile(r'[\x00-\x1f\x7f-\x9f\u2028\u2029]')


@dataclass(frozen=True)
class Table:
    """The cells of a CSV file as text, by column, and the numbers of the rows, as in a spreadsheet (header: row 1)."""

    path: Path
    columns: dict[str, list[str]]
    rows: list[int]
    decimal: str = '.'

    @classmethod
    def read(cls, path: str | Path, header: Sequence[str] | None = None, separator: str | None = None) -> 'Table':
        """Read a CSV file; UserError if it is not a table.

        Lines before the header that begin with # are skipped. A row may have one separator more than the header, at
        its end.

        Args:
            path: the file.
            header: names of the columns, for a file without header.
            separator: separator of the cells (default: the most frequent of , ; and tab in the header, or the one that
                Excel's line `sep=;` before it names).
        """
        try:
            check_regular(path)
            with open(path, encoding='utf-8-sig', newline='') as file:
                skipped, found = (0, separator) if separator else _begin(file)
                names, cells = _cells(file, header, found, skipped)
        except UserError:
            raise
        except FileNotFoundError:
            raise UserError(f'{path}: no such file') from None
        except UnicodeDecodeError:
            raise UserError(f'{path}: not a text file in UTF-8; a spreadsheet saves one as "CSV UTF-8"') from None
        except (OSError, ValueError) as error:  # pandas' errors are ValueErrors
            long = TOO_LONG.search(str(error))
            raise UserError(f'{path} row {long[1]}: {long[2]} cells, more than the table has columns' if long else
                            f'{path}: not a table ({str(error).strip()})') from None
        for name in {name for name in names if names.count(name) > 1}:
            raise UserError(f'{path}: two columns are called {name!r}')
        cells = cells.loc[(cells != '').any(axis=1)]
        rows, excess = (cells.index + 1).tolist(), np.flatnonzero(cells[len(names)] != '')
        if len(excess):
            raise UserError(f'{path} row {rows[excess[0]]}: {len(names) + 1} cells in a table of {len(names)} columns')
        columns = {name: cells[i].tolist() for i, name in enumerate(names) if name}
        return cls(Path(path), columns, rows, '.' if found == ',' else ',')

    def needs(self, *names: str, hint: str = '') -> None:
        """Raise UserError if a column is missing; it lists the columns of the table and the expected ones."""
        lacks = [name for name in names if name not in self.columns]
        if lacks:
            raise UserError(f'{self.path}: lacks the column {", ".join(lacks)}; it has: '
                            f'{", ".join(self.columns) or "none"}; expected {", ".join(names)}{hint}')

    def numbers(self, column: str, empty: float | None = None, finite: bool = True) -> np.ndarray:
        """Return a column as (N,) float64; UserError that names the row if a cell is not a number.

        Args:
            column: name of the column.
            empty: value of empty cells; None: an empty cell is an error.
            finite: reject nan, infinity and numbers above MOST.
        """
        def number(text: str, row: int) -> float:
            if not text:
                if empty is None:
                    raise UserError(f'{self.path} row {row}: the {column} is empty')
                return empty
            value = self.number(text)
            if value is None or (finite and not abs(value) <= MOST):
                raise UserError(f'{self.path} row {row}: the {column} {text!r} is not a '
                                + ('finite number of usual size' if finite else 'number'))
            return value
        return np.array([number(*cell) for cell in zip(self.columns[column], self.rows, strict=True)], float)

    def number(self, text: str) -> float | None:
        """Return the number in a cell; None if it is not a number, as 1_000, which is a number only in Python."""
        try:
            return None if '_' in text else float(text.replace(self.decimal, '.'))
        except ValueError:
            return None

    def images(self, column: str = 'image') -> list[str]:
        """Return a column as file names with / between folders.

        Raises UserError that names the row if a name is empty, has a control character, or is an absolute path of
        another system.
        """
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

    def parts(self, column: str = 'part') -> list[str]:
        """Return a column of parts of a data set; UserError that names the row if a cell is not one of PARTS."""
        for text, row in zip(self.columns[column], self.rows, strict=True):
            if text not in PARTS:
                raise UserError(f'{self.path} row {row}: the part is {text!r}; expected one of: {", ".join(PARTS)}')
        return self.columns[column]

    def once(self, names: list[str], values: Sequence | None = None, what: str = '', hint: str = '') -> None:
        """Raise UserError if an image occurs twice, with the number of such images and their values, if given."""
        first: dict[str, int] = {}
        again = [(first[name], i) for i, name in enumerate(names) if first.setdefault(name, i) != i]
        if again:
            i, j = again[0]
            both = '' if values is None else (f', with the same {what} {values[i]:g}' if values[i] == values[j] else
                                              f', with the {what} {values[i]:g} and {values[j]:g}')
            more = f' ({len(again)} rows repeat an image)' if len(again) > 1 else ''
            raise UserError(f'{self.path} row {self.rows[j]}: {names[j]} again, first in row {self.rows[i]}'
                            f'{both}{more}{hint}')


def _begin(file: TextIO) -> tuple[int, str]:
    """Return the number of lines before the header, and the separator."""
    skipped, separator = 0, None
    line = file.readline()
    while before := BEFORE.fullmatch(line):
        skipped, separator = skipped + 1, before['separator'] or separator
        line = file.readline()
    return skipped, separator or max(',;\t', key=line.count)


def _cells(file: TextIO, header: Sequence[str] | None, separator: str, skipped: int
           ) -> tuple[list[str], 'pd.DataFrame']:
    """Return the names of the columns and the stripped cells below them, with one column more for excess cells.

    The index counts the rows of the file from 0 (a quoted cell may span lines), including the `skipped` lines before
    the header.
    """
    import pandas as pd  # slow to import, and not needed by --help
    form = {**FORM, 'sep': separator, 'skiprows': skipped}
    file.seek(0)
    try:
        names = list(header or pd.read_csv(file, nrows=1, **form).iloc[0].str.strip())
    except pd.errors.EmptyDataError:
        names = []
    file.seek(0)
    cells = pd.read_csv(file, names=range(len(names) + 1), **form)
    cells = cells.apply(lambda column: column.str.strip()).set_axis(cells.index + skipped)
    return names, cells if header else cells[1:]


def digits(value: float) -> str:
    """Format a score or an opinion for a table: 6 significant digits, rounded to float32; '' for nan.

    Networks compute in float32, so that further digits differ between machines.

    >>> digits(63.973449999)
    '63.9734'
    """
    if math.isnan(value):
        return ''
    carried = np.float32(value) if abs(value) <= LARGEST else value
    return f'{carried:.6g}'


def write_columns(path: str | Path, columns: Mapping[str, Sequence[str]]) -> None:
    """Write a table as CSV (UTF-8).

    Args:
        path: the file.
        columns: name of each column -> its cells, equally many.
    """
    import pandas as pd
    pd.DataFrame(columns, dtype=object).to_csv(path, index=False, lineterminator='\n')
