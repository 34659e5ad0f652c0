"""Read and write a data set's info file, a table (.csv, .tsv, .txt) or MATLAB v7.3 (.mat).

The table is the project's own format: CSV in UTF-8 with a row per image, which plain pandas.read_csv(path) reads.

    image      the file, relative to the folder of the images, with / between folders
    mos        mean opinion score, finite
    std        optional: standard deviation of the opinions in units of mos; empty if it is not known
    reference  optional: the file of the image's reference, relative to the folder of the references (--ref_dir), or
               the name of the content that it shows (scene, prompt); empty: none
    content    optional: what the image shows, if its reference does not say so; images of a content stay together
    part       optional: train, val or test, the official split
    votes      optional: how many rated the image, at least 1; empty if it is not known
    c1 ... cK  optional: how many of them gave each of K >= 2 levels, worst first, or the shares of the votes
    about      optional: JSON in the first row, empty below: where the labels come from ('dataset', 'sha256' of each
               file read, 'images', 'mos' [lowest, highest], 'higher_is_better', 'repeated': whether an image may have
               several rows, each with a score of its own, and what else is known)

Other columns are allowed and not read. A byte order mark, `;` or tabs as separator (then with decimal commas, too),
Excel's first line `sep=;`, lines before the header that begin with # and Windows' \\ between folders are understood.

The .mat is the original package's: MATLAB v7.3, which is HDF5, so every array is seen transposed.

    im_names             (1, N) object references, each to the UTF-16 code units of one file name
    subjective_scores    (1, N) MOS
    subjective_scoresSTD (1, N) standard deviation of the opinions, nan if it is not known
    ref_ids              (1, N) the content that an image shows, 1..R (a set without references: 1..N)
    index                (R, runs) each column a permutation of the contents, which makes the split of one run
    part                 (1, N) optional, not the original's: 1 train, 2 val, 3 test, the official split
    votes, ratings       (1, N), (K, N) optional, not the original's: the columns votes and c1 ... cK of the table
    references           (1, N) optional, not the original's: as im_names, the column reference of the table
    about                optional attribute of the file, not the original's: the JSON of the table's column

Both are read by the same rules: no image twice, no control characters in a name, `higher_is_better` true or false.
"""
import io
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from iqa_data.datasets import TEXTS
from iqa_data.matlab import mat_file
from iqa_data.pyiqa import is_meta_info, of_meta_info
from iqa_runtime.errors import UserError
from iqa_runtime.files import replacing
from iqa_runtime.names import PARTS, cell, from_cell
from iqa_runtime.tables import Table, write_columns

ROUNDED = .01    # how far shares that are written with few digits may be from a sum of 1
FIELDS = ('im_names', 'subjective_scores', 'subjective_scoresSTD', 'ref_ids', 'index')


