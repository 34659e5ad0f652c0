"""Read any table of images and scores: guess its columns, and average ratings of several raters or counts of marks."""
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from iqa_data.datasets import TEXTS
from iqa_data.info import ROUNDED, Info, info_of
from iqa_data.look import guess_direction, look, weakest
from iqa_data.published import Folder, renamed
from iqa_data.pyiqa import OFFICIAL, PART_NAMES
from iqa_runtime.errors import UserError
from iqa_runtime.tables import Table

GUESSES = {  # usual names of columns, the likeliest first; case and punctuation do not matter
    'image': ('image', 'image_name', 'img_name', 'im_name', 'file_name', 'name', 'file', 'dist_img', 'img',
              'image_path', 'path', 'image_id'),
    'mos': ('mos', 'mos_zscore', 'mos_quality', 'mean_opinion_score', 'dmos', 'score', 'quality', 'rating', 'mean'),
    'std': ('std', 'mos_std', 'std_quality', 'sd', 'stddev', 'score_std', 'standard_deviation'),
    'votes': ('votes', 'n_votes', 'num_votes', 'n_ratings', 'num_ratings'),
    'reference': ('reference', 'ref', 'ref_img', 'ref_name', 'reference_name', 'ref_image', 'content'),
    'part': ('part', *OFFICIAL, 'set', 'subset'),
}
OPTIONS = {name: f'{name}_column' for name in GUESSES} | {'part': 'split_column'}
COUNT = re.compile(r'(c|n|counts?|votes?)[_ ]?0*([1-9]\d*)', re.IGNORECASE)  # a column of counts, and the mark
FEWEST_MARKS = 5
FEWEST_IMAGES, MOST_IMAGES = 20, 200  # from which a direction is guessed


def any_table(folder: Folder, args) -> Info:
    """Read any table with a column of images and one of MOS, whose names are guessed and printed, or given as options.

    Instead of MOS, a table may have columns with the number of raters who gave each mark 1, 2, ... K, as c1 ... c10:
    MOS and std are then those of the marks. Beside MOS, such counts are kept. With `--aggregate mean`, an image may
    have several rows, one per rating.
    """
    table = folder.table(*(f'*{suffix}' for suffix in TEXTS))
    columns = guessed(table, args)
    print('Columns: ' + ', '.join(f'{wanted} is {name!r}' for wanted, name in columns.items()))
    found = renamed(table, **columns)
    if 'part' in columns:
        found.columns['part'] = [PART_NAMES.get(part.lower(), part) for part in found.columns['part']]
    if 'mos' not in columns and args.aggregate:
        raise UserError(f'--aggregate {args.aggregate}: {table.path} has counts of marks, and no column of ratings; '
                        '--mos_column names one')
    if 'mos' not in columns:
        found = of_counts(found, table)
    elif args.aggregate:
        found = aggregated(found)
    elif marks_of(table):
        found = with_counts(found, table)
    info = info_of(found)
    if 'dmos' in _plain(columns.get('mos', '')) and args.lower_is_better is None:
        raise UserError(f'{table.path}: the column {columns["mos"]} may rise or fall with quality (LIVE\'s DMOS fall, '
                        "KADID-10k's rise): say --lower_is_better or --higher_is_better; "
                        f'{guess(info, Path(args.im_dir or table.path.parent))}')
    return info


def _plain(name: str) -> str:
    return ''.join(filter(str.isalnum, name.lower()))


def guessed(table: Table, args) -> dict[str, str]:
    """Return {content: name} of the columns of a table, from options or guessed; without mos if the table has counts.

    Raises UserError if the table has no column of images, or neither MOS nor counts.
    """
    if not table.columns:
        raise UserError(f'{table.path}: it is empty')
    plain = {_plain(name): name for name in reversed(table.columns)}
    columns = {}
    for wanted, guesses in GUESSES.items():
        found = [plain[guess] for guess in map(_plain, guesses) if guess in plain]
        columns[wanted] = getattr(args, OPTIONS[wanted]) or next(iter(found), None)
        if columns[wanted] is None and (wanted == 'image' or (wanted == 'mos' and not marks_of(table))):
            raise UserError(f'{table.path}: none of its columns looks like the {wanted}: {", ".join(table.columns)}; '
                            f'name it with --{OPTIONS[wanted]}')
    return {wanted: name for wanted, name in columns.items() if name}


