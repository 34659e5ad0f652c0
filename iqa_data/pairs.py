"""Prepare data sets of pairs (reference and distorted image) for ASNA.

A row of PAIR_SETS gives the folders of the images, how they are brought to 288x288, and the scale on which scores are
compared. `prepare` yields the pairs as ASNA's networks see them.
"""
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from iqa_data.info import Info, info_of
from iqa_data.published import SEED, Folder, pieapp, pipal, tid
from iqa_data.target import Target
from iqa_runtime.errors import UserError, pick
from iqa_runtime.tables import Table

SIDE = 288
TRAIN_SHARE = .8


@dataclass(frozen=True)
class PairSet:
    """A data set of pairs.

    Attributes:
        read: reads the published files, Folder -> Info.
        folder: its published name.
        images, references: folders of the images in it.
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
    """Join PieAPP, TID2013 and TID2008, on which ASNA is pretrained, into one data set.

    The three scales cannot be compared: the MOS are z-scores within each set, with ASNA's mean and standard deviation,
    which `about` keeps. Images and references are relative to the folder that contains the three. Of each collection of
    references (TID's is the same in both), 80 % are train and the others val, at random.
    """
    infos, rows = {}, {'image': [], 'mos': [], 'reference': [], 'content': [], 'part': []}
    for name in PRETRAIN:
        one, below = PAIR_SETS[name], Folder(find_folder(name, folder.source))
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


def find_folder(name: str, root: Path) -> Path:
    """Return the folder of a data set: the one in `root` with its published name, in any case, or else `root`."""
    wanted = published_name(name).lower()
    inside = [path for path in sorted(root.glob('*')) if path.is_dir() and path.name.lower() == wanted]
    return inside[0] if inside else root


def published_name(name: str) -> str:
    """Return the published name of a data set's folder."""
    return PAIR_SETS[name].folder


PairRow = tuple[str, str, float, np.ndarray, np.ndarray]


def prepare(dataset: str, root: str | Path) -> Iterator[PairRow]:
    """Yield the pairs of a data set as ASNA's networks see them, one at a time, in the order of its labels.

    Args:
        dataset: a name in PAIR_SETS.
        root: the published folder, or the folder that contains it.

    Yields:
        The files of the reference and of the distorted image, relative to the published folder; the score as a z-score
        of its set; reference and distorted image, uint8 RGB (288, 288, 3).
    """
    one = PAIR_SETS[pick(PAIR_SETS, dataset, 'data set of pairs')]
    folder = find_folder(dataset, Path(root))
    info = one.read(Folder(folder))
    from iqa_data.transforms import Preprocess  # it imports torch, which make_info.py --help does not need
    preprocess = Preprocess((SIDE, SIDE), fit=one.fit)
    scores = one.target(info.mos)
    for reference, image, score in zip(info.references, info.names, scores, strict=True):
        files = f'{one.references}/{reference}', f'{one.images}/{image}'
        missing = [file for file in files if not (folder / file).is_file()]
        if missing:
            raise UserError(f'{folder}: {missing[0]} not found')
        yield *files, float(score), *(preprocess.array(folder / file) for file in files)
