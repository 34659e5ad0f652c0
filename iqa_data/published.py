"""Read the files that the authors of data sets publish: a reader per data set, named as in data/make_info.py."""
from dataclasses import replace
from pathlib import Path

import numpy as np

from iqa_data.info import Info, info_of
from iqa_data.pyiqa import PART_NAMES
from iqa_runtime.errors import UserError
from iqa_runtime.files import read_text, sha256
from iqa_runtime.names import nearest
from iqa_runtime.tables import Table

SEED = 19920517


class Folder:
    """The published files of a data set, a folder or one file; lists those that were read, with their SHA-256."""

    def __init__(self, source: Path):
        self.source, self.read = source, []
        if not source.exists():
            raise UserError(f'--source {source}: no such file or folder{nearest(source)}')

    def find(self, *patterns: str, optional: bool = False) -> list[Path]:
        """Return the files that match the first pattern with a match, up to one folder deep; UserError if none has.

        Case does not matter; hidden files of a folder are left out.
        """
        candidates = [self.source] if self.source.is_file() else sorted(
            path for depth in ('*', '*/*') for path in self.source.glob(depth)
            if path.is_file() and not path.name.startswith('.'))
        for pattern in patterns:
            paths = [path for path in candidates if Path(str(path).lower()).match(pattern.lower())]
            if paths:
                self.read += paths
                return paths
        if optional:
            return []
        raise UserError(f'--source {self.source}: found no {" or ".join(patterns)}')

    def one(self, *patterns: str) -> Path:
        """Return the only file that matches the first pattern with a match; UserError if there is none, or several."""
        path, *others = self.find(*patterns)
        if others:
            raise UserError(f'--source {self.source}: found {path} and {others[0]}; name one, or its folder')
        return path

    def file(self, name: str) -> Path:
        """Return the file of this name below the folder; UserError if there is none."""
        path = self.source / name
        if not path.is_file():
            raise UserError(f'--source {self.source}: found no {name}')
        self.read.append(path)
        return path

    def sha256(self) -> dict[str, str]:
        """Return {path in the folder: SHA-256} of the files that were read."""
        return {path.relative_to(self.source.parent if path == self.source else self.source).as_posix():
                sha256(path).hex() for path in self.read}

    def table(self, *patterns: str, **options) -> Table:
        """Read the table that matches the first pattern with a match; UserError as of `one`."""
        return Table.read(self.one(*patterns), **options)

    def names_below(self, folder: str) -> dict[str, str]:
        """Return {name in lower case: path relative to `folder`} of the files below a subfolder."""
        below = self.source / folder
        return {path.name.lower(): path.relative_to(below).as_posix() for path in sorted(below.rglob('*'))
                if path.is_file()}


def renamed(table: Table, **columns: str) -> Table:
    """Select and rename columns of a table: renamed(table, image='image_name', ...); UserError if one is missing."""
    table.needs(*columns.values())
    return replace(table, columns={new: table.columns[old] for new, old in columns.items()})


def permutations(contents: int, runs: int) -> np.ndarray:
    """Return (contents, runs): each column a seeded random permutation of 1..contents."""
    rng = np.random.RandomState(SEED)
    return np.stack([rng.permutation(contents) + 1 for _ in range(runs)], axis=1)


# Readers: published files -> Info

def koniq10k(folder: Folder, args) -> Info:
    """Read koniq10k_distributions_sets.csv: image_name, c1 ... c5 (shares of the ratings), c_total, MOS in 0..100,
    SD of the ratings 1..5, set (training, validation, test). The order of its rows is that of the original package.
    koniq10k_scores_and_distributions.csv has MOS in 1..5, SD, and MOS_zscore in 0..100, but no sets; if it exists,
    scores are read from it, and sets from the first file.
    """
    sets = folder.table('koniq10k_distributions_sets.csv')
    counts = {'votes': 'c_total', **{f'c{mark}': f'c{mark}' for mark in range(1, 6)}}
    known = counts if set(counts.values()) <= set(sets.columns) else {}
    table = scores = renamed(sets, image='image_name', mos='MOS', std='SD', part='set', **known)
    if folder.find('koniq10k_scores_and_distributions.csv', optional=True):
        scores = renamed(folder.table('koniq10k_scores_and_distributions.csv'), image='image_name', mos='MOS_zscore',
                         std='SD')
    row = {name: i for i, name in enumerate(scores.images())}
    missing = [name for name in table.images() if name not in row]
    if missing:
        raise UserError(f'{scores.path}: lacks {len(missing)} images of {sets.path.name}, as {missing[0]}')
    for column in ('mos', 'std'):
        table.columns[column] = [scores.columns[column][row[name]] for name in table.images()]
    return with_parts(table)


