"""Load the parts of a data set in batches: shuffled and augmented for training, every image once for evaluation."""
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import ignite.distributed as idist
import numpy as np
import torch
from torch.utils.data import BatchSampler, DataLoader, Dataset, Sampler

from iqa_data.augmentation import Augmentation, FixedAugmentation
from iqa_data.cache import for_each_image, in_memory, on_disk
from iqa_data.crops import Crops
from iqa_data.images import opened
from iqa_data.samplers import ProcessShare, SameSize, Shuffled
from iqa_data.target import Target
from iqa_data.transforms import Preprocess
from iqa_runtime.errors import UserError, pick
from iqa_runtime.process import seed_by_rank


def check_images(paths: Sequence[Path], preprocess: Preprocess) -> list[tuple[int, int]]:
    """Decode every image once, on all cores; return the (h, w) of each after `preprocess`.

    Raises UserError that names the first unreadable images with the reasons, and counts all of them.
    """
    def probe(path: Path) -> tuple[int, int]:
        with opened(path) as image:
            image.draft('L', (1, 1))  # JPEG only: every byte is read, at an eighth of the resolution
            image.load()
        return preprocess.size(path)
    return for_each_image(paths, probe, 'Checking images')


@dataclass(frozen=True)
class Loading:
    """How images are loaded: batch size, workers, cache.

    Attributes:
        batch_size: images in a batch.
        num_workers: processes that decode and augment images.
        cache: where decoded images are kept: 'disk' (in `cache_dir`), 'ram' or 'none' (see iqa_data/cache.py).
        cache_dir: folder of the cache on disk.
        pin_memory: copy batches to pinned memory, for a GPU.
        allow_outside: read images that the info file names outside their folder.
    """

    batch_size: int
    num_workers: int = 0
    cache: str = 'none'
    cache_dir: str = 'cache'
    pin_memory: bool = False
    allow_outside: bool = False

    def open(self, paths: Sequence[Path], preprocess: Preprocess) -> tuple[Callable[[Path], np.ndarray], list]:
        """Decode every image once; return the function that reads an image, and the (h, w) of each."""
        if self.cache == 'none':
            return preprocess.array, check_images(paths, preprocess)
        images = on_disk(paths, preprocess, self.cache_dir) if self.cache == 'disk' else in_memory(paths, preprocess)
        return images, [images.size(path) for path in paths]


@dataclass
class Data:
    """The parts of a data set that a run uses: {'train', 'val', 'test'} (or 'all') -> file names, data sets, sizes."""

    name: str
    names: dict[str, list[str]]
    datasets: dict[str, Dataset]  # IQAdataset.IQADataset
    sizes: dict[str, list[tuple[int, int]]]
    preprocess: Preprocess
    loading: Loading
    higher_is_better: bool = True
    augment: Augmentation | None = None
    target: Target = field(default_factory=Target)
    train_crops: int = 1         # of a training image in an epoch
    fixed: FixedAugmentation | None = None  # instead of other changes in each epoch
    pooled: int = 0              # tensors of an item if items are pooled features, computed once; 0: images
    crops: Crops | None = None   # that images are scored by; None: whole images
    tested: str | None = 'test'  # the part that a run is tested on in the end
    votes: dict[str, np.ndarray] = field(default_factory=dict)  # part -> how many rated each image, if it is known

    @property
    def sets(self) -> tuple['Data', ...]:
        """Return the data sets that are trained on at once: this one."""
        return (self,)

    def each(self, change: Callable[['Data'], 'Data']) -> 'Data':
        """Return the data with a change of each data set."""
        return change(self)

    @property
    def batch_size(self) -> int:
        """Return the number of images in a batch, over all processes."""
        return self.loading.batch_size

    def loader(self, part: str) -> DataLoader:
        """Return the batches of a part: shuffled and augmented for train, every image once for the other parts.

        A batch is ((image, ...), (mos, std)): uint8 (N, 3, H, W), which Network.prepare takes, and (N, 1) each. A last
        training batch of one image is dropped, since batch normalisation needs two.
        """
        part = pick(self.names, part, 'part')
        return self.training_loader(fewest=2) if part == 'train' else self.evaluation_loader(part)

    def training_loader(self, fewest: int = 1) -> DataLoader:
        """Return shuffled batches; their orders depend on the current state of torch's global generator (see Shuffled).

        A last batch of fewer than `fewest` images is dropped. Each of several processes gets its share of each batch.

        Raises UserError if there are fewer than `fewest` images.
        """
        dataset = self.datasets['train'].repeated(self.train_crops)
        dataset.augment = self.fixed or self.augment
        if len(dataset) < fewest:
            raise UserError(f'{self.name} has {len(dataset)} training image{"s" * (len(dataset) > 1)}, fewer than the '
                            f'{fewest} that batch normalisation needs in a batch')
        left = len(dataset) % self.batch_size
        drop = 0 < left < fewest and len(dataset) > self.batch_size
        if drop:
            print(f'The last training batch of each epoch would be of {left} image{"s" * (left > 1)}: it is dropped '
                  f'({len(dataset)} images, batch size {self.batch_size})')
        if self.batch_size > len(dataset):
            print(f'WARNING: --batch_size {self.batch_size} is larger than the training set of {len(dataset)}: an '
                  'epoch is one batch')
        order = Shuffled(len(dataset), self.fixed.variants if self.fixed else 1)
        return self._loader(dataset, ProcessShare(BatchSampler(order, self.batch_size, drop)), order.generator)

    def evaluation_loader(self, part: str) -> DataLoader:
        """Return every image of a part once, without augmentation, in batches of one image size (see SameSize.order).

        If training uses crops, a batch of whole images has at most as many pixels as a batch of crops, so that it fits
        into memory.
        """
        cropped = self.augment and 'crop' in self.augment.parts
        most = self.batch_size * self.augment.crop[0] * self.augment.crop[1] if cropped else None
        return self._loader(self.datasets[part], SameSize(self.sizes[part], self.batch_size, most), torch.Generator())

    def _loader(self, dataset: Dataset, batches: Sampler, generator: torch.Generator) -> DataLoader:
        """Return the loader of these batches; when it starts, it seeds its workers with a number from `generator`.

        Several processes draw the same number, to which each adds its rank, so that their augmentation differs.

        It fetches positions only; `dataset.batch`, its collate function, reads the images of a whole batch.
        """
        at_once = self.loading.cache != 'none' and dataset.augment is None  # copying needs no process of its own
        workers = 0 if at_once else self.loading.num_workers
        variants = self.fixed.variants if self.fixed else 1
        return DataLoader(range(len(dataset) * variants), batch_sampler=batches, num_workers=workers,
                          collate_fn=dataset.batch, pin_memory=self.loading.pin_memory, generator=generator,
                          worker_init_fn=partial(_seed_worker, workers * idist.get_rank()) if workers else None)


def _seed_worker(rank: int, worker: int) -> None:
    seed_by_rank(rank)
