"""Measure pairs of reference and distorted image: the cache against decoding, and memory and speed of 22 views.

    python benchmarks/pairs.py [--architecture asna_simple] [--pairs 1024] [--device cuda]

Writes pairs of BMP files of 288x288, eight distorted images to a reference, to a temporary folder. Prints:

    loading   pairs/s of the training loader from the cache, and decoding both files each time, and their ratio
    step      pairs/s of a training step, MSE and Adam, batch 16
    views     pairs x views/s of test_demo.py's scoring, batches over one pair at a time
    memory    peak memory of a process that scores an eighth of the pairs, and of one that scores all, 22 views each
"""
import argparse
import multiprocessing
import resource
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from iqa_data.datasets import Source
from iqa_data.loaders import Data, Loading
from iqa_data.transforms import Preprocess
from iqa_runtime.process import keep_freed_memory
from iqa_scoring.average import Average
from iqa_scoring.scorer import Scorer
from iqa_scoring.stream import Reader, score_files
from iqa_scoring.views import VIEWS
from IQAdataset import open_data
from IQAmodel import NETWORKS, create_model

SIDE, PER_REFERENCE, BATCH = 288, 8, 16


def write_pairs(folder: Path, n: int) -> list[tuple[str, str]]:
    """Write n pairs and pairs.csv; return the paths (reference, distorted)."""
    rng = np.random.default_rng(0)
    (folder / 'references').mkdir()
    rows, pairs = ['image,mos,reference'], []
    for i in range(n):
        reference = f'references/r{i // PER_REFERENCE}.bmp'
        if i % PER_REFERENCE == 0:
            pixels = rng.integers(0, 200, (SIDE, SIDE, 3), np.uint8)
            Image.fromarray(pixels).save(folder / reference)
        noisy = pixels + rng.integers(0, 5 + 6 * (i % PER_REFERENCE), pixels.shape, np.uint8)
        Image.fromarray(noisy).save(folder / f'd{i}.bmp')
        rows.append(f'd{i}.bmp,{rng.uniform(0, 1)},{reference}')
        pairs.append((str(folder / reference), str(folder / f'd{i}.bmp')))
    (folder / 'pairs.csv').write_text('\n'.join(rows) + '\n')
    return pairs


def data_of(folder: Path, cache: str) -> Data:
    """Return the pairs as training images."""
    return open_data(Source(str(folder), str(folder / 'pairs.csv'), ''), 'pairs',
                     lambda info: {'train': np.arange(len(info.names))}, Preprocess(),
                     Loading(BATCH, 0, cache, str(folder / 'cache')), inputs=2)


def rate(work: Callable[[], int], rounds: int) -> float:
    """Return the items that the work completes per second, the median of the rounds after a first one."""
    work()
    rates = []
    for _ in range(rounds):
        start = time.perf_counter()
        n = work()
        rates.append(n / (time.perf_counter() - start))
    return median(rates)


def loading(folder: Path, rounds: int) -> dict[str, float]:
    """Return pairs/s of an epoch of batches, from the cache and decoding each time."""
    rates = {}
    for cache in ('disk', 'none'):
        data = data_of(folder, cache)
        rates[cache] = rate(lambda data=data: sum(len(images[0]) for images, _ in data.training_loader()), rounds)
    return rates


def step(folder: Path, architecture: str, device: str, rounds: int) -> float:
    """Return pairs/s of a training step on a batch that is loaded."""
    keep_freed_memory(device)
    network = create_model(architecture).to(device)
    optimizer = torch.optim.Adam(network.parameters(), 1e-4)
    images, (mos, _) = next(iter(data_of(folder, 'disk').training_loader()))
    inputs = network.prepare(images)

    def one() -> int:
        optimizer.zero_grad()
        loss = (network(*inputs)[-1] - mos.to(device)).square().mean()
        loss.backward()
        optimizer.step()
        return loss.isfinite().item() * len(mos)
    return rate(one, rounds)


def scored(architecture: str, device: str, pairs: list[tuple[str, str]], batch_size: int) -> int:
    """Score the pairs, 22 views each; return the number of views."""
    keep_freed_memory(device)
    scorer = Average([Scorer(create_model(architecture), {'k': [1.], 'b': [0.]}, Preprocess(), device)], 'asna')
    samples = list(score_files(scorer, pairs, Reader(Preprocess()), batch_size))
    assert not any(sample.error for sample in samples)
    return len(samples) * sum(1 for _ in VIEWS['asna'](np.zeros((2, 2, 3), np.uint8)))


def peak(*arguments) -> float:
    """Return the peak memory in MB of a separate process that scores."""
    with multiprocessing.get_context('spawn').Pool(1) as pool:
        return pool.apply(_peak, arguments)


def _peak(*arguments) -> float:
    scored(*arguments)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1000


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Measure and print; return the ratios."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    full_reference = [name for name, entry in NETWORKS.items() if entry.inputs == 2]
    parser.add_argument('--architecture', choices=full_reference, default='asna_simple')
    parser.add_argument('--pairs', type=int, default=1024)
    parser.add_argument('--rounds', type=int, default=3)
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        pairs = write_pairs(Path(folder), args.pairs)
        loaded = loading(Path(folder), args.rounds)
        ratios = {'loading': loaded['disk'] / loaded['none']}
        print(f'loading  cache {loaded["disk"]:.0f} pairs/s, decoding {loaded["none"]:.0f}, ratio '
              f'{ratios["loading"]:.2f}')
        print(f'step     {step(Path(folder), args.architecture, args.device, args.rounds):.2f} pairs/s')
        few = pairs[:BATCH if args.device != 'cpu' else BATCH // 4]  # 22 views of each
        speed = {size: rate(lambda size=size: scored(args.architecture, args.device, few, size), 1)
                 for size in (len(few), 1)}
        ratios['views'] = speed[len(few)] / speed[1]
        print(f'views    batches of {len(few)} {speed[len(few)]:.1f} views/s, single pairs {speed[1]:.1f}, ratio '
              f'{ratios["views"]:.2f}')
        memory = {n: peak(args.architecture, args.device, pairs[:n], BATCH) for n in (len(pairs) // 8, len(pairs))}
        (n, least), (whole, most) = memory.items()
        ratios['memory'] = most / least
        print(f'memory   {n} pairs {least:.0f} MB, {whole} pairs {most:.0f} MB, ratio {ratios["memory"]:.2f}')
    return ratios


if __name__ == '__main__':
    main()
