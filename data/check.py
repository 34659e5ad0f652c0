"""Check a data set before hours of training: read every image and every score.

    python data/check.py KonIQ-10k --resize
    python data/check.py my.csv --im_dir photographs --split reference --json report.json

Exit status 1 if something would spoil a training run (an `error` in the report), 0 otherwise.
"""
import sys
from pathlib import Path

if not __package__:  # run as a script
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from iqa_data.options import dataset, preprocessing
from iqa_data.options import split as split_group
from iqa_runtime.options import Command, Options, group


@group('check', 'the data set that is examined')
def examined(add) -> None:
    add('dataset', type=dataset, metavar='DATASET', help='as --dataset of main.py: a name or info file')
    add('--im_dir', metavar='DIR', help="folder of the data set's images (default: as in main.py)")
    add('--ref_dir', metavar='DIR', help='folder of its reference images (default: that of the images)')
    add('--data_info', metavar='FILE', help='info file to use instead of the named data set\'s own')
    add('--cache_dir', metavar='DIR', default='cache', help='where main.py would keep decoded images')
    add('--lower_is_better', action='store_true', help='the scores fall with quality, as DMOS do')
    add('--json', nargs='?', const='-', metavar='FILE', help='the report as JSON in FILE, or instead of the table')


CHECK = Command(__doc__, [examined, split_group, preprocessing])

if __name__ == '__main__':
    CHECK.begin()  # --help and mistakes end here, before torch is imported

import contextlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from tqdm import tqdm

from iqa_data.cache import hint_of_missing
from iqa_data.datasets import Source, dataset_name, named_source, require
from iqa_data.info import Info, read_info
from iqa_data.look import Seen, guess_direction, look, weakest
from iqa_data.splits import choose, shared_contents, shared_scenes
from iqa_data.transforms import preprocess_of
from iqa_runtime.errors import UserError, command, one_line
from iqa_runtime.files import check_outputs, write_text
from iqa_runtime.process import memory
from iqa_runtime.split_file import split_hash
from IQAdataset import plan_of

LEVELS = ('ok', 'note', 'warning', 'error')
NEAR = 3                 # most bits of 64 in which the hashes of near-duplicates differ
ALIKE = .8               # least correlation of their colours: above .9 of versions of one image, below .5 of strangers
STD_SHARE = (.03, .5)    # of the range of MOS, in which the median std of opinions is expected
Finding = tuple[str, str]


@dataclass
class Case:
    """A data set under examination; `parts` is empty if it cannot be split, and `trouble` says why."""

    args: Options
    source: Source
    info: Info
    seen: list[Seen]
    parts: dict[str, np.ndarray]
    trouble: str = ''
    notes: str = ''

    @property
    def part_of(self) -> np.ndarray:
        """Return (N,) the number of the part that an image is in, -1 if it is in no part."""
        part = np.full(len(self.info.names), -1)
        for i, rows in enumerate(self.parts.values()):
            part[rows] = i
        return part


# Checks: a case -> findings (level, text)

def images(case: Case) -> Iterator[Finding]:
    """Find images that are missing, cannot be read, or are named twice."""
    bad = [f'{name} ({seen.error})' for name, seen in zip(case.info.names, case.seen, strict=True) if seen.error]
    twice = [name for name, n in Counter(case.info.names).items() if n > 1]
    if bad:
        hint = hint_of_missing([Path(case.source.im_dir, name) for name in case.info.names])
        yield 'error', f'{len(bad)} of {len(case.seen)} cannot be read in {case.source.im_dir}: {some(bad)}{hint}'
    if twice:
        yield 'error', f'{len(twice)} names occur more than once: {some(twice)}'
    if not bad and not twice:
        yield 'ok', f'all {len(case.seen)} can be read'


def sizes(case: Case) -> Iterator[Finding]:
    """Count the sizes and modes of the images."""
    found = Counter(seen.size for seen in case.seen if not seen.error)
    listed = ', '.join(f'{n} of {w}x{h}' for (h, w), n in found.most_common(3)) + (', ...' if len(found) > 3 else '')
    preprocess = preprocess_of(case.args, case.source)
    if len(found) > 1 and not (preprocess.resize or preprocess.first_resize or case.args.augmentation):
        yield 'warning', f'{len(found)} sizes ({listed}): training needs --resize or --augmentation crop'
    else:
        yield 'ok', f'width x height: {listed or "none"}'
    other = Counter(seen.mode for seen in case.seen if seen.mode not in ('', 'RGB'))
    if other:
        yield 'note', ', '.join(f'{n} of mode {mode}' for mode, n in other.most_common()) + ': converted to RGB'


