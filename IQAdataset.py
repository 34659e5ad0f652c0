"""Data sets of images with mean opinion scores (MOS), and their loaders."""
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import copy
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from iqa_data import AUGMENTATIONS, PAPERS
from iqa_data.augmentation import Augmentation, FixedAugmentation
from iqa_data.contents import Contents, check_apart
from iqa_data.crops import crops_of
from iqa_data.datasets import DATASETS, Source, dataset_name, named_source, require, sets_of
from iqa_data.find import find_dataset
from iqa_data.images import ImageError
from iqa_data.info import Info, read_info
from iqa_data.loaders import Data, Loading
from iqa_data.references import check_pairs, references_of, stay_inside
from iqa_data.several import SeveralData, turned
from iqa_data.splits import SPLITS, SplitPlan, choose
from iqa_data.target import target_of
from iqa_data.transforms import Preprocess, preprocess_of
from iqa_runtime.distributed import device_of
from iqa_runtime.errors import UserError, pick
from iqa_runtime.files import Paths, check_outputs
from iqa_runtime.labels import Labels
from iqa_runtime.options import Options


class IQADataset(Dataset):
    """Images with their opinion scores; item i is ((image, ...), (mos, std)).

    An item has one image, or two, reference and distorted; each is (3, H, W) uint8. The scores are (1,) float32 in MOS
    units. `batch` reads several items at once, with Labels, which contain everything known about the opinions; the
    memory order of the images is (N, H, W, 3), torch's channels_last, so that each image is copied only once.

    Args:
        paths: the image files of each item, reference first.
        mos, std: (N,) mean and standard deviation of the opinions.
        read: path -> (H, W, 3) uint8 array: Preprocess.array or a DecodedImages.
        augment: PIL images of an item -> as many PIL images, the random part of training. A FixedAugmentation has
            variants of item i at the positions i + N variant.
        more: name -> (N, C) what else is known of the opinions (see iqa_runtime.labels.Labels).
    """

    def __init__(self, paths: Sequence[tuple[Path, ...]], mos: np.ndarray, std: np.ndarray,
                 read: Callable[[Path], np.ndarray], augment: Augmentation | None = None,
                 more: Mapping[str, np.ndarray] | None = None):
        self.paths, self.read, self.augment = list(paths), read, augment
        mos, std = np.reshape(mos, (-1, 1)), np.reshape(std, (-1, 1))
        self.labels = Labels(mos, std, more or {}).map(lambda values: torch.as_tensor(values, dtype=torch.float32))

    @property
    def mos(self) -> torch.Tensor:
        """Return the mean opinion scores, (N, 1)."""
        return self.labels.mos

    def __len__(self) -> int:
        return len(self.paths)

    def repeated(self, times: int) -> 'IQADataset':
        """Return a data set that contains each item `times` times, for several crops of an image."""
        more = copy(self)
        more.paths, more.labels = self.paths * times, self.labels.map(lambda values: values.repeat(times, 1))
        return more

    def __getitem__(self, i: int) -> tuple[tuple[torch.Tensor, ...], tuple[torch.Tensor, torch.Tensor]]:
        images, (mos, std) = self.batch([i])
        return tuple(image[0] for image in images), (mos[0], std[0])

    def batch(self, rows: list[int]) -> tuple[tuple[torch.Tensor, ...], Labels]:
        """Return a batch of images of one size, (N, 3, H, W) uint8 each, and its labels, (N, 1) each."""
        first = self._pixels(rows[0])
        batches = [torch.empty(len(rows), *pixels.shape, dtype=torch.uint8) for pixels in first]
        places = [batch.numpy() for batch in batches]
        for n, i in enumerate(rows):
            for place, pixels in zip(places, first if n == 0 else self._pixels(i), strict=True):
                place[n] = pixels
        return tuple(batch.permute(0, 3, 1, 2) for batch in batches), self.labels_of(rows)

    def labels_of(self, rows: list[int]) -> Labels:
        """Return the labels of a batch, (N, 1) each."""
        items = [row % len(self) for row in rows]
        return self.labels.map(lambda values: values[items])

    def _pixels(self, row: int) -> list[np.ndarray]:
        variant, i = divmod(row, len(self))
        pixels = [self.read(path) for path in self.paths[i]]
        if self.augment is None:
            return pixels
        images = map(Image.fromarray, pixels)
        fixed = isinstance(self.augment, FixedAugmentation)
        changed = self.augment(self.paths[i][-1].name, variant, *images) if fixed else self.augment(*images)
        return [np.asarray(image) for image in changed]


