"""Data sets of pairs, reference and distorted image: their published files, and their preparation as for ASNA.

A row of PAIR_SETS says where the images of a set lie, how they are brought to 288x288, and on which scale the scores
are compared. `prepare` yields the pairs as ASNA's networks see them.
"""
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from iqa_data.info import Info, info_of
from iqa_data.published import Folder
from iqa_data.target import Target
from iqa_runtime.errors import UserError, pick
from iqa_runtime.files import read_text
from iqa_runtime.tables import Table

SIDE = 288
SEED = 19920517
TRAIN_SHARE = .8


# Readers: what is published -> Info, whose images and references are relative to the folders in PAIR_SETS

def tid(folder: Folder, args=None) -> Info:
    """Read mos_with_names.txt: lines `5.51429 I01_01_1.bmp`, MOS in 0..9, of reference I01, distortion 01, level 1.

    The case of file names is not the same on the disk: it is taken from distorted_images and reference_images, if they
    are there. mos_std.txt has a line per image in the order of mos.txt; it is taken if that is the order of the former.
    """
    table = folder.table('mos_with_names.txt', header=('mos', 'image'), separator=' ')
    images, references = folder.names_below('distorted_images'), folder.names_below('reference_images')
    table.columns['image'] = [images.get(name.lower(), name) for name in table.columns['image']]
    contents = [name.split('_')[0].upper() for name in table.columns['image']]
    table.columns['reference'] = [references.get(f'{content.lower()}.bmp', content) for content in contents]
    info = info_of(table)
    mos, std = (folder.find(name, optional=True) for name in ('mos.txt', 'mos_std.txt'))
    if not mos or not std:
        return info
    mos, std = (Table.read(path, ('mos',)).numbers('mos') for (path,) in (mos, std))
    same = len(mos) == len(std) == len(info.mos) and np.allclose(mos, info.mos, atol=1e-3)
    return replace(info, std=std) if same else info


def pipal(folder: Folder, args=None) -> Info:
    """Read Train_Label/*.txt, a file per reference: lines `A0000_00_00.bmp,1452.26`, an Elo score around 1400.

    The folders of the images are taken from training_inp, and the references from Train_Ref, if they are there.
    """
    tables = [Table.read(path, ('image', 'mos')) for path in folder.find('Train_Label/*.txt', '*.txt')]
    for table in tables:
        info_of(table)  # says which file a mistake is in
    columns = {name: [cell for table in tables for cell in table.columns[name]] for name in ('image', 'mos')}
    images, references = folder.names_below('training_inp'), folder.names_below('Train_Ref')
    contents = [name.split('_')[0] for name in columns['image']]
    columns['reference'] = [references.get(f'{content.lower()}.bmp', content) for content in contents]
    columns['image'] = [images.get(name.lower(), name) for name in columns['image']]
    return info_of(Table(folder.source, columns, [row for table in tables for row in table.rows]))