def clive(folder: Folder, args) -> Info:
    """Read the MATLAB files AllImages_release (1169, 1) cells of file names, AllMOS_release and AllStdDev_release
    (1, 1169), MOS in 0..100. The first 7 images served to train the observers, and are left out.
    """
    from scipy.io import loadmat
    arrays = []
    for name in ('AllImages_release', 'AllMOS_release', 'AllStdDev_release'):
        path = folder.one(f'{name}.mat')
        try:
            arrays.append(loadmat(path)[name].ravel()[7:])
        except Exception as error:  # scipy raises many kinds on a broken file
            raise UserError(f'{path}: not a MATLAB file with the array {name} ({error})') from None
    names, mos, std = arrays
    if not len(names) == len(mos) == len(std):
        raise UserError(f'{folder.source}: {len(names)} images, {len(mos)} MOS and {len(std)} standard deviations')
    n = len(names)
    return Info([str(np.ravel(name)[0]) for name in names], mos.astype(float), std.astype(float), np.arange(1, n + 1),
                permutations(n, 1000))


def kadid10k(folder: Folder, args) -> Info:
    """Read dmos.csv: dist_img, ref_img, dmos in 1..5 (5: no visible difference, higher is better), var (variance)."""
    table = renamed(folder.table('dmos.csv'), image='dist_img', mos='dmos', reference='ref_img', var='var')
    return replace(info_of(table), std=np.sqrt(table.numbers('var')))


def spaq(folder: Folder, args) -> Info:
    """Read "MOS and Image attribute scores.xlsx", or the same as CSV: Image name, MOS in 0..100, attributes."""
    path = folder.one('MOS*attribute*.csv', 'MOS*attribute*.xlsx', '*.csv', '*.xlsx')
    table = Table.read(path) if path.suffix.lower() == '.csv' else read_sheet(path)
    return info_of(renamed(table, image='Image name', mos='MOS'))


def agiqa3k(folder: Folder, args) -> Info:
    """Read data.csv: name, prompt, ..., mos_quality in 0..5, std_quality; images of one prompt are one content."""
    table = folder.table('data.csv')
    prompt = {'reference': 'prompt'} if 'prompt' in table.columns else {}
    return info_of(renamed(table, image='name', mos='mos_quality', std='std_quality', **prompt))


def samsung(folder: Folder, args) -> Info:
    """Read train.csv of the 2023 Samsung AI Challenge: img_name, img_path, mos in 0..10, comments. The file has a
    row for each caption of an image, all with the same MOS; only the first row of an image is kept. Paths are relative
    to the folder.
    """
    table = renamed(folder.table('train.csv'), image='img_path', mos='mos')
    names, mos = table.images(), table.numbers('mos')
    first: dict[str, int] = {}
    for i, name in enumerate(names):
        if mos[first.setdefault(name, i)] != mos[i]:
            raise UserError(f'{table.path} row {table.rows[i]}: {name} with the mos {mos[i]:g}, in row '
                            f'{table.rows[first[name]]} with {mos[first[name]]:g}')
    columns = {column: [cells[i] for i in first.values()] for column, cells in table.columns.items()}
    return info_of(replace(table, columns=columns, rows=[table.rows[i] for i in first.values()]))


# Readers of sets with references: paths are relative to the folders in pairs.PAIR_SETS

