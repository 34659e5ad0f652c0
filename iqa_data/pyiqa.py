"""Read and write the files of the pyiqa toolbox: tables meta_info_NAME.csv and pickled splits, without executing code.

    meta_info_NAME.csv  a header, then a row per image: file and MOS, or for sets with references: reference, file, MOS;
                        optional columns: std, and the splits official_split or split, and
                        ratio802_seed123_split_01 ..., each with 0, 1, 2 or train, val, test
    NAME.pkl            {1: {'train': [rows], 'val': [rows], 'test': [rows]}, 2: ...}, rows of that table, from 0;
                        test may be absent
"""
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np

from iqa_runtime.errors import UserError
from iqa_runtime.files import replacing
from iqa_runtime.names import PARTS, cell
from iqa_runtime.tables import Table, write_columns

PART_NAMES = {'train': 'train', 'training': 'train', '0': 'train', 'val': 'val', 'validation': 'val', 'valid': 'val',
              'dev': 'val', '1': 'val', 'test': 'test', 'testing': 'test', '2': 'test'}
OFFICIAL = ('official_split', 'split')
NUMBERED = re.compile(r'ratio\d+_seed\d+_split_0*(\d+)')
PICKLES = ('.pkl', '.pickle')  # suffixes of pickled splits
SEED, SPLITS, SHARE = 123, 10, .8


def pyiqa_splits(n: int, seed: int = SEED) -> list[dict[str, list[int]]]:
    """Return pyiqa's ten splits of n rows, each {'train': rows, 'val': rows} in pyiqa's order.

    One generator shuffles the same list repeatedly; the first round(.8 n) rows of each shuffle are for training.
    """
    random, rows, splits = Random(seed), list(range(n)), []
    for _ in range(SPLITS):
        random.shuffle(rows)
        count = round(SHARE * n)
        splits.append({'train': rows[:count], 'val': rows[count:]})
    return splits


# Tables

def is_meta_info(path: str | Path) -> bool:
    """Return whether a file is named as pyiqa's tables are."""
    return Path(path).name.startswith('meta_info')


def of_meta_info(table: Table) -> Table:
    """Rename the columns of a pyiqa table to this project's: image, mos, and if present std, reference, part.

    Its numbered splits become the columns 'part 1', 'part 2', ...

    Raises UserError if neither the second nor the third column holds numbers.
    """
    names = list(table.columns)
    at = next((i for i in (1, 2) if i < len(names) and _begins_with_number(table, names[i])), None)
    if at is None:
        raise UserError(f'{table.path}: expected the columns file and MOS, or reference, file and MOS; found '
                        f'{", ".join(names) or "none"}')
    columns = {'image': names[at - 1], 'mos': names[at]}
    if at == 2:
        columns['reference'] = names[0]
    others = {name.lower(): name for name in reversed(names[at + 1:])}
    if 'std' in others:
        columns['std'] = others['std']
    parts = {f'part {found[1]}': others[name] for name in others if (found := NUMBERED.fullmatch(name))}
    official = [others[name] for name in OFFICIAL if name in others]
    if official:
        parts['part'] = official[0]
    return replace(table, columns={new: table.columns[old] for new, old in columns.items()} | {
        new: [PART_NAMES.get(cell.lower(), cell) for cell in table.columns[old]] for new, old in parts.items()})


def _begins_with_number(table: Table, column: str) -> bool:
    return table.number(next(iter(table.columns[column]), '')) is not None


def write_meta_info(path: str | Path, names: Sequence[str], mos: Sequence[float], std: Sequence[float]) -> None:
    """Write a table of images without references; the cell of a nan standard deviation is empty."""
    with replacing(path) as temporary:
        write_columns(temporary, {'img_name': [cell(name) for name in names], 'mos': [repr(float(m)) for m in mos],
                                  'std': ['' if np.isnan(s) else repr(float(s)) for s in std]})


# Pickled splits

class _NothingButData(pickle.Unpickler):
    """An unpickler that loads only dictionaries, lists, numbers and texts, and refuses every class or function."""

    def find_class(self, module: str, name: str):
        raise UserError(f'it asks for {module}.{name}')


def read_splits(path: str | Path) -> dict[int, dict[str, list[int]]]:
    """Read pickled splits as {number of the split: {part: rows}}, without executing any code.

    Raises UserError, which names the unexpected content, if the file holds anything else.
    """
    try:
        with open(path, 'rb') as file:
            content = _NothingButData(file).load()
    except OSError as error:
        raise UserError(f'{path}: cannot be read ({error.strerror or error})') from None
    except UserError as error:
        raise UserError(f'{path} refused: {error}; expected splits, which are dictionaries of lists of row numbers '
                        'alone') from None
    except Exception as error:  # damaged bytes make an unpickler raise almost anything
        raise UserError(f'{path}: not a file of splits ({type(error).__name__}: {str(error)[:80]})') from None
    found = _what_is_wrong(content)
    if found:
        raise UserError(f'{path}: expected a dictionary of splits 1, 2, ... each with rows of train, val and perhaps '
                        f'test; found {found}')
    return content


def _what_is_wrong(content) -> str:
    """Describe the first mistake in the content of a file of splits; '' if there is none."""
    if not isinstance(content, dict) or not content:
        return f'{type(content).__name__} {str(content)[:40]}'
    for number, split in content.items():
        if type(number) is not int or not isinstance(split, dict):
            return f'{str(number)[:40]!r}: {type(split).__name__}'
        for part, rows in split.items():
            if part not in PARTS or not isinstance(rows, list):
                return f'{str(part)[:40]!r}: {type(rows).__name__} in split {number}'
            strange = next((row for row in rows if type(row) is not int or row < 0), None)
            if strange is not None:
                return f'the row {str(strange)[:40]!r} in {part} of split {number}'
    return ''


def split_of(path: str | Path, number: int, n: int) -> dict[str, np.ndarray]:
    """Read a split of n images from pickled splits: {part: rows in ascending order}.

    Raises UserError if the split does not exist, or if it does not divide the rows 0 to n - 1.
    """
    splits = read_splits(path)
    if number not in splits:
        raise UserError(f'{path}: no split {number}; it has {", ".join(map(str, sorted(splits)))}')
    parts = {part: np.array(sorted(splits[number].get(part, ())), int) for part in PARTS}
    rows = np.sort(np.concatenate(list(parts.values())))
    if not np.array_equal(rows, np.arange(n)):
        twice = len(rows) - len(np.unique(rows))
        found = f'{len(rows)} rows up to {rows[-1]}' if len(rows) else 'no rows'
        raise UserError(f'{path}: split {number} names {found}' + (f', {twice} of them twice' if twice else '')
                        + f'; the data set has {n}, 0 to {n - 1}')
    return parts


def write_splits(path: str | Path, splits: Sequence[Mapping[str, Sequence[int]]]) -> None:
    """Write splits as pyiqa's training script reads them: plain dictionaries, lists and numbers."""
    content = {number: {part: [int(row) for row in rows] for part, rows in split.items()}
               for number, split in enumerate(splits, 1)}
    with replacing(path) as temporary, open(temporary, 'wb') as file:
        pickle.dump(content, file, protocol=2)
