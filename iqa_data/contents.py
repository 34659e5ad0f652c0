"""Compare the contents of several data sets: no set may train on a content that another is validated or tested on."""
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from iqa_data.datasets import Source
from iqa_data.info import Info, read_info
from iqa_runtime.errors import UserError, one_line
from iqa_runtime.files import sha256


@dataclass(frozen=True)
class Contents:
    """The images of a data set and their contents; `parts`: {'train', 'val', 'test'} -> positions in `info`."""

    name: str
    source: Source
    info: Info
    parts: Mapping[str, np.ndarray]

    @classmethod
    def of(cls, name: str, source: Source, rows: Callable[[Info], Mapping[str, np.ndarray]]) -> 'Contents':
        """Return the contents of a data set whose parts are `rows(info)`."""
        info = read_info(source.info)
        return cls(name, source, info, rows(info))

    def rows(self, parts: Sequence[str]) -> list[int]:
        """Return the positions of the images of some parts."""
        return [int(i) for part in parts if part in self.parts for i in self.parts[part]]

    def files(self, rows: Sequence[int]) -> set[Path]:
        """Return the existing files of images and of their references."""
        folder = self.source.ref_dir or self.source.im_dir
        files = {Path(self.source.im_dir, self.info.names[i]) for i in rows}
        files |= {Path(folder, self.info.references[i]) for i in rows if self.info.references}
        return {file for file in files if file.is_file()}

    def named(self, rows: Sequence[int]) -> set[str]:
        """Return the names of contents, without numbers and files of references, which are compared as files."""
        folder = self.source.ref_dir or self.source.im_dir
        names = {self.info.contents[i] for i in rows} if self.info.contents else set()
        return {name for name in names if name and not name.isdecimal() and not Path(folder, name).is_file()}


def check_apart(sets: Sequence[Contents]) -> None:
    """Raise UserError if a content that one data set trains with is in the val or test part of another.

    Contents are the same if their names are, or if the files of the images or of the references hold the same bytes.
    A plain number names a content within its own set only.
    """
    for one in sets:
        for other in (other for other in sets if other is not one):
            if shared := sorted(shared_contents(one, one.rows(['train']), other, other.rows(['val', 'test']))):
                raise UserError(f'{len(shared)} contents are in the train part of {one.name} and in the val or test '
                                f'part of {other.name}, as {one_line(shared[0])}: columns part of both info files can '
                                'keep them apart')


def shared_contents(one: Contents, rows: Sequence[int], other: Contents, others: Sequence[int]) -> Iterator[str]:
    """Yield the contents that images of two data sets share."""
    yield from one.named(rows) & other.named(others)
    known = same_files(other.files(others))
    yield from (str(file) for file in one.files(rows) if known(file))


def same_files(paths: Sequence[Path]) -> Callable[[Path], bool]:
    """Return a function that tests whether a file is one of these, by path or, if the sizes are equal, by content."""
    real, sizes = set(map(os.path.realpath, paths)), {}
    for path in filter(Path.is_file, paths):
        sizes.setdefault(path.stat().st_size, []).append(path)
    contents: dict[int, set[bytes]] = {}

    def known(path: Path) -> bool:
        if os.path.realpath(path) in real:
            return True
        size = path.stat().st_size if path.is_file() else None
        if size not in sizes:
            return False
        if size not in contents:
            contents[size] = {sha256(other) for other in sizes[size]}
        return sha256(path) in contents[size]
    return known