def open_data(source: Source, name: str, rows: Callable[[Info], dict[str, np.ndarray]], preprocess: Preprocess,
              loading: Loading, inputs: int = 1, outputs: Mapping[str, Paths] | None = None,
              fits: Callable[[tuple[int, int]], None] | None = None) -> Data:
    """Read the info file of `source`, choose images with `rows(info)`, and decode every chosen image.

    Raises UserError if the folder, the info file or an image is missing or broken, with advice on how to get them, or
    if an output would overwrite an image.

    Args:
        source: places of the data set.
        name: its name, for messages.
        rows: info -> {part: positions of its images}.
        preprocess: fixed preprocessing of the images.
        loading: how images are loaded.
        inputs: 2 adds the reference image to each item.
        outputs: option -> files that will be written.
        fits: called with the (h, w) of the first image before all images are decoded; may raise UserError.
    """
    require(source, name)
    info = read_info(source.info)
    parts = rows(info)
    names = {part: [info.names[i] for i in positions] for part, positions in parts.items()}
    if not loading.allow_outside:
        stay_inside(source.im_dir, [name for files in names.values() for name in files])
    paths = {part: [(Path(source.im_dir, file),) for file in files] for part, files in names.items()}
    if inputs == 2:
        every = np.concatenate(list(parts.values()))
        reference = dict(zip(every, references_of(source, name, info, every, loading.allow_outside), strict=True))
        paths = {part: [(reference[i], path) for i, (path,) in zip(chosen, paths[part], strict=True)]
                 for part, chosen in parts.items()}
    files = list(dict.fromkeys(path for pairs in paths.values() for item in pairs for path in item))
    check_outputs(outputs or {}, {'--im_dir': files})
    if fits:
        with suppress(ImageError):  # loading names all images that cannot be read
            fits(preprocess.size(files[0]))
    read, sizes = loading.open(files, preprocess)
    size = dict(zip(files, sizes, strict=True))
    check_pairs([item for pairs in paths.values() for item in pairs], size)
    more = info.more
    datasets = {part: IQADataset(paths[part], info.mos[chosen], info.std[chosen], read,
                                 more={name: values[chosen] for name, values in more.items()})
                for part, chosen in parts.items()}
    return Data(name, names, datasets, {part: [size[item[-1]] for item in pairs] for part, pairs in paths.items()},
                preprocess, loading, info.higher_is_better,
                votes={} if info.votes is None else {part: info.votes[chosen] for part, chosen in parts.items()})


