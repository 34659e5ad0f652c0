"""Find data sets by the names or paths that users give, and suggest the nearest ones for a mistake."""
from pathlib import Path

from iqa_data.datasets import DATASETS, SUFFIXES, sets_of
from iqa_data.info import read_info
from iqa_runtime.errors import UserError, pick
from iqa_runtime.names import plain_path

SHEETS = ('.xlsx', '.xls', '.ods')
MOST_BESIDE = 30  # files beside a missing info file that are read, to name those that are info files


def find_dataset(name: str) -> str:
    """Return the canonical name of a data set in DATASETS, or the path of an info file; UserError for any other."""
    path = Path(name)
    if path.suffix.lower() in SUFFIXES and path.is_file():
        return plain_path(name)
    if path.is_dir() and not any(path.name.lower() == known.lower() for known in DATASETS):
        raise UserError(f'{name} is a folder; expected an info file, a table of its images with the columns image and '
                        'mos')
    if path.suffix.lower() in SHEETS and path.is_file():
        raise UserError(f'{name} is a spreadsheet: save it as .csv, with the columns image and mos')
    beside = [file for suffix in SUFFIXES for file in path.parent.glob(f'*{suffix}')] if path.suffix else []
    readable = [str(file) for file in sorted(beside)[:MOST_BESIDE] if is_info(file)]
    try:
        return pick([*DATASETS, *readable[:10]], name, 'data set')
    except UserError as error:
        reason = f'{error}, or an existing info file ({", ".join(SUFFIXES)})'
    if path.suffix.lower() in SUFFIXES:
        reason = reason.replace(f'unknown data set {name!r}', f'{name}: no such file', 1)
    raise UserError(reason)


def is_info(path: Path) -> bool:
    """Return whether a file reads as an info file."""
    try:
        read_info(path)
    except UserError:
        return False
    return True


def find_datasets(names: str) -> str:
    """Return one or several data sets, with + between them, each as `find_dataset` returns it; UserError as there."""
    return '+'.join(map(find_dataset, sets_of(names)))
