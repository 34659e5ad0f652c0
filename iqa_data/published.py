"""The files that the authors of a data set publish: found in a folder, with the SHA-256 of each that was read."""
import hashlib
from dataclasses import replace
from pathlib import Path

from iqa_runtime.errors import UserError
from iqa_runtime.tables import Table


class Folder:
    """The published files: finds them in a folder, or is one file, and keeps the SHA-256 of each that was read."""

    def __init__(self, source: Path):
        self.source, self.read = source, []
        if not source.exists():
            raise UserError(f'--source {source}: no such folder')

    def find(self, *patterns: str, optional: bool = False) -> list[Path]:
        """Return the files of the first pattern that fits, in the folder or one below it; UserError if none does."""
        candidates = [self.source] if self.source.is_file() else sorted(
            path for depth in ('*', '*/*') for path in self.source.glob(depth) if path.is_file())
        for pattern in patterns:
            paths = [path for path in candidates if path.match(pattern)]
            if paths:
                self.read += paths
                return paths
        if optional:
            return []
        raise UserError(f'--source {self.source}: found no {" or ".join(patterns)}')

    def file(self, name: str) -> Path:
        """Return the file of this name below the folder; UserError if there is none."""
        path = self.source / name
        if not path.is_file():
            raise UserError(f'--source {self.source}: found no {name}')
        self.read.append(path)
        return path

    def sha256(self) -> dict[str, str]:
        """Return the digest of each file that was found, by its path in the folder."""
        return {path.relative_to(self.source.parent if path == self.source else self.source).as_posix():
                hashlib.sha256(path.read_bytes()).hexdigest() for path in self.read}

    def table(self, *patterns: str, **options) -> Table:
        """Return the first table that fits."""
        return Table.read(self.find(*patterns)[0], **options)

    def names_below(self, folder: str) -> dict[str, str]:
        """Return, for each file below a folder of this folder: its name in lower case -> its path relative to that."""
        below = self.source / folder
        return {path.name.lower(): path.relative_to(below).as_posix() for path in sorted(below.rglob('*'))
                if path.is_file()}


def renamed(table: Table, **columns: str) -> Table:
    """Return these columns of a table: renamed(table, image='image_name', ...); UserError if one is missing."""
    table.needs(*columns.values())
    return replace(table, columns={new: table.columns[old] for new, old in columns.items()})