def half_interval(std: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Return half the width of the 95 % confidence interval of each MOS, shaped as std; nan below 2 votes.

    t s / sqrt(votes), with Student's t of votes - 1 degrees of freedom and s^2 = std^2 votes / (votes - 1), as std is
    divided by the number of votes (ITU-T P.1401).
    """
    from scipy.special import stdtrit  # slow to import, and --help needs none
    freedom = np.where(votes > 1, votes - 1, np.nan)
    return stdtrit(freedom, .975) * std / np.sqrt(freedom)


@dataclass(frozen=True)
class Info:
    """The names, scores and contents of the N images of a data set. UserError if the fields do not fit together."""

    names: list[str]
    mos: np.ndarray      # (N,) float64, finite
    std: np.ndarray      # (N,) float64, nan if it is not known
    ref_ids: np.ndarray  # (N,) int64
    index: np.ndarray    # (R, runs) int64; no runs if nothing is official
    part: np.ndarray | None = None       # (N,) of PARTS: the official split
    references: list[str] | None = None  # N files of reference images, or names of contents; '' if there is none
    about: dict = field(default_factory=dict)
    votes: np.ndarray | None = None      # (N,) how many rated an image, nan if it is not known
    ratings: np.ndarray | None = None    # (N, K) how many gave each level, or the shares of the votes
    numbered: dict[int, np.ndarray] = field(default_factory=dict)  # splits of a table of pyiqa's, as `part`, by number
    contents: list[str] | None = None    # N names of contents from a table; '' if it gives none

    def __post_init__(self):
        lengths = {'im_names': len(self.names), 'subjective_scores': len(self.mos),
                   'subjective_scoresSTD': len(self.std), 'ref_ids': len(self.ref_ids)}
        lengths |= {name: len(value) for name, value in (('part', self.part), ('references', self.references),
                                                         ('votes', self.votes), ('ratings', self.ratings))
                    if value is not None}
        if len(set(lengths.values())) > 1:
            raise UserError('the fields disagree in length: ' + ', '.join(f'{k} {n}' for k, n in lengths.items()))
        if not self.names:
            raise UserError('it holds no images')
        if not np.isfinite(self.mos).all():
            raise UserError(f'the MOS of {self.names[int(np.argmin(np.isfinite(self.mos)))]} is not a finite number')
        for i in np.flatnonzero(np.isinf(self.std) | (self.std < 0))[:1]:
            raise UserError(f'the std of {self.names[i]} is {self.std[i]:g}; expected a finite number of at least 0')
        self._check_votes()
        if self.index.shape[1]:
            self._check_index()
        for name in ('higher_is_better', 'repeated'):
            if not isinstance(self.about.get(name, True), bool):
                raise UserError(f'about: {name} is {json.dumps(self.about[name])[:40]}, expected true or false')

    def _check_votes(self) -> None:
        """Raise UserError if a number of votes is below 1, or if the ratings of an image do not sum to its votes."""
        votes = np.full(len(self.names), np.nan) if self.votes is None else self.votes
        for i in np.flatnonzero(~(np.isnan(votes) | ((votes >= 1) & np.isfinite(votes))))[:1]:
            raise UserError(f'the votes of {self.names[i]} are {votes[i]:g}; expected at least 1')
        if self.ratings is None:
            return
        levels, sums = self.ratings.shape[1], self.ratings.sum(1)
        whole = (self.ratings == np.rint(self.ratings)).all(1)
        counted = np.where(np.isnan(votes), whole & (sums >= 1), np.isclose(sums, votes))
        good = (self.ratings >= 0).all(1) & (counted | (np.abs(sums - 1) < ROUNDED))
        for i in np.flatnonzero(~good)[:1]:
            wanted = 'counts' if np.isnan(votes[i]) else f'the {votes[i]:g} votes'
            raise UserError(f'c1 to c{levels} of {self.names[i]} sum to {sums[i]:g} ({_some(self.ratings[i])}); '
                            f'expected {wanted}, or shares that sum to 1, none below 0')

    @property
    def interval(self) -> np.ndarray | None:
        """Return `half_interval` of each MOS, (N, 1); None if std or votes are not known."""
        if self.votes is None or np.isnan(self.std).all():
            return None
        return half_interval(self.std, self.votes)[:, None]

    @property
    def shares(self) -> np.ndarray | None:
        """Return the share of the votes at each level, (N, K), each row of sum 1; None: unknown."""
        return None if self.ratings is None else self.ratings / self.ratings.sum(1, keepdims=True)

    @property
    def more(self) -> dict[str, np.ndarray]:
        """Return the statistics of the opinions besides MOS and std, by name, (N, C) each: `interval`, `ratings`."""
        known = {'interval': self.interval, 'ratings': self.shares}
        return {name: values for name, values in known.items() if values is not None}

    def _check_index(self) -> None:
        """Raise UserError if a column is no permutation: a content could be in two parts then."""
        n, runs = self.index.shape
        seen = np.zeros((n, runs), bool)
        inside = (self.index >= 1) & (self.index <= n)
        if inside.all():
            seen[self.index - 1, np.arange(runs)] = True
        if not seen.all():
            raise UserError(f'index: column {int(np.argmin(seen.all(0))) + 1} is no permutation of 1 to {n}')
        strangers = self.ref_ids[(self.ref_ids < 1) | (self.ref_ids > n)]
        if len(strangers):
            raise UserError(f'ref_ids names {strangers[0]}, which is not in index')

    @property
    def higher_is_better(self) -> bool:
        """Return whether a higher score means a better image; true if the file does not say."""
        return self.about.get('higher_is_better', True)

    @property
    def units(self) -> str:
        """Return the units of a split: 'contents', or 'images' if no two images are known to share a content."""
        return 'contents' if len(set(self.ref_ids.tolist())) < len(set(self.names)) else 'images'


def _parts(table: Table, column: str = 'part') -> np.ndarray:
    return np.array(table.parts(column), dtype=object)


def info_of(table: Table, **more) -> Info:
    """Return the info in the columns image, mos, std, reference, part and about; `more`: other fields of Info."""
    table.needs('image', 'mos', hint=' and, where known, std, reference, part '
                                     '(data/make_info.py csv converts other tables)')
    if not table.rows:
        raise UserError(f'{table.path}: it holds no images')
    names, mos = table.images(), table.numbers('mos')
    about = _json(next(filter(None, table.columns.get('about', [])), '{}'))
    if not about.get('repeated'):
        table.once(names, mos, 'mos', '; data/make_info.py csv --aggregate mean takes a row for each rating')
    std = table.numbers('std', math.nan) if 'std' in table.columns else np.full(len(names), math.nan)
    references = [from_cell(text) for text in table.columns['reference']] if 'reference' in table.columns else None
    shown = [from_cell(text) for text in table.columns['content']] if 'content' in table.columns else references
    contents = [content or name for content, name in zip(shown or names, names, strict=True)]
    number = {content: i for i, content in enumerate(dict.fromkeys(contents), 1)}
    known = {'part': _parts(table) if 'part' in table.columns else None, 'references': references, 'about': about,
             'votes': table.numbers('votes', math.nan) if 'votes' in table.columns else None,
             'ratings': ratings_of(table), 'contents': shown}
    return Info(names, mos, std, np.array([number[content] for content in contents]),
                np.empty((len(number), 0), int), **{**known, **more})


def ratings_of(table: Table) -> np.ndarray | None:
    """Return the columns c1 ... cK of a table, (N, K), K at least 2; None if it has none. UserError if one is missing.

    A table without both c1 and c2 has no ratings, even if it has other columns of such names.
    """
    found = {int(name[1:]) for name in table.columns if re.fullmatch(r'c[1-9]\d{0,2}', name)}
    if not {1, 2} <= found:
        return None
    missing = sorted({*range(1, max(found) + 1)} - found)
    if missing:
        raise UserError(f'{table.path}: of the counts of ratings, c1 to c{max(found)}, it lacks c{missing[0]}')
    return np.stack([table.numbers(f'c{level}') for level in sorted(found)], 1)


def _some(values: np.ndarray) -> str:
    return ', '.join(f'{value:g}' for value in values[:10]) + (', ...' if len(values) > 10 else '')


def _json(text: str) -> dict:
    try:
        about = json.loads(text)
    except json.JSONDecodeError:  # somebody else's column or attribute of this name
        about = {}
    except (RecursionError, ValueError):  # nested too deeply; a number of too many digits
        raise UserError(f'about: not JSON of a usual form, {text[:40]!r}') from None
    return about if isinstance(about, dict) else {}


def read_table(path: str | Path) -> Info:
    """Read the project's own format (see the module), or a table of the pyiqa toolbox (iqa_data/pyiqa.py)."""
    table = Table.read(path)
    if not is_meta_info(path) or 'image' in table.columns:
        return info_of(table)
    table = of_meta_info(table)
    numbers = [int(name.removeprefix('part ')) for name in table.columns if name.startswith('part ')]
    return info_of(table, numbered={number: _parts(table, f'part {number}') for number in numbers})


def read_mat(path: str | Path) -> Info:
    """Read the original package's format (see the module)."""
    with mat_file(path) as file:
        lacks = sorted(set(FIELDS) - file.keys)
        if lacks:
            raise UserError(f'{path}: the info file lacks {", ".join(lacks)}')
        names = file.texts('im_names')
        mos, std, ref_ids = file.row('subjective_scores'), file.row('subjective_scoresSTD'), file.whole('ref_ids')[0]
        part = _parts_of_codes(file.row('part')) if 'part' in file.keys else None
        references = file.texts('references', least=0) if 'references' in file.keys else None
        about = _json(file.attribute('about') or '{}')
        votes = file.row('votes') if 'votes' in file.keys else None
        ratings = file.numbers('ratings').T if 'ratings' in file.keys else None
        info = Info(names, mos, std, ref_ids, file.whole('index'), part, references, about, votes, ratings)
        table = Table(Path(path), {'image': names}, list(range(1, len(names) + 1)))  # the same rules for names
        names = table.images()
        if not about.get('repeated'):
            table.once(names, mos, 'mos')
        return replace(info, names=names)


def _parts_of_codes(codes: np.ndarray) -> np.ndarray:
    wrong = np.flatnonzero(~np.isin(codes, (1, 2, 3)))
    if len(wrong):
        raise UserError(f'part of image {wrong[0] + 1} is {codes[wrong[0]]:g}; expected 1 train, 2 val or 3 test')
    return np.array(PARTS, dtype=object)[codes.astype(int) - 1]


def write_table(path: Path, info: Info) -> None:
    """Write the project's own format; columns without a value are left out, and so is `index`."""
    columns = {'image': list(map(cell, info.names)), 'mos': list(map(_text, info.mos))}
    if not np.isnan(info.std).all():
        columns['std'] = list(map(_text, info.std))
    if info.votes is not None:
        columns['votes'] = [_text(count).removesuffix('.0') for count in info.votes]
    for level, counts in enumerate(() if info.ratings is None else info.ratings.T, 1):
        columns[f'c{level}'] = [_text(count).removesuffix('.0') for count in counts]
    if info.references is not None:
        columns['reference'] = list(map(cell, info.references))
    if not _same_groups(info.references or info.names, info.ref_ids):
        columns['content' if info.references else 'reference'] = list(map(str, info.ref_ids))
    if info.part is not None:
        columns['part'] = info.part
    if info.about:
        columns['about'] = [json.dumps(info.about), *[''] * (len(info.names) - 1)]
    write_columns(path, columns)


def _same_groups(names: Sequence[str], ref_ids: np.ndarray) -> bool:
    """Return whether images of one name have one content, and the other way round."""
    return len(set(names)) == len(set(ref_ids.tolist())) == len(set(zip(names, ref_ids.tolist(), strict=True)))


def _text(value: float) -> str:
    """Return the shortest text that reads back as the same number; empty for nan."""
    return '' if math.isnan(value) else repr(float(value))


def write_mat(path: Path, info: Info) -> None:
    """Write the original package's format."""
    import h5py
    buffer = io.BytesIO()  # in memory first: HDF5 does not end at a full disk, but fails again for each of its objects
    with h5py.File(buffer, 'w') as file:
        refs = file.create_group('#refs#')
        _write_names(file, refs, 'im_names', info.names)
        if info.references is not None:
            _write_names(file, refs, 'references', info.references)
        file['subjective_scores'] = info.mos[None]
        file['subjective_scoresSTD'] = info.std[None]
        file['ref_ids'] = info.ref_ids[None].astype(float)
        file['index'] = info.index.astype(float)
        if info.votes is not None:
            file['votes'] = info.votes[None]
        if info.ratings is not None:
            file['ratings'] = info.ratings.T
        if info.part is not None:
            file['part'] = np.array([[PARTS.index(part) + 1. for part in info.part]])
        if info.about:
            file.attrs['about'] = json.dumps(info.about)
    path.write_bytes(buffer.getvalue())


def _write_names(file, refs, key: str, names: Sequence[str]) -> None:
    """Write an array of object references, each to the UTF-16 code units of a name; equal names are written once."""
    import h5py
    array = file.create_dataset(key, (1, len(names)), dtype=h5py.ref_dtype)
    written = {name: refs.create_dataset(str(len(refs)), data=np.frombuffer(name.encode('utf-16-le'), '<u2')[:, None])
               for name in dict.fromkeys(names)}
    array[0] = np.array([written[name].ref for name in names], h5py.ref_dtype)


READERS: dict[str, Callable[[Path], Info]] = {**dict.fromkeys(TEXTS, read_table), '.mat': read_mat}
WRITERS: dict[str, Callable[[Path, Info], None]] = {'.csv': write_table, '.mat': write_mat}


def read_info(path: str | Path) -> Info:
    """Read an info file, by its suffix. Raises UserError that names the file and what is wrong with it."""
    try:
        return READERS.get(Path(path).suffix.lower(), read_mat)(Path(path))
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f'{path}: {error}') from None


def write_info(path: str | Path, names: Sequence[str], mos: Sequence[float], std: Sequence[float],
               ref_ids: Sequence[int], index: np.ndarray, **more) -> None:
    """Write an info file, by its suffix. `index` is (R, runs), 1-based; `more`: the other fields of Info."""
    info = Info(list(names), np.asarray(mos, float), np.asarray(std, float), np.asarray(ref_ids, int),
                np.asarray(index), **more)
    with replacing(path) as temporary:
        WRITERS.get(Path(path).suffix.lower(), write_mat)(temporary, info)
