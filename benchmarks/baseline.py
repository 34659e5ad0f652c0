"""Provide the baseline of the benchmarks, which works as the paper's package does, and their shared functions.

Decode all images up front in one thread and keep them as PIL images; convert and normalise each in float on the CPU;
evaluate one image at a time without workers; contiguous memory format.
"""
import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset
from torchvision import transforms

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from iqa_data.info import write_info
from iqa_networks.network import Network
from iqa_networks.normalise import NORMALISATIONS
from iqa_networks.size import macs

SIZE = (498, 664)  # (h, w), the paper's
IMAGENET = NORMALISATIONS['imagenet']


class Baseline(Dataset):
    """Images decoded up front; item i is (float (3, H, W), (mos, std))."""

    def __init__(self, paths: list[Path]):
        self.images = [Image.open(path).convert('RGB').resize(SIZE[::-1], Image.Resampling.BILINEAR) for path in paths]
        self.mos = torch.arange(float(len(paths)))[:, None]
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize(IMAGENET.mean, IMAGENET.std)])

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int):
        return self.transform(self.images[i]), (self.mos[i], self.mos[i])


def photographs(folder: Path, count: int, size: tuple[int, int] = (768, 1024)) -> list[Path]:
    """Write `count` JPEG files of `size` (h, w) with a photograph's share of detail, unless they are there."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f'{i:05d}.jpg' for i in range(count)]
    for i, path in enumerate(paths):
        if not path.exists():
            rng = np.random.RandomState(i)
            coarse = Image.fromarray(rng.randint(0, 256, (size[0] // 16, size[1] // 16, 3), np.uint8))
            pixels = np.asarray(coarse.resize(size[::-1], Image.Resampling.BICUBIC), np.float32)
            noisy = (pixels + rng.normal(0, 8, pixels.shape)).clip(0, 255).astype(np.uint8)
            Image.fromarray(noisy).save(path, quality=90)
    return paths


def own_memory(process: int | str = 'self') -> float:
    """Return the megabytes of a process's own memory, without mapped files; 0 if it has ended."""
    try:
        status = Path(f'/proc/{process}/status').read_text()
        return int(status.split('RssAnon:')[1].split()[0]) / 1e3
    except (OSError, IndexError):
        return 0


def write_labels(path: Path, images: list[Path]) -> None:
    """Write an info file that gives the images rising scores."""
    n = len(images)
    mos = np.linspace(0, 100, n)
    write_info(path, [image.name for image in images], mos, mos / 10, range(1, n + 1), np.arange(1, n + 1)[:, None])


def forward_flops(network: Network, size: tuple[int, int]) -> int:
    """Count the floating-point operations of a forward pass of one image, or pair, in eval mode."""
    return round(2 * macs(network, size))


def processor() -> float:
    """Return the seconds that this process and its ended children used of the processor, in the system too."""
    return sum(os.times()[:4])


def peak_memory() -> float:
    """Return the peak megabytes of this process."""
    status = Path('/proc/self/status').read_text(encoding='utf-8')  # getrusage's peak would be that of the parent, too
    return int(status.split('VmHWM:')[1].split()[0]) / 1e3


def seconds(work: Callable[[], object], repeats: int = 3, clock: Callable[[], float] = time.perf_counter) -> float:
    """Return the least time of several runs, which other work on the machine disturbs least."""
    times = []
    for _ in range(repeats):
        started = clock()
        work()
        times.append(clock() - started)
    return min(times)


work: dict[str, Callable[[], object]] = {}  # name -> work that this process can measure


def measure(what: str, clock: Callable[[], float]) -> float:
    """Return the seconds of one call of work[what]."""
    return seconds(work[what], 1, clock)


def in_turns(prepare: Callable, arguments: tuple, names: Sequence[str], rounds: int,
             clock: Callable[[], float] = time.perf_counter) -> dict[tuple[str, str], float]:
    """Return (name, side) -> the least seconds of several rounds by a clock; 'baseline' and 'ours' take turns.

    ('peak memory', side) is that of a side's process in MB.

    Each side has a process of its own, in which prepare(side, *arguments) fills `work`: for ours keeps memory that the
    baseline's gives back. A machine whose speed drifts slows both.
    """
    pools = {side: ProcessPoolExecutor(1, get_context('spawn'), prepare, (side, *arguments))
             for side in ('baseline', 'ours')}
    best = {}
    for _ in range(rounds):
        for name, side in product(names, pools):
            took = pools[side].submit(measure, name, clock).result()
            best[name, side] = min(best.get((name, side), took), took)
    for side, pool in pools.items():
        best['peak memory', side] = pool.submit(peak_memory).result()
        pool.shutdown()
    return best


def row(what: str, baseline: float, ours: float, unit: str = 'ms') -> None:
    """Print a row of the table: both times and how many times faster ours is."""
    print(f'| {what} | {baseline:.2f} {unit} | {ours:.2f} {unit} | {baseline / ours:.1f} |', flush=True)


def options(description: str, **numbers: int) -> argparse.Namespace:
    """Parse --NAME for each number, with its default; --folder for the files."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument('--folder', type=Path, default=Path('cache/benchmark'), help='where images are written')
    for name, default in numbers.items():
        parser.add_argument(f'--{name}', type=int, default=default)
    return parser.parse_args()
