"""Read the results of runs: metrics (NAME.json), predictions (NAME.csv), and the .npy files of the original."""
import math
import pickle
from pathlib import Path
from typing import NamedTuple

import numpy as np

from iqa_runtime.checks import dict_of, fields, flag, list_of, number, optional, plain, text, whole
from iqa_runtime.errors import UserError
from iqa_runtime.files import check_regular, read_json
from iqa_runtime.tables import Table

CLOSE = 1e-9  # relative difference of a number from predictions, which are written with all their digits
HEADS = ('pq', 'pq1', 'pq2')  # final, level 6, level 7


class Predictions(NamedTuple):
    """Predictions for N images in MOS units: arrays (N,) float64; `names` is None for a .npy file.

    `std` and `votes` are those of the ratings, nan where they are not known; `votes` is None if no image has them.
    """

    names: list[str] | None
    mos: np.ndarray
    std: np.ndarray
    pq: np.ndarray
    votes: np.ndarray | None = None

    def taking(self, rows: np.ndarray) -> 'Predictions':
        """Return the predictions of the images at some positions."""
        names = None if self.names is None else [self.names[i] for i in rows]
        return Predictions(names, *(None if values is None else values[rows] for values in self[1:]))


class Result(NamedTuple):
    """The content of a NAME.json: the metrics, the training options, the data set and its part."""

    path: Path
    metrics: dict
    options: dict
    tested: str
    part: str


class _ArraysOnly(pickle.Unpickler):
    """An unpickler that allows only numpy's own constructors of arrays and numbers."""

    ALLOWED = frozenset({('numpy', 'ndarray'), ('numpy', 'dtype'),
                         *((f'numpy.{core}.{module}', name) for core in ('core', '_core') for module, name in
                           (('multiarray', '_reconstruct'), ('multiarray', 'scalar'), ('numeric', '_frombuffer')))})

    def find_class(self, module: str, name: str):
        if (module, name) not in self.ALLOWED:
            raise UserError(f'it asks for {module}.{name}')
        return super().find_class(module, name)


def read_npy(path: str | Path) -> dict:
    """Read the dictionary of numbers and numeric arrays that the original saved with numpy.save.

    Nothing in the file is executed. Raises UserError if it holds anything but numbers, lists and numeric arrays, is
    damaged, or is not such a dictionary.
    """
    path = Path(path)
    try:
        check_regular(path)
        with open(path, 'rb') as file:
            version = np.lib.format.read_magic(file)
            read_header = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
            _, _, dtype = read_header[version](file)
            if not dtype.hasobject:
                raise UserError(f'an array of {dtype}')
            content = _ArraysOnly(file).load()
    except OSError as error:
        raise UserError(f'{path}: cannot be read: {error.strerror or error}') from None
    except UserError as error:
        raise UserError(f'{path} refused: {error}; expected a dictionary of numbers and numeric arrays') from None
    except Exception as error:  # damaged bytes make an unpickler raise almost anything
        raise UserError(f'{path}: damaged or not a .npy file ({type(error).__name__}: {str(error)[:80]})') from None
    content = content.item() if isinstance(content, np.ndarray) and content.shape == () else content
    if not isinstance(content, dict) or not all(isinstance(key, str) and _numeric(content[key]) for key in content):
        raise UserError(f'{path} refused: expected a dictionary of numbers and numeric arrays')
    return content


def _numeric(value) -> bool:
    if isinstance(value, (list, tuple)):
        return all(isinstance(item, (int, float, np.number)) for item in value)
    return isinstance(value, (int, float, np.number)) or (isinstance(value, np.ndarray) and value.dtype.kind in 'fiub')


def read_predictions(path: str | Path, head: str = 'pq') -> Predictions:
    """Read predictions from NAME.csv (columns name, mos, `head`, optionally std, votes) or the original's .npy file.

    Raises UserError for a missing column, no rows, a number that is not finite (a missing std is NaN), a name twice.
    """
    path = Path(path)
    if not path.is_file():
        raise UserError(f'{path} not found; test_dataset.py and main.py write such files')
    columns = _from_npy(path, head) if path.suffix.lower() == '.npy' else _from_csv(path, head)
    if not len(columns['mos']):
        raise UserError(f'{path}: no images in it')
    for column in ('mos', head):
        bad = ~np.isfinite(columns[column])
        if bad.any():
            raise UserError(f'{path}: {column} of image {int(np.argmax(bad)) + 1} is not a finite number')
    return Predictions(columns.get('name'), columns['mos'], columns['std'], columns[head], columns.get('votes'))


def _from_npy(path: Path, head: str) -> dict:
    content = read_npy(path)
    missing = [key for key in ('sq', 'sq_std', head) if key not in content]
    if missing:
        raise UserError(f'{path}: has {", ".join(content) or "nothing"}; lacks {", ".join(missing)}')
    columns = {name: np.ravel(content[key]).astype(float) for name, key in
               (('mos', 'sq'), ('std', 'sq_std'), (head, head))}
    if len({len(column) for column in columns.values()}) > 1:
        raise UserError(f'{path}: arrays of different lengths: ' +
                        ', '.join(f'{name} {len(column)}' for name, column in columns.items()))
    return columns


def _from_csv(path: Path, head: str) -> dict:
    table = Table.read(path)
    table.needs('name', 'mos', head)
    names = table.images('name')
    table.once(names)
    std = table.numbers('std', math.nan) if 'std' in table.columns else np.full(len(names), math.nan)
    votes = {'votes': table.numbers('votes', math.nan)} if 'votes' in table.columns else {}
    return {'name': names, 'mos': table.numbers('mos'), 'std': std, head: table.numbers(head), **votes}


def metric(value) -> float:
    """Return a metric; one that is not defined is null in the file (older files: NaN), and nan here."""
    return math.nan if value is None or (isinstance(value, float) and math.isnan(value)) else number(value)


OPTIONAL = {'split_hash': None, 'versions': {}, 'parameters': {}, 'images': None, 'run_name': '', 'trained_on': '',
            'k': None, 'b': None, 'mapping': 'linear', 'val': {}, 'reversed': False}
_summary = fields(metrics=dict_of(metric), options=dict_of(plain), dataset=text, part=text, split_hash=optional(text),
                  versions=dict_of(text), parameters=dict_of(whole), images=optional(whole), run_name=text,
                  trained_on=text, k=optional(list_of(metric)), b=optional(list_of(metric)), mapping=text,
                  val=dict_of(metric), reversed=flag)


def read_summary(path: Path) -> dict:
    """Read a NAME.json of main.py or test_dataset.py: metrics, options, dataset (tested), part, and OPTIONAL."""
    def check(content) -> dict:
        return _summary({**OPTIONAL, **content} if isinstance(content, dict) else content)
    return read_json(path, check, 'the results of a test')


def metrics_of(path: Path) -> dict[str, float]:
    """Return the metrics in a NAME.json, by name; empty if the file does not exist."""
    return read_summary(path)['metrics'] if path.exists() else {}


def read_results(result_dir: str | Path) -> list[Result]:
    """Read every NAME.json of a folder, the newest first; a folder that does not exist has none."""
    files = (path for path in Path(result_dir).glob('*.json') if path.is_file())
    paths = sorted(files, key=lambda path: path.stat().st_mtime, reverse=True)
    found = [(path, read_summary(path)) for path in paths]
    return [Result(path, *(content[name] for name in ('metrics', 'options', 'dataset', 'part')))
            for path, content in found]
