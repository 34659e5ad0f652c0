"""Split a data set into train, val and test, by the options or by a table with columns image and part.

Parts are disjoint and cover the set, and the images of a part are in the data set's order. `reference` and `kfold` keep
images of one content together; `random` and `kfold-sorted` do not, and the log reports shared contents. If the info
file names no contents, every image is its own content, and the log warns if the names suggest shared scenes.

The k-fold splits have K folds, of which fold i is val, fold i + 1 (after the last, the first) is test, and the others
are train: over the K runs every image is validated once and tested once, never both in one run. A split may also have
no test part.

`pyiqa` computes, and --split_file also reads, splits of the pyiqa toolbox (iqa_data/pyiqa.py), which have no test part;
tables of that toolbox may contain their own splits.
"""
import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

import numpy as np

from iqa_data.info import Info
from iqa_data.pyiqa import PICKLES, pyiqa_splits, split_of
from iqa_runtime.errors import UserError, pick
from iqa_runtime.names import PARTS
from iqa_runtime.split_file import read_split

PartRows = dict[str, np.ndarray]  # 'train', 'val', 'test' -> ascending positions in Info
MOST_VERSIONS = 250  # of one scene; TID2013 has 120, KADID-10k 125, PIPAL 116


@dataclass(frozen=True)
class SplitPlan:
    """How a data set is split; the options --split, --exp_id ... by name."""

    split: str = 'official'
    exp_id: int = 0
    train_ratio: float = .6
    train_and_val_ratio: float = .8
    seed: int = 0
    folds: int = 5
    fold: int = 0
    file: str | None = None
    test_fold: str = 'next'  # a name in TEST_FOLDS
    fold_order: str = 'slides'  # a name in FOLD_ORDERS
    index: int = 1  # number of the toolbox's split

    def order(self, n: int) -> np.ndarray:
        """Return a permutation of 0..n-1 that depends on the seed and on exp_id."""
        return np.random.RandomState([self.seed, self.exp_id % 2 ** 32]).permutation(n)


def by_ratio(labels: np.ndarray, order: np.ndarray, train_ratio: float, train_and_val_ratio: float,
             units: str = 'contents') -> PartRows:
    """Split images by their labels (N,): the first `train_ratio` of `order` is train, up to `train_and_val_ratio` val.

    Raises UserError, which calls the labels `units`, if train or val is empty.
    """
    ends = [int(ratio * len(order) + 1e-9) for ratio in (train_ratio, train_and_val_ratio)]
    parts = {part: np.flatnonzero(np.isin(labels, chosen))
             for part, chosen in zip(PARTS, np.split(order, ends), strict=True)}
    for part in ('train', 'val'):
        if len(parts[part]) == 0:
            raise UserError(f'the split leaves {part} empty: {len(order)} {units} with '
                            f'--train_ratio {train_ratio:g} --train_and_val_ratio {train_and_val_ratio:g}')
    return parts


def split(info: Info, exp_id: int, train_ratio: float, train_and_val_ratio: float) -> PartRows:
    """Split by content with the permutation of run `exp_id` of the info file, as the original package does."""
    order = info.index[:, exp_id % info.index.shape[1]]
    return by_ratio(info.ref_ids, order, train_ratio, train_and_val_ratio, info.units)


def official(info: Info, plan: SplitPlan) -> PartRows:
    """Return the info file's parts, or split by its permutations, or by reference if it has neither."""
    if info.part is not None:
        return {part: np.flatnonzero(info.part == part) for part in PARTS}
    if info.index.shape[1]:
        return split(info, plan.exp_id, plan.train_ratio, plan.train_and_val_ratio)
    print(f'The info file has no official split: {info.units} are split at random, --split_seed '
          f'{plan.seed} --exp_id {plan.exp_id}')
    return by_reference(info, plan)


def by_image(info: Info, plan: SplitPlan) -> PartRows:
    """Split images at random, regardless of their content; all rows of an image stay together."""
    number = {name: i for i, name in enumerate(dict.fromkeys(info.names))}
    images = np.array([number[name] for name in info.names])
    return by_ratio(images, plan.order(len(number)), plan.train_ratio, plan.train_and_val_ratio, 'images')


