"""List the states, locks and caches that runs leave on the disk, and remove them on request.

    python iqa_training/clean.py                            list them, with sizes
    python iqa_training/clean.py --remove states locks      remove the files of some kinds

states: states of finished runs; unfinished: states from which stopped runs resume; locks: lock files that no process
holds; caches: decoded images and features, which the next run computes again. Files in use are not removed.
"""
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_runtime.option_types import among, choice
from iqa_runtime.options import Add, Command, Options, group

KINDS = ('states', 'unfinished', 'locks', 'caches')


@group('clean', 'the folders, and the kinds of files to remove')
def clean(add: Add) -> None:
    add('--remove', nargs='+', type=choice(KINDS, 'kind of files'), metavar=among(KINDS), default=[],
        help='kinds of files to remove')
    add('--checkpoint_dir', metavar='DIR', default='checkpoints', help='folder of the checkpoints')
    add('--log_dir', metavar='DIR', default='runs', help="folder of the runs' logs")
    add('--cache_dir', metavar='DIR', default='cache', help='folder of the decoded images')


CLEAN = Command(__doc__, [clean])

if __name__ == '__main__':
    CLEAN.begin()  # --help and mistakes end here, before torch is imported

from iqa_runtime.checkpoint import load_checkpoint
from iqa_runtime.errors import UserError, command
from iqa_runtime.files import locked
from iqa_runtime.names import path_text


def found(args: Options) -> dict[str, list[Path]]:
    """Return the files of each kind."""
    checkpoints, cache = Path(args.checkpoint_dir), Path(args.cache_dir)
    states = sorted(checkpoints.glob('*.pth.*.state'))
    finished = {path: is_finished(path) for path in {checkpoint_of(state) for state in states}}
    return {'states': [state for state in states if finished[checkpoint_of(state)]],
            'unfinished': [state for state in states if not finished[checkpoint_of(state)]],
            'locks': sorted([*checkpoints.glob('*.lock'), *Path(args.log_dir).glob('*/.lock'), *cache.glob('*.lock')]),
            'caches': sorted(path for path in cache.glob('*') if path.suffix != '.lock' and path.is_file())}


def checkpoint_of(state: Path) -> Path:
    """Return the checkpoint of the run that a state belongs to."""
    return state.with_name(state.name.rsplit('.', 2)[0])


def is_finished(checkpoint: Path) -> bool:
    """Return whether a checkpoint belongs to a finished run; False if it is missing or broken."""
    try:
        return bool(load_checkpoint(checkpoint).get('finished'))
    except UserError:
        return False


def lock_of(kind: str, path: Path) -> Path:
    """Return the path of the lock that a process holds while it uses a file."""
    return {'locks': path, 'caches': path.with_suffix('.lock')}.get(kind, Path(f'{checkpoint_of(path)}.lock'))


def lines(files: Mapping[str, list[Path]]) -> Iterator[str]:
    """Yield for each kind a line with the number and size of its files, then a line per file."""
    for kind, paths in files.items():
        sizes = [path.stat().st_size for path in paths]
        yield f'{kind}: {len(paths)} files, {sum(sizes) / 1e6:.1f} MB'
        yield from (f'  {size / 1e6:8.1f} MB  {path_text(path)}' for path, size in zip(paths, sizes, strict=True))


def remove(kind: str, path: Path) -> bool:
    """Remove a file, unless a process uses it; return whether it was removed."""
    try:
        with locked(lock_of(kind, path)):  # this removes the lock file itself
            path.unlink(missing_ok=True)
    except UserError as error:
        print(f'{path_text(path)} is left: {error}', file=sys.stderr)
        return False
    return True


@command
def main(argv: list[str] | None = None) -> None:
    """List the files, or remove the files of the kinds in --remove."""
    args = CLEAN.parse(argv)
    files = found(args)
    if not args.remove:
        print(*lines(files), sep='\n')
    for kind in dict.fromkeys(args.remove):
        sizes = {path: path.stat().st_size for path in files[kind]}
        removed = [path for path in files[kind] if remove(kind, path)]
        print(f'{kind}: {len(removed)} files removed, {sum(map(sizes.get, removed)) / 1e6:.1f} MB')


if __name__ == '__main__':
    main()