def tid(folder: Folder, args=None) -> Info:
    """Read mos_with_names.txt: lines `5.51429 I01_01_1.bmp`, MOS in 0..9, of reference I01, distortion 01, level 1.

    The case of file names differs on the disk: names are taken from distorted_images and reference_images if these
    exist. mos_std.txt has a line per image in the order of mos.txt; it is read if mos_with_names.txt has the same.
    """
    table = folder.table('mos_with_names.txt', header=('mos', 'image'), separator=' ')
    images, references = folder.names_below('distorted_images'), folder.names_below('reference_images')
    table.columns['image'] = [images.get(name.lower(), name) for name in table.columns['image']]
    contents = [name.split('_')[0].upper() for name in table.columns['image']]
    table.columns['reference'] = [references.get(f'{content.lower()}.bmp', content) for content in contents]
    info = info_of(table)
    if not all(folder.find(name, optional=True) for name in ('mos.txt', 'mos_std.txt')):
        return info
    mos, std = (folder.table(name, header=('mos',)).numbers('mos') for name in ('mos.txt', 'mos_std.txt'))
    same = len(mos) == len(std) == len(info.mos) and np.allclose(mos, info.mos, atol=1e-3)
    return replace(info, std=std) if same else info


def pipal(folder: Folder, args=None) -> Info:
    """Read Train_Label/*.txt, a file per reference: lines `A0000_00_00.bmp,1452.26`, an Elo score around 1400.

    Paths of images are looked up in training_inp, and those of references in Train_Ref, if these folders exist.
    """
    tables = [Table.read(path, ('image', 'mos')) for path in folder.find('Train_Label/*.txt', '*.txt')]
    for table in tables:
        info_of(table)  # names the file of a mistake
    columns = {name: [cell for table in tables for cell in table.columns[name]] for name in ('image', 'mos')}
    images, references = folder.names_below('training_inp'), folder.names_below('Train_Ref')
    contents = [name.split('_')[0] for name in columns['image']]
    columns['reference'] = [references.get(f'{content.lower()}.bmp', content) for content in contents]
    columns['image'] = [images.get(name.lower(), name) for name in columns['image']]
    return info_of(Table(folder.source, columns, [row for table in tables for row in table.rows]))


def pieapp(folder: Folder, args=None) -> Info:
    """Read {train,val}_reference_list.txt, and for each of their references labels/SPLIT/ref_N_pairwise_labels.csv.

    Each row has the share of the people, 0..1, that prefer distorted image A to B, as processed by the authors. As in
    ASNA, this preference is a score of A, whichever B it was compared with: an image has several rows with different
    scores. The test part has no such processed preferences and is left out.
    """
    rows: dict[str, list[str]] = {'image': [], 'mos': [], 'reference': [], 'part': []}
    for part in ('train', 'val'):
        for reference in read_text(folder.file(f'{part}_reference_list.txt')).split():
            stem = Path(reference).stem
            table = Table.read(folder.file(f'labels/{part}/{stem}_pairwise_labels.csv'))
            table.needs('distorted image A', 'processed preference for A')
            table.numbers('processed preference for A')
            names = table.images('distorted image A')
            rows['image'] += [f'{part}/{stem}/{name}' for name in names]
            rows['mos'] += table.columns['processed preference for A']
            rows['reference'] += [f'{part}/{reference}'] * len(names)
            rows['part'] += [part] * len(names)
    rows['about'] = ['{"repeated": true}', *[''] * (len(rows['image']) - 1)]
    return info_of(Table(folder.source, rows, list(range(2, len(rows['image']) + 2))))


def with_parts(table: Table) -> Info:
    """Return the info of a table whose parts are named by the keys of PART_NAMES."""
    table.columns['part'] = [PART_NAMES.get(part.lower(), part) for part in table.columns['part']]
    return info_of(table)


def read_sheet(path: Path) -> Table:
    """Read the first sheet of an Excel file, without rows that are empty."""
    try:
        import openpyxl
    except ImportError:
        raise UserError(f'{path}: reading it needs the package openpyxl: pip install openpyxl, or save the sheet as '
                        'CSV') from None
    try:
        book = openpyxl.load_workbook(path, read_only=True, data_only=True)
        header, *rows = [['' if cell is None else str(cell).strip() for cell in row]
                         for row in book.worksheets[0].iter_rows(values_only=True)]
    except Exception as error:  # openpyxl raises many kinds on a broken file
        raise UserError(f'{path}: not an Excel file ({error})') from None
    kept = [number for number, row in enumerate(rows) if any(row)]
    return Table(path, {name: [rows[number][i] for number in kept] for i, name in enumerate(header) if name},
                 [number + 2 for number in kept])