def load_data(name_or_csv: str | Path, split: str | Path | SplitPlan = 'official',
              resize: tuple[int, int] | None = None, batch_size: int = 8, cache: str = 'ram', *,
              im_dir: str | Path | None = None, ref_dir: str | Path | None = None, inputs: int = 1,
              augment: Augmentation | None = None, num_workers: int = 0, cache_dir: str = 'cache') -> Data:
    """Load a data set from Python, split into train, val and test: `load_data('my.csv').loader('train')`.

    Args:
        name_or_csv: a name in DATASETS, or the path of an info file (iqa_data/info.py).
        split: a name in SPLITS; the path of a split, as main.py writes it; or a SplitPlan, with folds, shares, seed.
        resize: the (h, w) that images are resized to, with Pillow's bilinear filter; None: no resizing.
        batch_size: images in a batch.
        cache: where decoded images are kept: 'ram', 'disk' (in `cache_dir`), 'none'.
        im_dir, ref_dir: folders of the images and of the reference images (default: those of the data set).
        inputs: 2 adds the reference to each item, for a full-reference network (Network.inputs).
        augment: random changes of training images.
        num_workers: processes that decode and augment images.

    Raises UserError if the data set, an image or a reference is missing or broken, or if the sizes of the training
    images differ.
    """
    dataset = find_dataset(str(name_or_csv))
    draw_demo(dataset)
    source = named_source(dataset, im_dir and str(im_dir), None, ref_dir and str(ref_dir))
    if not isinstance(split, SplitPlan):
        split = SplitPlan(file=str(split)) if Path(split).is_file() else SplitPlan(pick(SPLITS, str(split), 'split'))
    data = open_data(source, dataset_name(dataset), lambda info: choose(info, with_ratios(split, source)),
                     Preprocess(resize, source.first_resize), Loading(batch_size, num_workers, cache, cache_dir),
                     inputs)
    data.augment = augment
    check_sizes(set(data.sizes['train']), augment, batch_size)
    return data


def draw_demo(dataset: str) -> None:
    """Draw the demo data set if `dataset` is 'demo' and it does not exist yet."""
    if dataset == 'demo' and not Path(DATASETS['demo'].info).exists():
        from iqa_data.demo import OUT_DIR, make_demo  # needs more packages, to draw the images
        print(f'Drawing the demo data set in {OUT_DIR.resolve()}', flush=True)
        make_demo()


def of_each_set(args: Options) -> list[Options]:
    """Return the options of each data set that the options name."""
    sets = sets_of(args.dataset)
    return [args.having(dataset=one) for one in sets] if len(sets) > 1 else [args]


def source_at(args: Options) -> Source:
    """Return the source of the one data set that the options name; the demo data set is drawn if it is missing."""
    if not args.data_info:
        draw_demo(args.dataset)
    return named_source(args.dataset, args.im_dir, args.data_info, args.ref_dir)


def get_data_loaders(args: Options, inputs: int = 1, outputs: Mapping[str, Paths] | None = None,
                     fits: Callable[[tuple[int, int]], None] | None = None) -> Data:
    """Return the train, val and test parts that the options describe; with --debug, 5 batches, 5 and 5 images of them.

    Several data sets, which are trained on at once, are a SeveralData.

    Args:
        args: the options of a command.
        inputs: number of images that the network compares; with 2, items are pairs (reference, distorted).
        outputs: option -> files that will be written; UserError if an image is one of them (see check_outputs).
        fits: called with the (h, w) of a training image before all are decoded; raises UserError if the network does
            not take it.
    """
    each = of_each_set(args)
    if len(each) == 1:
        data = set_at(args, partial(rows_of, args), inputs, outputs, fits)
    else:
        sets = [Contents.of(dataset_name(one.dataset), source_at(one), partial(rows_of, one)) for one in each]
        check_apart(sets)
        data = SeveralData.of(turned([set_at(one, lambda info, parts=known.parts: parts, inputs, outputs, fits)
                                      for one, known in zip(each, sets, strict=True)]), args.data_weights)
        check_sizes(set(data.sizes['train']), data.augment, args.batch_size)
    if data.train_crops > 1 and args.cache == 'none':
        print(f'WARNING: --cache none decodes each training image {data.train_crops} times in an epoch; --cache disk '
              'or ram, once')
    return data