def duplicates(case: Case) -> Iterator[Finding]:
    """Find images whose files are identical."""
    groups: dict[bytes, list[int]] = {}
    for i, seen in enumerate(case.seen):
        if not seen.error:
            groups.setdefault(seen.digest, []).append(i)
    same = [rows for rows in groups.values() if len(rows) > 1]
    across = [rows for rows in same if len(set(case.part_of[rows].tolist())) > 1]
    differ = [rows for rows in same if np.ptp(case.info.mos[rows])]
    for level, what, found in (('error', 'in more than one part', across), ('warning', 'with different MOS', differ)):
        if found:
            yield level, f'{len(found)} images occur more than once, {what}: {pairs(case, found)}'
    if same and not across:
        yield 'warning', f'{len(same)} images occur more than once: {pairs(case, same)}'
    if not same:
        yield 'ok', 'no two files are the same'


def near_duplicates(case: Case) -> Iterator[Finding]:
    """Find different images that look nearly the same but have different contents."""
    rows = np.array([i for i, seen in enumerate(case.seen) if seen.bits is not None], int)
    if len(rows) < 2:
        return
    content = case.info.ref_ids[rows]
    file = np.unique([case.seen[i].digest for i in rows], return_inverse=True)[1]
    part, signs = case.part_of[rows], np.array([case.seen[i].bits for i in rows], np.float32) * 2 - 1
    colours = np.array([case.seen[i].colours for i in rows])
    n = across = 0
    examples: list[list[int]] = []
    for start in range(0, len(rows), 512):
        block = slice(start, start + 512)
        near = signs[block] @ signs[start:].T >= 64 - 2 * NEAR  # 64 - 2 x the bits that differ
        near &= colours[block] @ colours[start:].T >= ALIKE
        near &= (content[block, None] != content[start:]) & (file[block, None] != file[start:])
        first, second = np.nonzero(np.triu(near, 1))
        n, crossing = n + len(first), part[start + first] != part[start + second]
        across += int(crossing.sum())
        order = np.argsort(~crossing, kind='stable')[:3]
        examples += [[rows[start + first[i]], rows[start + second[i]]] for i in order]
    examples.sort(key=lambda pair: case.part_of[pair[0]] == case.part_of[pair[1]])
    if n:
        hint = ' (is the reference column missing?)' if across > len(rows) / 10 else ''
        yield ('warning' if across else 'note'), (f'{n} pairs look nearly the same, {across} of them in different parts'
                                                  f'{hint}: {pairs(case, examples)}')
    else:
        yield 'ok', f'no two {case.info.units} look nearly the same'


def scores(case: Case) -> Iterator[Finding]:
    """Check that the MOS differ."""
    mos = case.info.mos
    level, more = ('error', ': all the same, nothing can be learned') if np.ptp(mos) == 0 else ('ok', '')
    yield level, (f'{mos.min():.4g} to {mos.max():.4g}, mean {mos.mean():.4g}, {len(np.unique(mos))} different'
                  f'{more}')


def direction(case: Case) -> Iterator[Finding]:
    """Guess from sharpness and noise whether the scores rise with quality."""
    good = [i for i, seen in enumerate(case.seen) if not seen.error]
    mos = case.info.mos[good]
    higher = case.info.higher_is_better and not case.args.lower_is_better
    stated = f'higher is {"better" if higher else "worse"}, as the info file or --lower_is_better says'
    if len(good) < 20 or np.ptp(mos) == 0:
        yield 'note', f'{stated}; too little to guess from'
        return
    rho = guess_direction([case.seen[i] for i in good], mos)
    guess = f'rank correlation {rho:+.2f} of MOS with sharpness less half the noise'
    if abs(rho) < weakest(len(good)):
        yield 'note', f'{stated}; too weak to guess from: {guess}'
    elif (rho > 0) == higher:
        yield 'ok', f'{stated}; so does a guess: {guess}'
    else:
        yield 'warning', (f'{stated}, but a guess says the opposite: {guess}; look at the best and the worst images'
                          f'{", or give --lower_is_better" if higher else ""}')


def opinions(case: Case) -> Iterator[Finding]:
    """Check that the standard deviations of the opinions are on the scale of the MOS."""
    std, span = case.info.std[np.isfinite(case.info.std)], np.ptp(case.info.mos)
    if len(std) < len(case.info.std):
        yield 'note', f'{len(case.info.std) - len(std)} images have none'
    if len(std) and span:
        share = np.median(std) / span
        text = f'median {np.median(std):.4g}, {share:.1%} of the range of MOS'
        odd = not STD_SHARE[0] <= share <= STD_SHARE[1]
        yield ('warning', f'{text}: it may be on another scale') if odd else ('ok', text)