def by_reference(info: Info, plan: SplitPlan) -> PartRows:
    """Split contents at random, each with all its images."""
    contents = np.unique(info.ref_ids)
    return by_ratio(info.ref_ids, contents[plan.order(len(contents))], plan.train_ratio, plan.train_and_val_ratio,
                    info.units)


def everything(info: Info, plan: SplitPlan) -> PartRows:
    """Split contents at random into train and val only; the share of train is train_ratio / train_and_val_ratio."""
    return by_reference(info, replace(plan, train_ratio=plan.train_ratio / (plan.train_and_val_ratio or 1),
                                      train_and_val_ratio=1.))


def kfold(info: Info, plan: SplitPlan) -> PartRows:
    """Deal contents, in random order, to the folds in turn."""
    contents, content = np.unique(info.ref_ids, return_inverse=True)
    fold = np.empty(len(contents), int)
    fold[plan.order(len(contents))] = np.arange(len(contents)) % plan.folds
    return _of_folds(fold[content], f'{len(contents)} {info.units}', plan)


def sorted_interleaved_folds(mos: np.ndarray, n: int, order: str = 'slides') -> list[np.ndarray]:
    """Deal images to n folds in turn, from the highest MOS to the lowest; return their positions, fold by fold.

    Every fold has the same spread of scores. Images of equal MOS (N,) keep their order. `order`, a name in FOLD_ORDERS,
    says which fold is called 0: 'slides' the one that is dealt to last (of 5 folds, fold 0 has the places 4, 9, 14,
    ...), 'published' the one that is dealt to first; so the slides and the published tables of the MANIQA ensemble.
    """
    descending = np.argsort(-np.asarray(mos, float), kind='stable')
    folds = [descending[first::n] for first in range(n)]
    return folds if pick(FOLD_ORDERS, order, 'fold order') == 'published' else folds[::-1]


def kfold_sorted(info: Info, plan: SplitPlan) -> PartRows:
    """Return the folds of `sorted_interleaved_folds`, numbered as --fold_order says."""
    fold = np.empty(len(info.names), int)
    for i, positions in enumerate(sorted_interleaved_folds(info.mos, plan.folds, plan.fold_order)):
        fold[positions] = i
    return _of_folds(fold, f'{len(fold)} images', plan)


def by_pyiqa(info: Info, plan: SplitPlan) -> PartRows:
    """Return the numbered split of the info file; if it has none, split images at random as the pyiqa toolbox does."""
    if info.numbered:
        if plan.index not in info.numbered:
            raise UserError(f'--split_index {plan.index}: the info file has the splits '
                            f'{", ".join(map(str, sorted(info.numbered)))}')
        return {part: np.flatnonzero(info.numbered[plan.index] == part) for part in PARTS}
    splits = pyiqa_splits(len(info.names))
    if plan.index > len(splits):
        raise UserError(f'--split_index {plan.index}: expected 1 to {len(splits)}')
    return {part: np.array(sorted(splits[plan.index - 1].get(part, ())), int) for part in PARTS}


def _of_folds(fold: np.ndarray, dealt: str, plan: SplitPlan) -> PartRows:
    if not 0 <= plan.fold < plan.folds:
        raise UserError(f'--fold {plan.fold}: expected 0..{plan.folds - 1} with --folds {plan.folds}')
    if plan.folds > len(set(fold.tolist())):
        raise UserError(f'--folds {plan.folds}: expected at most one fold for each of the {dealt}')
    val = fold == plan.fold
    test = fold == (plan.fold + 1) % plan.folds if plan.test_fold == 'next' else np.zeros(len(fold), bool)
    return {'train': np.flatnonzero(~val & ~test), 'val': np.flatnonzero(val), 'test': np.flatnonzero(test)}


FOLD_ORDERS = ('slides', 'published')  # of kfold-sorted, see sorted_interleaved_folds
TEST_FOLDS = ('next', 'none', 'val')  # the test part: the next fold; absent; absent, and the run is tested on val
SPLITS: dict[str, Callable[[Info, SplitPlan], PartRows]] = {
    'official': official, 'random': by_image, 'reference': by_reference, 'all': everything, 'kfold': kfold,
    'kfold-sorted': kfold_sorted, 'pyiqa': by_pyiqa,
}


