"""Write files atomically, lock them, check that outputs overwrite no inputs, and read text, JSON and YAML files."""
import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

from iqa_runtime.errors import UserError, needed
from iqa_runtime.names import path_text

ROOT = Path(__file__).resolve().parents[1]  # folder of the toolkit: a clone, or linearity_iqa/toolkit where installed
Paths = str | Path | Sequence[str | Path] | None
LARGEST_YAML = 1 << 18  # bytes of a file, and characters of its content with aliases written out


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Turn an OSError into a UserError that names the file being written; BrokenPipeError is re-raised."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise UserError(f'cannot write {path_text(path)}: {error.strerror or error}') from error


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Replace a file atomically: yield the path of a temporary file, which takes the place of `path` on success.

    The temporary file is in the same folder, and is flushed to disk before it replaces the file. A symbolic link is
    followed: its target is replaced. A device or a pipe is written to. On an error, the previous file stays unchanged
    and the temporary file is removed. OSError becomes a UserError.
    """
    with writing(path):
        device = open_device(path)
        if device:
            with device, tempfile.TemporaryDirectory() as folder:
                temporary = Path(folder, 'content')
                yield temporary
                with open(temporary, 'rb') as content:
                    shutil.copyfileobj(content, device)
            return
        target = Path(os.path.realpath(path))
        if target.is_symlink():
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = _temporary_beside(target)
        try:
            yield temporary
            with open(temporary, 'rb+') as file:
                os.fsync(file.fileno())
            os.replace(temporary, target)
            _flush_folder(target.parent)
        finally:
            temporary.unlink(missing_ok=True)


def _temporary_beside(target: Path) -> Path:
    """Create the empty file .NAME.RANDOM.tmp for `target`, with its mode if it exists; a long NAME becomes a digest."""
    name = os.fsencode(target.name)
    known = target.name if len(name) <= 200 else hashlib.sha256(name).hexdigest()  # file systems allow 255 bytes
    path = target.with_name(f'.{known}.{secrets.token_hex(8)}.tmp')
    path.open('xb').close()
    with suppress(FileNotFoundError):
        shutil.copymode(target, path)
    return path


def remove_left_over(folder: Path, owns: Callable[[str], bool]) -> None:
    """Remove the temporary files that killed processes left in a folder, of files that no other process writes now.

    Args:
        folder: the folder of the files.
        owns: whether the caller alone writes the file of a name, as the process that holds a lock does.
    """
    with suppress(OSError):  # a temporary file that cannot be removed does no harm
        for path in list(folder.iterdir()):
            parts = re.fullmatch(r'\.(.+)\.[0-9a-f]{16}\.tmp', path.name, re.DOTALL)
            if parts and owns(parts[1]):
                path.unlink(missing_ok=True)


def _flush_folder(folder: Path) -> None:
    """Flush a folder to disk, so that a new name in it survives a power failure, on systems that support it."""
    with suppress(OSError):
        number = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(number)
        finally:
            os.close(number)


def open_device(path: str | Path) -> BinaryIO | None:
    """Open a device or a pipe, or the file that is this process's stdout or stderr; None for any other path."""
    if not is_device(path):
        return None
    for number, stream in ((1, sys.stdout), (2, sys.stderr)):
        if _is_open_as(number, os.stat(path)):
            stream.flush()
            return os.fdopen(os.dup(number), 'wb')  # continues at the stream's position: overwrites no printed text
    return open(path, 'wb')


def is_device(path: str | Path) -> bool:
    """Return whether a path cannot be replaced: it is no regular file, or is this process's stdout or stderr."""
    try:
        status = os.stat(path)
    except OSError:
        return False
    return not stat.S_ISREG(status.st_mode) or _is_open_as(1, status) or _is_open_as(2, status)


def _is_open_as(number: int, status: os.stat_result) -> bool:
    try:
        return os.path.samestat(status, os.fstat(number))
    except OSError:
        return False


# Checking outputs

def check_outputs(outputs: Mapping[str, Paths], inputs: Mapping[str, Paths] | None = None) -> None:
    """Raise UserError if an output would overwrite an input or another output, or cannot be written.

    Files are compared by identity, not by name, since links give a file several names. Devices are not compared.

    Args:
        outputs: option as typed -> file or files to be written, or None.
        inputs: option as typed -> file or files to be read, or None; missing files are ignored.
    """
    written: dict[object, str] = {}
    for name, path in _named(outputs):
        with writing(path):
            _check_place(name, path)
            if is_device(path):
                continue
        key = identity(path) or os.path.realpath(path)
        if key in written:
            raise UserError(f'{name} would overwrite {written[key]}: name another file')
        written[key] = name
    for name, path in _named(outputs):
        for folder in Path(os.path.realpath(path)).parents:
            if str(folder) in written:
                raise UserError(f'{name} needs a folder where {written[str(folder)]} is a file: name another file')
    if any(isinstance(key, tuple) for key in written):  # otherwise no existing file is written
        for name, path in _named(inputs or {}):
            if identity(path) in written:
                raise UserError(f'{written[identity(path)]} would overwrite {name}: name another file')


def _named(options: Mapping[str, Paths]) -> Iterator[tuple[str, str | Path]]:
    """Yield the option with its value, for error messages, and the path of each file."""
    for option, paths in options.items():
        for path in [paths] if isinstance(paths, (str, Path)) else paths or ():
            yield f'{option} {path_text(path)}', path