def split(case: Case) -> Iterator[Finding]:
    """Check that the set can be split into train, val and test without shared contents."""
    if case.trouble:
        yield 'error', case.trouble
        return
    names = {part: [case.info.names[i] for i in rows] for part, rows in case.parts.items()}
    counted = ', '.join(f'{len(rows)} {part}' for part, rows in case.parts.items())
    yield 'ok', f'{counted} images, hash {split_hash(names)}'
    shared = shared_contents(case.info, case.parts)
    if shared:
        yield 'error', (f'{len(shared)} of {len(set(case.info.ref_ids.tolist()))} contents are in more than one part: '
                        '--split reference keeps them apart')
    if scenes := shared_scenes(case.info, case.parts):
        yield 'warning', scenes
    for part, rows in case.parts.items():
        if len(rows) < 2:
            yield ('error' if part == 'train' else 'warning'), f'{part} has one image only'
    for note in case.notes.splitlines():
        if not note.startswith('Note:'):
            yield 'note', note


def references(case: Case) -> Iterator[Finding]:
    """Find missing reference images, which full-reference networks need."""
    folder = case.source.ref_dir or case.source.im_dir
    names = dict.fromkeys(case.info.references or ())
    missing = [name for name in names if not name or not Path(folder, name).is_file()]
    if len(missing) == len(names):
        yield 'ok', (f'none of the {len(names)} that the info file names is a file in {folder}' if names else 'none'
                     ) + ': for no-reference networks only'
    else:
        text = f'{len(names) - len(missing)} of {len(names)} reference images are in {folder}'
        yield ('warning', f'{text}, not {some(list(map(repr, missing)))}') if missing else ('ok', text)


def room(case: Case) -> Iterator[Finding]:
    """Compare the decoded images with the free disk space and the memory."""
    preprocess = preprocess_of(case.args, case.source)
    fixed = preprocess.resize or preprocess.first_resize
    needed = sum(3 * h * w for h, w in (fixed or seen.size for seen in case.seen if not seen.error))
    folder = next(path for path in (Path(case.args.cache_dir).absolute(), *Path(case.args.cache_dir).absolute().parents)
                  if path.exists())
    free, most = shutil.disk_usage(folder).free, memory()
    text = (f'decoded images take {gigabytes(needed)} on disk ({gigabytes(free)} free in {folder}), or in memory'
            + (f' ({gigabytes(most)} in this machine)' if most else ''))
    yield ('warning', f'{text}: --cache none needs neither') if needed > free else ('ok', text)


def some(words: Sequence[str]) -> str:
    """Return the first three words, with dots if there are more."""
    return ', '.join(words[:3]) + (', ...' if len(words) > 3 else '')


def pairs(case: Case, groups: Sequence[Sequence[int]]) -> str:
    """Return the first two images of the first three groups."""
    return some([' = '.join(case.info.names[i] for i in rows[:2]) for rows in groups])


def gigabytes(n: int) -> str:
    return f'{n / 1e9:.2f} GB' if n < 1e10 else f'{n / 1e9:.0f} GB'


CHECKS: dict[str, Callable[[Case], Iterator[Finding]]] = {
    'images': images, 'sizes': sizes, 'duplicates': duplicates, 'near-duplicates': near_duplicates, 'MOS': scores,
    'direction': direction, 'std': opinions, 'split': split,
    'references': references, 'disk and memory': room,
}


def check(args: Options) -> list[tuple[str, str, str]]:
    """Examine a data set; return (check, level, text) of every finding. UserError if its files are missing."""
    source = named_source(args.dataset, args.im_dir, args.data_info, args.ref_dir)
    require(source, dataset_name(args.dataset))
    try:
        info = read_info(source.info)
    except UserError as error:
        return [('info file', 'error', str(error))]
    with ThreadPoolExecutor() as pool:
        paths = [Path(source.im_dir, name) for name in info.names]
        check_outputs({'--json': args.json if args.json != '-' else None},
                      {'DATASET': source.info, '--split_file': args.split_file, '--im_dir': paths})
        seen = list(tqdm(pool.map(look, paths), 'Looking', len(paths), delay=1, leave=False, disable=None))
    case, message = Case(args, source, info, seen, {}), io.StringIO()
    try:
        with contextlib.redirect_stdout(message):
            case.parts = choose(info, plan_of(args, source))
    except UserError as error:
        case.trouble = str(error)
    case.notes = message.getvalue()
    return [(name, level, text) for name, find in CHECKS.items() for level, text in find(case)]


@command
def main(argv: list[str] | None = None) -> int:
    """Print the report; return the exit status."""
    args = CHECK.parse(argv)
    findings = check(args)
    status = int(any(level == 'error' for _, level, _ in findings))
    text = json.dumps({'dataset': args.dataset, 'status': status, 'findings': [
        dict(zip(('check', 'level', 'text'), finding, strict=True)) for finding in findings]}, indent=2)
    if args.json == '-':
        print(text)
        return status
    if args.json:
        write_text(args.json, text + '\n')
    for name, level, message in findings:
        print(f'{name:16} {level:8} {one_line(message)}')
    counted = Counter(level for _, level, _ in findings)
    print(f'{dataset_name(args.dataset)}: ' + ', '.join(f'{counted[level]} {level}' for level in LEVELS))
    return status


if __name__ == '__main__':
    sys.exit(main())