def rows_of(args: Options, info: Info) -> dict[str, np.ndarray]:
    """Return the positions of the images of each part of the one data set that the options name."""
    source = source_at(args)
    parts = choose(info, plan_of(args, source))
    mos = info.mos[parts['train']]
    if len(mos) > 1 and mos.min() == mos.max():
        raise UserError(f'{source.info}: all {len(mos)} training images have the MOS {mos[0]:g}: no network can '
                        'learn from them what quality is')
    most = {'train': max(1, 5 * args.batch_size // args.train_crops), 'val': 5, 'test': 5}
    return {part: chosen[:most[part]] for part, chosen in parts.items()} if args.debug else parts


def set_at(args: Options, rows: Callable[[Info], dict[str, np.ndarray]], inputs: int,
           outputs: Mapping[str, Paths] | None, fits: Callable[[tuple[int, int]], None] | None) -> Data:
    """Return the parts of the one data set that the options name, of the positions that `rows` returns."""
    source, augment = source_at(args), augmentation_of(args)

    def check(size: tuple[int, int]) -> None:
        check_sizes({size}, augment, args.batch_size)
        if fits:
            fits(augment.crop if augment and 'crop' in augment.parts else size)

    data = open_data(source, dataset_name(args.dataset), rows, preprocess_of(args, source), loading_of(args),
                     inputs, outputs, check)
    data.augment, data.target = augment, target_of(args.target, data.datasets['train'].mos.numpy())
    data.tested = 'test' if 'test' in data.names else 'val' if args.test_fold == 'val' else None
    check_sizes(set(data.sizes['train']), augment, args.batch_size)
    data.crops, data.train_crops = crops_of(args), args.train_crops
    if args.fixed_augmentations:
        data.fixed = FixedAugmentation(augment, args.fixed_augmentations, args.seed)
    if data.crops:
        data.crops.check([size for sizes in data.sizes.values() for size in sizes])
    return data


def check_sizes(sizes: set[tuple[int, int]], augment: Augmentation | None, batch_size: int) -> None:
    """Raise UserError if training images of these (h, w) cannot be cropped, turned or stacked in a batch."""
    parts = augment.parts if augment else ()
    if 'crop' in parts:
        small = min(h for h, _ in sizes), min(w for _, w in sizes)
        if small[0] < augment.crop[0] or small[1] < augment.crop[1]:
            raise UserError(f'--crop_size_h {augment.crop[0]} --crop_size_w {augment.crop[1]} is larger than the '
                            f'smallest training image, {small[0]}x{small[1]} (h x w)')
        sizes = {augment.crop}
    if len(sizes) > 1 and batch_size > 1:
        raise UserError(f'the training images are of {len(sizes)} sizes, from {min(sizes)} to {max(sizes)} (h, w), and '
                        'cannot be stacked in a batch: give --resize or --augmentation crop')
    if 'rot90' in parts and any(h != w for h, w in sizes):
        raise UserError('--augmentation rot90 turns images by 90 degrees, which needs square ones: add crop before '
                        'it, with --crop_size_h equal to --crop_size_w, or --resize to a square')


def plan_of(args: Options, source: Source) -> SplitPlan:
    """Return the split that the options describe; an official split may have its own shares."""
    return with_ratios(SplitPlan(args.split, args.exp_id, args.train_ratio, args.train_and_val_ratio, args.split_seed,
                                 args.folds, args.fold, args.split_file, args.test_fold, args.fold_order,
                                 args.split_index), source)


def with_ratios(plan: SplitPlan, source: Source) -> SplitPlan:
    """Return the plan with the data set's own shares, if it is an official split that has them."""
    if not source.ratios or plan.split != 'official':
        return plan
    train, train_and_val = source.ratios
    return replace(plan, train_ratio=train, train_and_val_ratio=train_and_val)


def augmentation_of(args: Options) -> Augmentation | None:
    """Return the augmentation of training images that the options describe; None: no augmentation."""
    if args.augmentation is None:
        return None
    options = {name: getattr(args, name) for name in AUGMENTATIONS.parameters}
    return Augmentation(tuple(args.augmentation) or PAPERS, **options)


def loading_of(args: Options) -> Loading:
    """Return how images are loaded, from the options."""
    return Loading(args.batch_size, args.num_workers, args.cache, args.cache_dir,
                   device_of(args.device).startswith('cuda'), args.allow_outside)
