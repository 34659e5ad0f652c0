"""Data sets of photographs with mean opinion scores (MOS): preprocessing, loaders."""
import os
from collections.abc import Callable, Sequence
from copy import copy
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import BatchSampler, DataLoader, Dataset, RandomSampler

from iqa_data.cache import for_each_image, in_memory, on_disk
from iqa_data.info import DATASETS, Info, Source, dataset_name, named_source, read_info, require
from iqa_data.samplers import SameSize, Share
from iqa_data.splits import Plan, choose
from iqa_data.transforms import Preprocess
from iqa_runtime.distributed import fewest_images
from iqa_runtime.errors import UserError


class IQADataset(Dataset):
    """Images with their opinion scores; item i is (image (3, H, W) uint8, (mos (1,), std (1,)) float32).

    A DataLoader gets whole batches of them by `__getitems__`: the images lie in memory as (N, H, W, 3), which is
    torch's channels_last, so that an image is copied once.

    Args:
        paths: the image files.
        mos, std: (N,) mean and standard deviation of the opinions, in MOS units.
        read: path -> (H, W, 3) uint8 array: Preprocess.array or a DecodedImages.
        transform: PIL image -> uint8 tensor (3, H, W), the random part of training; None: the image as it is.
    """

    def __init__(self, paths: Sequence[Path], mos: np.ndarray, std: np.ndarray,
                 read: Callable[[Path], np.ndarray], transform: Callable[[Image.Image], torch.Tensor] | None = None):
        self.paths, self.read, self.transform = list(paths), read, transform
        self.mos, self.std = (torch.as_tensor(np.asarray(v), dtype=torch.float32)[:, None] for v in (mos, std))

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        images, (mos, std) = self.__getitems__([i])
        return images[0], (mos[0], std[0])

    def __getitems__(self, rows: list[int]) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """A batch of images of one size, (N, 3, H, W) uint8, and its scores, (N, 1) each."""
        first = self._pixels(rows[0])
        batch = torch.empty(len(rows), *first.shape, dtype=torch.uint8)
        places = batch.numpy()
        places[0] = first
        for place, i in zip(places[1:], rows[1:], strict=True):
            place[:] = self._pixels(i)
        return batch.permute(0, 3, 1, 2), (self.mos[rows], self.std[rows])

    def _pixels(self, i: int) -> np.ndarray:
        pixels = self.read(self.paths[i])
        return pixels if self.transform is None else self.transform(Image.fromarray(pixels)).permute(1, 2, 0).numpy()


def check_images(paths: Sequence[Path], preprocess: Preprocess) -> list[tuple[int, int]]:
    """Decode every image once, with all cores; return the (h, w) of each as it leaves `preprocess`.

    Raises UserError that names the first bad images, says why, and counts them all.
    """
    def probe(path: Path) -> tuple[int, int]:
        with Image.open(path) as image:
            image.draft('L', (1, 1))  # JPEG only: every byte is read, at an eighth of the resolution
            image.load()
        return preprocess.size(path)
    return for_each_image(paths, probe, 'Checking images')


@dataclass(frozen=True)
class Loading:
    """How images come from files to batches: `cache` is 'disk' (in `cache_dir`), 'ram' or 'none' (see IQAcache)."""

    batch_size: int
    fewest: int = 1  # images in a training batch
    num_workers: int = 0
    cache: str = 'none'
    cache_dir: str = 'cache'
    pin_memory: bool = False
    allow_outside: bool = False  # images that the info file names outside their folder

    def open(self, paths: Sequence[Path], preprocess: Preprocess) -> tuple[Callable[[Path], np.ndarray], list]:
        """What reads an image, and the (h, w) of each; every image has been decoded once, now or for the cache."""
        if self.cache == 'none':
            return preprocess.array, check_images(paths, preprocess)
        images = on_disk(paths, preprocess, self.cache_dir) if self.cache == 'disk' else in_memory(paths, preprocess)
        return images, [images.size(path) for path in paths]


@dataclass
class Data:
    """The parts of a data set that a run uses: {'train', 'val', 'test'} (or 'all') -> file names, data sets, sizes."""

    name: str
    names: dict[str, list[str]]
    datasets: dict[str, IQADataset]
    sizes: dict[str, list[tuple[int, int]]]
    preprocess: Preprocess
    loading: Loading
    higher_is_better: bool = True

    def training_loader(self, transform: Callable | None = None) -> DataLoader:
        """Shuffled batches, drawn with torch's global generator; a last batch that is too small is dropped."""
        dataset, batch_size = copy(self.datasets['train']), self.loading.batch_size
        dataset.transform = transform
        left = len(dataset) % batch_size
        drop = 0 < left < self.loading.fewest and len(dataset) > batch_size
        if drop:
            print(f'The last training batch of each epoch would be of {left} image{"s" * (left > 1)}: it is dropped '
                  f'({len(dataset)} images, batch size {batch_size})')
        return self._loader(dataset, batch_sampler=Share(BatchSampler(RandomSampler(dataset), batch_size, drop)))

    def evaluation_loader(self, part: str, generator: torch.Generator | None = None) -> DataLoader:
        """Every image of a part once, without augmentation, images of one size together (see SameSize.order).

        Starting a loader draws one number from `generator` (None: torch's global one).
        """
        return self._loader(self.datasets[part], batch_sampler=SameSize(self.sizes[part], self.loading.batch_size),
                            generator=generator)

    def _loader(self, dataset: IQADataset, **options) -> DataLoader:
        at_once = self.loading.cache != 'none' and dataset.transform is None  # copying needs no process of its own
        return DataLoader(dataset, num_workers=0 if at_once else self.loading.num_workers,
                          pin_memory=self.loading.pin_memory, collate_fn=_as_it_is, **options)