def pieapp(folder: Folder, args=None) -> Info:
    """Read {train,val}_reference_list.txt, and for each of their references labels/SPLIT/ref_N_pairwise_labels.csv.

    A row there says how many people prefer distorted image A to B, 0..1, as processed by the authors. As ASNA does, the
    preference for A is taken as a score of A, whatever B is: an image has several rows, with scores of their own. The
    test part has no processed preferences of that kind and is left out.
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


@dataclass(frozen=True)
class PairSet:
    """A data set of pairs.

    Attributes:
        read: what is published -> Info.
        folder: its published name.
        images, references: where the images lie in it.
        target: the scale on which ASNA compares scores.
        fit: how its images are brought to 288x288, a name in iqa_data.transforms.FITS.
        contents: the name of its collection of reference images.
    """

    read: Callable[[Folder], Info]
    folder: str
    images: str
    references: str
    target: Target
    fit: str
    contents: str


TID_TARGET = Target(4.47, 1.30)
PAIR_SETS = {
    'PieAPP': PairSet(pieapp, 'PieAPPdataset', 'distorted_images', 'reference_images', Target(.47, .26), 'pad',
                      'PieAPP'),
    'TID2013': PairSet(tid, 'tid2013', 'distorted_images', 'reference_images', TID_TARGET, 'crop', 'TID'),
    'TID2008': PairSet(tid, 'tid2008', 'distorted_images', 'reference_images', TID_TARGET, 'crop', 'TID'),
    'PIPAL': PairSet(pipal, 'PIPAL', 'training_inp', 'Train_Ref', Target(1449.05, 121.35), 'crop', 'PIPAL'),
}
PRETRAIN = ('PieAPP', 'TID2013', 'TID2008')


def asna_pretrain(folder: Folder, args=None) -> Info:
    """Mix the folders PieAPPdataset, tid2013 and tid2008, on which ASNA is pretrained.

    Scores of three scales cannot be compared, so that the MOS of the mix are each set's scores, less its mean over its
    standard deviation, as in ASNA (`about` keeps both). Images and references are relative to the folder of the three.
    Of each collection of references, TID's being the same in both, 80 % are train and the others val, at random.
    """
    infos, rows = {}, {'image': [], 'mos': [], 'reference': [], 'content': [], 'part': []}
    for name in PRETRAIN:
        one, below = PAIR_SETS[name], Folder(place_of(name, folder.source))
        infos[name] = info = one.read(below)
        folder.read += below.read
        rows['image'] += [f'{below.source.name}/{one.images}/{image}' for image in info.names]
        rows['reference'] += [f'{below.source.name}/{one.references}/{reference}' for reference in info.references]
        rows['content'] += [f'{one.contents}/{Path(reference).stem.lower()}' for reference in info.references]
        rows['mos'] += [repr(float(value)) for value in one.target(info.mos)]
    train = train_contents(rows['content'])
    rows['part'] = ['train' if content in train else 'val' for content in rows['content']]
    rows['about'] = ['{"repeated": true}', *[''] * (len(rows['image']) - 1)]
    info = info_of(Table(folder.source, rows, list(range(2, len(rows['image']) + 2))))
    scales = {name: [PAIR_SETS[name].target.shift, PAIR_SETS[name].target.scale] for name in PRETRAIN}
    return replace(info, about={**info.about, 'score_mean_and_std': scales})


def train_contents(contents: list[str]) -> set[str]:
    """Return TRAIN_SHARE of the contents COLLECTION/NAME of each collection, at random by SEED."""
    chosen = set()
    for collection in dict.fromkeys(content.split('/')[0] for content in contents):
        own = sorted({content for content in contents if content.startswith(f'{collection}/')})
        order = np.random.RandomState(SEED).permutation(len(own))
        chosen |= {own[i] for i in order[:int(TRAIN_SHARE * len(own) + 1e-9)]}
    return chosen


def place_of(name: str, root: Path) -> Path:
    """Return the folder of a data set: `root`, or the one in it that has its published name, in any case."""
    inside = [path for path in sorted(root.glob('*')) if path.is_dir() and path.name.lower() == name_of(name).lower()]
    return inside[0] if inside else root


def name_of(name: str) -> str:
    """Return the published name of a data set's folder."""
    return PAIR_SETS[name].folder


Pair = tuple[str, str, float, np.ndarray, np.ndarray]


def prepare(dataset: str, root: str | Path) -> Iterator[Pair]:
    """Yield the pairs of a data set as ASNA's networks see them, one at a time, in the order of its labels.

    Args:
        dataset: a name in PAIR_SETS.
        root: the published folder, or the one that holds it.

    Yields:
        The files of the reference and of the distorted image, relative to the published folder; the score less the
        set's mean over its standard deviation; reference and distorted image, uint8 RGB (288, 288, 3).
    """
    one = PAIR_SETS[pick(PAIR_SETS, dataset, 'data set of pairs')]
    folder = place_of(dataset, Path(root))
    info = one.read(Folder(folder))
    from iqa_data.transforms import Preprocess  # torch, and make_info.py --help needs none
    preprocess = Preprocess((SIDE, SIDE), fit=one.fit)
    scores = one.target(info.mos)
    for reference, image, score in zip(info.references, info.names, scores, strict=True):
        files = f'{one.references}/{reference}', f'{one.images}/{image}'
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise UserError(f'{folder}: found no {missing[0]}')
        yield *files, float(score), *(preprocess.array(folder / file) for file in files)