def marks_of(table: Table) -> Mapping[int, str]:
    """Return {mark: column} of the counts of the marks 1 to K; empty if there are fewer than FEWEST_MARKS."""
    groups: dict[str, dict[int, str]] = {}
    for name in table.columns:
        if found := COUNT.fullmatch(name):
            groups.setdefault(found[1].lower(), {})[int(found[2])] = name
    whole = [marks for marks in groups.values()
             if len(marks) >= FEWEST_MARKS and set(marks) == {*range(1, len(marks) + 1)}]
    return max(whole, key=len, default={})


def of_counts(found: Table, table: Table) -> Table:
    """Return `found` with columns from the counts of marks in `table`: mos, std, votes, and the counts as c1 to cK.

    If the counts of each image sum to 1, they are shares, and the number of votes is unknown.
    """
    columns = marks_of(table)
    print(f'mos, std: of the marks 1 to {len(columns)}, counted in {", ".join(columns.values())}')
    marks, counts = np.array(list(columns), float), np.stack([table.numbers(name) for name in columns.values()], 1)
    votes = counts.sum(1)
    bad = np.flatnonzero((counts < 0).any(1) | (votes <= 0))
    if len(bad):
        raise UserError(f'{table.path} row {table.rows[bad[0]]}: expected counts of marks, at least 0 and not all 0; '
                        f'found {", ".join(f"{count:g}" for count in counts[bad[0]])}')
    mos = counts @ marks / votes
    std = np.sqrt((counts * (marks - mos[:, None]) ** 2).sum(1) / votes)
    numbers = {'mos': mos, 'std': std, **({} if np.allclose(votes, 1, atol=ROUNDED) else {'votes': votes}),
               **{f'c{mark}': counts[:, i] for i, mark in enumerate(columns)}}
    return replace(found, decimal='.', columns=found.columns | {
        name: [repr(value) for value in values.tolist()] for name, values in numbers.items()})


def with_counts(found: Table, table: Table) -> Table:
    """Return `found`, which has MOS, with the counts of marks in `table` as c1 to cK, and the votes if it has none."""
    columns = marks_of(table)
    print(f'ratings: the marks 1 to {len(columns)}, counted in {", ".join(columns.values())}')
    counts = np.stack([table.numbers(name) for name in columns.values()], 1)
    more = {f'c{mark}': table.columns[name] for mark, name in columns.items()}
    if (counts == np.rint(counts)).all() and (counts.sum(1) > 1).all():
        more['votes'] = [f'{count:.0f}' for count in counts.sum(1)]
    return replace(found, columns=more | found.columns)


def aggregated(table: Table) -> Table:
    """Return a table with one row per image, in order of appearance: the mean of its ratings, their std, the votes.

    The standard deviation is that of the population (divided by the number of ratings); empty for a single rating.
    Raises UserError if another column differs between the rows of an image.
    """
    names, ratings = table.images(), table.numbers('mos')
    rows: dict[str, list[int]] = {}
    for i, name in enumerate(names):
        rows.setdefault(name, []).append(i)
    for column in set(table.columns) - {'image', 'mos', 'std', 'votes'}:
        cells = table.columns[column]
        pairs = [(some[0], i) for some in rows.values() for i in some if cells[i] != cells[some[0]]]
        if pairs:
            i, j = pairs[0]
            raise UserError(f'{table.path} row {table.rows[j]}: the {column} of {names[j]} is {cells[j]!r}, in row '
                            f'{table.rows[i]} {cells[i]!r}')
    first = [some[0] for some in rows.values()]
    columns = {name: [cells[i] for i in first] for name, cells in table.columns.items()}
    columns['mos'] = [repr(float(ratings[some].mean())) for some in rows.values()]
    columns['std'] = [repr(float(ratings[some].std())) if len(some) > 1 else '' for some in rows.values()]
    columns['votes'] = [str(len(some)) for some in rows.values()]
    return replace(table, columns=columns, rows=[table.rows[i] for i in first], decimal='.')


def guess(info: Info, folder: Path) -> str:
    """Describe a guess whether the scores rise with quality, from at most MOST_IMAGES images in a folder."""
    there = [i for i, name in enumerate(info.names) if (folder / name).is_file()][:MOST_IMAGES]
    seen = {i: one for i in there if not (one := look(folder / info.names[i])).error}
    if len(seen) < FEWEST_IMAGES:
        return f'no guess: {len(seen)} of its images can be read in {folder} (--im_dir names another folder)'
    rho = guess_direction(list(seen.values()), info.mos[list(seen)])
    if abs(rho) < weakest(len(seen)):
        return f'no guess: the rank correlation with sharpness less half the noise is {rho:+.2f} on {len(seen)} images'
    return (f'a guess from {len(seen)} images is --{"higher" if rho > 0 else "lower"}_is_better: rank correlation '
            f'{rho:+.2f} with sharpness less half the noise')
