"""Measure the loading of images, the time of a start, and the growth of memory, against the baseline.

    python benchmarks/loading.py
"""
import os
import shutil
import time
from pathlib import Path

import numpy as np
import PIL
import torch
from baseline import SIZE, Baseline, in_turns, options, own_memory, photographs, row, seconds, work, write_labels
from torch.utils.data import DataLoader

from iqa_data.cache import on_disk
from iqa_data.datasets import Source
from iqa_data.loaders import Loading
from iqa_data.transforms import Preprocess
from iqa_networks.normalise import NORMALISATIONS
from iqa_runtime.process import keep_freed_memory
from IQAdataset import open_data

BATCH = 8


def starts(paths: list[Path], cache: Path) -> None:
    """Print milliseconds per image of decoding, by the baseline and by us, and of opening the decoded images later."""
    started = time.perf_counter()
    Baseline(paths)
    baseline = time.perf_counter() - started
    shutil.rmtree(cache, ignore_errors=True)
    started = time.perf_counter()
    on_disk(paths, Preprocess(SIZE), cache)
    first = time.perf_counter() - started
    second = seconds(lambda: on_disk(paths, Preprocess(SIZE), cache))
    row('first start, decoding, per image', baseline / len(paths) * 1e3, first / len(paths) * 1e3)
    row('second start, decoding, per image', baseline / len(paths) * 1e3, second / len(paths) * 1e3)


def prepare(side: str, paths: list[Path], cache: Path, passes: int) -> None:
    """Fill `work` with 'uint8', as our loader gives batches, and 'normalised', as the baseline's always does."""
    if side == 'baseline':
        loader = DataLoader(Baseline(paths), BATCH, shuffle=True, num_workers=4, multiprocessing_context='fork')
        work['uint8'] = work['normalised'] = lambda: [None for _ in range(passes) for _ in loader]
    else:
        keep_freed_memory('cpu')
        data = as_data(paths, cache)
        work['uint8'] = lambda: [None for _ in range(passes) for _ in data.training_loader()]
        work['normalised'] = lambda: [None for _ in range(passes) for (images,), _ in data.training_loader()
                                      if NORMALISATIONS['imagenet'](images) is None]


def as_data(paths: list[Path], cache: Path, size: tuple[int, int] = SIZE):
    """Open the images as main.py does, all of them the training part."""
    n, info = len(paths), cache / f'{len(paths)}.mat'
    if not info.exists():
        write_labels(info, paths)
    return open_data(Source(str(paths[0].parent), str(info), ''), 'benchmark', lambda _: {'train': np.arange(n)},
                     Preprocess(size), Loading(BATCH, cache='disk', cache_dir=str(cache)))


def large_set(folder: Path, count: int) -> None:
    """Print the time of a second start on as many images as KonIQ-10k has, and memory with a tenth and with all."""
    small = (32, 32)
    paths = photographs(folder / 'many', count, small)
    few = as_data(paths[:count // 10], folder / 'cache', small)
    [None for _ in few.training_loader()]
    before = own_memory()
    as_data(paths, folder / 'cache', small)
    started = time.perf_counter()
    data = as_data(paths, folder / 'cache', small)
    print(f'\nsecond start on {count} images: {time.perf_counter() - started:.2f} s')
    [None for _ in data.training_loader()]
    print(f'own memory with {count // 10} images {before:.0f} MB, with {count} {own_memory():.0f} MB')


def main() -> None:
    """Print the table."""
    args = options(__doc__, images=96, passes=3, many=10073, rounds=5)
    print(f'{os.cpu_count()} cores, torch {torch.__version__}, Pillow {PIL.__version__}, {args.images} images of '
          f'1024x768 JPEG, resized to {SIZE[1]}x{SIZE[0]}\n')
    print('| what | baseline | ours | times faster |\n|---|---|---|---|')
    paths, cache = photographs(args.folder / 'photographs', args.images), args.folder / 'cache'
    starts(paths, cache)
    names = {'uint8': 'loading, uint8 batches', 'normalised': 'loading, normalised on the CPU'}
    best = in_turns(prepare, (paths, cache, args.passes), list(names), args.rounds)
    for name, what in names.items():
        row(f'{what}, per image', *(best[name, side] / len(paths) / args.passes * 1e3 for side in ('baseline', 'ours')))
    large_set(args.folder, args.many)


if __name__ == '__main__':
    main()