def choose(info: Info, plan: SplitPlan) -> PartRows:
    """Split as planned, and print a note if parts share contents or seem to; the test part may be absent.

    Raises UserError if train or val is empty.
    """
    parts = rows_in_file(plan.file, info.names, plan.index) if plan.file else SPLITS[plan.split](info, plan)
    for part in ('train', 'val'):
        if len(parts[part]) == 0:
            raise UserError(f'the split leaves {part} empty: {len(info.names)} images with '
                            f'{f"--split_file {plan.file}" if plan.file else f"--split {plan.split}"}')
    if len(parts['test']) == 0:
        del parts['test']
    images = [{info.names[i] for i in rows} for rows in parts.values()]
    if sum(map(len, images)) > len(set().union(*images)):
        raise UserError(f'--split {plan.split} puts the rows of one image into several parts: --split reference or '
                        'random keep them together')
    shared = shared_contents(info, parts)
    if shared:
        print(f'Note: {len(shared)} of {len(set(info.ref_ids.tolist()))} contents are in more than one part '
              '(--split reference keeps them apart)')
    if scenes := shared_scenes(info, parts):
        print(f'Note: {scenes}')
    return parts


def shared_contents(info: Info, parts: PartRows) -> list[int]:
    """Return the contents whose images are in more than one part."""
    return _in_several(info.ref_ids.tolist(), parts)


def _in_several(groups: Sequence, parts: PartRows) -> list:
    """Return the groups, given by N labels, whose images are in more than one part, in ascending order."""
    found = [{groups[i] for i in rows} for rows in parts.values()]
    return sorted({group for i, some in enumerate(found) for others in found[:i] for group in some & others})


def shared_scenes(info: Info, parts: PartRows) -> str:
    """Describe scenes, guessed from file names, that are in several parts; '' if there are none or contents are known.
    """
    scenes = scenes_by_name(info.names) if info.units == 'images' else []
    shared = _in_several(scenes, parts) if scenes else []
    if not shared:
        return ''
    return (f'{len(shared)} of {len(set(scenes))} beginnings of names that look like scenes, as {shared[0]!r}, are in '
            'more than one part: a column reference or content of the info file keeps the images of a scene together')


def scenes_by_name(names: Sequence[str]) -> list[str]:
    """Return the beginning of each file name, up to the first - _ or dot, if these look like scenes; else nothing.

    They look like scenes if at least three differ, nearly all images share theirs with another image, and none has more
    images than a third of the set or MOST_VERSIONS.

    >>> scenes_by_name(['i01_1.bmp', 'i01_2.bmp', 'i02_1.bmp', 'i02_2.bmp', 'I03_1.bmp', 'i03_2.bmp'])
    ['i01', 'i01', 'i02', 'i02', 'i03', 'i03']
    >>> scenes_by_name(['1.jpg', '2.jpg', '3.jpg'])
    []
    """
    scenes = [re.split(r'[-_.]', PurePosixPath(name).name.lower(), maxsplit=1)[0] for name in names]
    size = Counter(scenes)
    alone = sum(1 for count in size.values() if count == 1)
    looks = len(size) >= 3 and alone <= len(names) / 10 and max(size.values()) <= min(MOST_VERSIONS, len(names) / 3)
    return scenes if looks else []


def rows_in_file(path: str | Path, names: Sequence[str], index: int = 1) -> PartRows:
    """Read the split of the images `names` from a file; UserError if it names other images, or not all of them.

    `index`: number of the split in a file of pickled splits of the pyiqa toolbox.
    """
    if Path(path).suffix.lower() in PICKLES:
        return split_of(path, index, len(names))
    part_of = {name: part for part, some in read_split(path).items() for name in some}
    known = dict.fromkeys(map(str, names))
    unknown = [name for name in part_of if name not in known]
    missing = [name for name in known if name not in part_of]
    if unknown or missing:
        raise UserError(f'{path} does not fit the data set: ' + ' and '.join(
            f'{what} {_some(some)}' for what, some in (('it names unknown images:', unknown),
                                                      ('it misses images:', missing)) if some))
    parts = np.array([part_of[name] for name in names], dtype=object)
    return {wanted: np.flatnonzero(parts == wanted) for wanted in PARTS}


def _some(names: list[str]) -> str:
    return f'{len(names)} ({", ".join(names[:3])}{", ..." if len(names) > 3 else ""})'