def identity(path: str | Path) -> tuple[int, int] | None:
    """Return the identity of a file, the same under all its names; None if it does not exist."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return None
    return status.st_dev, status.st_ino


def same_file(one: str | Path, other: str | Path) -> bool:
    """Return whether two paths lead to the same existing file, however they are written."""
    return identity(one) is not None and identity(one) == identity(other)


def _check_place(name: str, path: str | Path) -> None:
    """Raise UserError if a file cannot be written because of its folder."""
    if os.path.isdir(path):
        raise UserError(f'{name} is a folder; expected a file')
    folder = Path(os.path.realpath(path)).parent
    while not folder.exists():
        folder = folder.parent
    if not folder.is_dir():
        raise UserError(f'{name} cannot be written: {path_text(folder)} is not a folder')
    if not os.access(folder, os.W_OK) and not is_device(path):
        raise UserError(f'{name} cannot be written: no permission in {path_text(folder)}')


@contextmanager
def locked(path: str | Path, wait: bool = False) -> Iterator[None]:
    """Hold the lock file `path`; the system releases it when the process ends for any reason.

    Forked processes do not hold it. Raises UserError if another process holds it and `wait` is false. The file is
    removed before it is released: filelock lets a process that waited for a removed file try again.
    """
    path = Path(path)
    lock = FileLock(path, timeout=-1 if wait else 0)
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire()
        except Timeout:
            raise UserError(f'another process holds {path_text(path)}: it does the same work') from None
    try:
        yield
    finally:
        with suppress(OSError):
            path.unlink()
        lock.release()


def write_text(path: str | Path, text: str) -> None:
    """Write `text` (UTF-8) to `path` atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding='utf-8')


def read_text(path: str | Path, most: int = 1 << 24) -> str:
    """Read a text file (UTF-8); UserError if it cannot be read, is not UTF-8, or is larger than `most` bytes."""
    try:
        with open(path, 'rb') as file:
            content = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: the path is impossible, such as one with a null character
        raise UserError(f'{path}: cannot be read ({getattr(error, "strerror", None) or error})') from None
    if len(content) > most:
        raise UserError(f'{path}: larger than {most} bytes')
    try:
        return content.decode('utf-8-sig')
    except UnicodeDecodeError:
        raise UserError(f'{path}: not a text in UTF-8') from None


def read_json(path: str | Path, check: Callable, what: str):
    """Read a JSON file and return check(content); UserError that names the file and the expected content.

    Args:
        path: the file.
        check: content -> the value to return; it raises ValueError or TypeError (see iqa_runtime/checks.py).
        what: noun for the expected content, for the error message.
    """
    try:
        return check(json.loads(read_text(path)))
    except UserError:
        raise
    except (ValueError, TypeError, OverflowError, RecursionError) as error:
        raise UserError(f'{path}: expected {what}: {str(error)[:200]}') from None


def read_yaml(path: str | Path):
    """Return the content of a YAML file, plain values only; UserError if it is not YAML, or holds other values."""
    return parse_yaml(read_text(path, LARGEST_YAML), str(path))


def parse_yaml(text: str, where: str):
    """Return the content of a YAML text, plain values only; UserError that names `where`, as `read_yaml`."""
    yaml = needed('yaml', 'pyyaml', f'{where}: reading YAML')
    try:
        loader = yaml.SafeLoader(text)
        _written_out(yaml.compose(text, yaml.SafeLoader), {}, loader.construct_object)
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        place = f' line {error.problem_mark.line + 1}' if error.problem_mark else ''
        raise UserError(f'{where}{place}: no YAML: {error.problem}') from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f'{where}: no YAML: {str(error)[:200]}') from None


def _written_out(node, sizes: dict[int, int], value_of: Callable) -> int:
    """Return the number of characters of a node with its aliases written out.

    Raises ValueError if they are more than LARGEST_YAML, as in a node that contains itself, or if two keys of a mapping
    are equal, such as `yes` and `true`: YAML would silently take the last.
    """
    if id(node) in sizes:
        return sizes[id(node)]
    if not isinstance(getattr(node, 'value', None), list):
        return 1 + len(getattr(node, 'value', ''))
    sizes[id(node)] = LARGEST_YAML  # until it is known
    keys, size = set(), 1
    for item in node.value:
        size += sum(_written_out(child, sizes, value_of) for child in (item if isinstance(item, tuple) else (item,)))
        if size > LARGEST_YAML:
            raise ValueError(f'with its aliases written out, it has more than {LARGEST_YAML} characters')
        if isinstance(item, tuple) and isinstance(item[0].value, str):
            key = '<<' if item[0].tag.endswith(':merge') else value_of(item[0])
            if key in keys:
                raise ValueError(f'the key {item[0].value!r} twice (line {item[0].start_mark.line + 1})')
            keys.add(key)
    sizes[id(node)] = size
    return size


def sha256(path: str | Path) -> bytes:
    """Return the SHA-256 of a file, 32 bytes; OSError if it cannot be read."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.digest()


def check_regular(path: str | Path) -> None:
    """Raise UserError if a path is a folder, or a pipe or a device, reading from which may never end."""
    mode = os.stat(path).st_mode
    if not stat.S_ISREG(mode):
        found = 'a folder' if stat.S_ISDIR(mode) else 'a named pipe' if stat.S_ISFIFO(mode) else 'a device'
        raise UserError(f'{path_text(path)}: expected a file, found {found}')