def _as_it_is(batch):
    return batch


def stay_inside(folder: str | Path, names: Sequence[str]) -> None:
    """Raise UserError where a name leads out of the folder: by .., as an absolute path, or through a symbolic link."""
    root, folders = os.path.realpath(folder), {}

    def real(path: str) -> str:
        parent = os.path.dirname(path)
        if parent not in folders:
            folders[parent] = os.path.realpath(parent)
        return os.path.realpath(path) if os.path.islink(path) else os.path.join(folders[parent], os.path.basename(path))

    out = [name for name in names if not real(os.path.join(folder, name)).startswith(root.rstrip(os.sep) + os.sep)]
    if out:
        raise UserError(f'{len(out)} of {len(names)} images lie outside {folder}, as {out[0]}: if you trust the info '
                        'file, --allow_outside reads them')


def open_data(source: Source, name: str, rows: Callable[[Info], dict[str, np.ndarray]], preprocess: Preprocess,
              loading: Loading) -> Data:
    """Read the info file of `source`, choose positions with `rows(info)`, open every chosen image.

    Raises UserError where the folder, the info file or an image is missing or broken, and how to get them.
    """
    require(source, name)
    info = read_info(source.info)
    parts = rows(info)
    names = {part: [info.names[i] for i in positions] for part, positions in parts.items()}
    if not loading.allow_outside:
        stay_inside(source.im_dir, [name for files in names.values() for name in files])
    paths = {part: [Path(source.im_dir, file) for file in files] for part, files in names.items()}
    read, sizes = loading.open([path for part in paths.values() for path in part], preprocess)
    sizes = iter(sizes)
    return Data(name, names, {part: IQADataset(paths[part], info.mos[parts[part]], info.std[parts[part]], read)
                              for part in parts},
                {part: list(islice(sizes, len(paths[part]))) for part in parts}, preprocess, loading,
                info.higher_is_better)


def get_data_loaders(args) -> Data:
    """The train, val and test parts that the options ask for; with --debug 5 batches, 5 and 5 images of them."""
    if args.dataset == 'demo' and not args.data_info and not Path(DATASETS['demo'].info).exists():
        from iqa_data.demo import make_demo
        make_demo()

    def rows(info: Info) -> dict[str, np.ndarray]:
        parts = choose(info, plan_of(args))
        most = {'train': 5 * args.batch_size, 'val': 5, 'test': 5}
        return {part: chosen[:most[part]] for part, chosen in parts.items()} if args.debug else parts

    source = named_source(args.dataset, args.im_dir, args.data_info)
    data = open_data(source, dataset_name(args.dataset), rows, preprocess_of(args, source), loading_of(args))
    sizes = set(data.sizes['train'])
    if args.augmentation:
        small = min(h for h, _ in sizes), min(w for _, w in sizes)
        if small[0] < args.crop_size_h or small[1] < args.crop_size_w:
            raise UserError(f'--crop_size_h {args.crop_size_h} --crop_size_w {args.crop_size_w} is larger than the '
                            f'smallest training image, {small[0]}x{small[1]} (h x w)')
    elif len(sizes) > 1 and args.batch_size > 1:
        raise UserError(f'the training images are of {len(sizes)} sizes, from {min(sizes)} to {max(sizes)} (h, w), and '
                        'cannot be stacked in a batch: give --resize, --augmentation (which crops) or --batch_size 1')
    return data


def plan_of(args) -> Plan:
    """The split that the options ask for."""
    return Plan(args.split, args.exp_id, args.train_ratio, args.train_and_val_ratio, args.split_seed, args.folds,
                args.fold, args.split_file)


def preprocess_of(args, source: Source) -> Preprocess:
    """The fixed preprocessing that the options and the data set ask for."""
    return Preprocess((args.resize_size_h, args.resize_size_w) if args.resize else None, source.first_resize)


def loading_of(args) -> Loading:
    """How images are loaded, as the options say."""
    return Loading(args.batch_size, fewest_images(args.batch_size, args.sync_bn), args.num_workers, args.cache,
                   args.cache_dir, args.device.startswith('cuda'), args.allow_outside)
