"""Read arrays and texts from MATLAB v7.3 files, which are HDF5, without following anything outside the file.

HDF5 can point to other files (external links, external storage, virtual data sets) and can declare arrays of any size
in a few bytes. Both are refused before anything is read.
"""
import math
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from iqa_runtime.errors import UserError, first_line

MOST = 1 << 25     # numbers in an array: KonIQ-10k's 1000 permutations are 10 million
LONGEST = 4096     # UTF-16 code units of a text
LARGEST = 1 << 20  # bytes of an attribute


@contextmanager
def mat_file(path: str | Path) -> Iterator['MatFile']:
    """Open a file for reading; UserError if it is not MATLAB v7.3, or if a part of it is not as expected."""
    import h5py  # only for this format
    if not Path(path).is_file():
        raise UserError(f'{path}: {"not a file" if Path(path).exists() else "no such info file"}')
    try:
        with h5py.File(path, 'r') as file:
            yield MatFile(file)
    except UserError:
        raise
    except Exception as error:  # h5py raises many kinds on a broken file
        reason = first_line(error)
        raise UserError(f'{path}: not a MATLAB v7.3 / HDF5 info file, or a broken one ({reason[:200]})') from None


class MatFile:
    """The arrays of an open file."""

    def __init__(self, file):
        self.file, self.keys = file, set(file)

    def numbers(self, key: str) -> np.ndarray:
        """Return a matrix of numbers in HDF5's order, the transpose of MATLAB's; UserError if it is no such matrix."""
        dataset = self._dataset(key)
        if len(dataset.shape or ()) != 2 or dataset.dtype.kind not in 'fiu':
            raise UserError(f'{key} is {dataset.dtype} of the shape {dataset.shape}, expected a matrix of numbers')
        if dataset.size > MOST:
            raise UserError(f'{key} is of the shape {dataset.shape}, expected at most {MOST} numbers')
        return dataset[()].astype(float)

    def row(self, key: str) -> np.ndarray:
        """Return the numbers of a (1, N) matrix."""
        matrix = self.numbers(key)
        if len(matrix) != 1:
            raise UserError(f'{key} is of the shape {matrix.shape}, expected (1, N)')
        return matrix[0]

    def whole(self, key: str) -> np.ndarray:
        """Return a matrix of whole numbers, int64."""
        matrix = self.numbers(key)
        odd = matrix[~((matrix == np.rint(matrix)) & (np.abs(matrix) < 1 << 53))]
        if odd.size:
            raise UserError(f'{key} holds {odd[0]:g}, expected whole numbers')
        return matrix.astype(np.int64)

    def texts(self, key: str, least: int = 1) -> list[str]:
        """Return the texts, of `least` characters or more, that a (1, N) cell array refers to."""
        import h5py
        dataset = self._dataset(key)
        if h5py.check_ref_dtype(dataset.dtype) is not h5py.Reference or (dataset.shape or (0,))[0] != 1 \
                or dataset.ndim != 2 or dataset.size > MOST:
            raise UserError(f'{key} is {dataset.dtype} of the shape {dataset.shape}, expected (1, N) references')
        return [self._text(reference, least, f'{key}, image {i}') for i, reference in enumerate(dataset[0], 1)]

    def attribute(self, name: str) -> str:
        """Return an attribute of the file; '' if it is missing or not a text."""
        import h5py
        if name not in self.file.attrs:
            return ''
        attribute = h5py.h5a.open(self.file.id, name.encode())
        if attribute.shape != () or attribute.get_storage_size() > LARGEST:
            return ''
        value = self.file.attrs[name]
        return value.decode('utf-8', 'replace') if isinstance(value, bytes) else value if isinstance(value, str) else ''

    def _dataset(self, key: str):
        import h5py
        if not isinstance(self.file.get(key, getlink=True), h5py.HardLink):
            raise UserError(f'{key} is a link to another place, which is not followed')
        dataset = self.file[key]
        if not isinstance(dataset, h5py.Dataset):
            raise UserError(f'{key} is a {type(dataset).__name__.lower()}, expected an array')
        _check_storage(dataset.id, key)
        return dataset

    def _text(self, reference, least: int, where: str) -> str:
        """Return the text that a reference points to, by h5py's low-level interface, ten times as fast."""
        import h5py
        dataset = h5py.h5r.dereference(reference, self.file.id) if reference else None
        kind = dataset.get_type() if isinstance(dataset, h5py.h5d.DatasetID) else None
        if kind is None or kind.get_class() != h5py.h5t.INTEGER or kind.get_size() != 2:
            raise UserError(f'{where}: expected a reference to a text')
        shape = dataset.shape
        if not shape or not least <= math.prod(shape) <= LONGEST:
            raise UserError(f'{where}: expected a text of {least} to {LONGEST} characters')
        _check_storage(dataset, where)
        units = np.empty(shape, '<u2')
        dataset.read(h5py.h5s.ALL, h5py.h5s.ALL, units)
        try:
            return units.tobytes().decode('utf-16-le')
        except UnicodeDecodeError:
            raise UserError(f'{where}: not a text in UTF-16') from None


def _check_storage(dataset, where: str) -> None:
    """Raise UserError if the numbers of a data set (h5py's low level) lie in another file."""
    import h5py
    if dataset.get_offset() is None:  # otherwise all of it lies in this file
        plist = dataset.get_create_plist()
        layout = plist.get_layout()
        if layout == h5py.h5d.VIRTUAL or (layout == h5py.h5d.CONTIGUOUS and plist.get_external_count()):
            raise UserError(f'{where}: its numbers lie in another file, which is not read')
