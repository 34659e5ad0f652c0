"""How fast test_demo.py scores images in shards, over how fast the network alone is, and the memory that it takes.

    python benchmarks/shards.py [--images 64] [--architecture resnet18] [--device cuda] [--resize] [--large 100000]

Speed: photographs-like JPEG files of 664x498 (with --resize: of 1024x768, resized to 664x498) as one tar and as one
Parquet, scored into parts. All are measured in turn, `--rounds` times, and the medians are compared: a machine's speed
drifts. `decoding alone` is one thread's rate, from which the README works out how many cores a GPU needs.

Memory: the peak of test_demo.py's own memory with --small and with --large images of 64x48 by CNNIQA, in shards of
1,000; --large 0 leaves it out.
"""
import argparse
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from baseline import SIZE, own_memory, photographs

from iqa_data.transforms import Preprocess
from iqa_runtime.checkpoint import save_checkpoint
from iqa_runtime.process import keep_freed_memory
from iqa_scoring.parts import Parts, units_of
from iqa_scoring.scorer import Scorer
from iqa_scoring.shards import open_shards, prefetched
from iqa_scoring.stream import Reader, row_of, score_files
from IQAmodel import BACKBONES, IQAModel, create_model

LARGE = (768, 1024)
TINY = (48, 64)
PER_SHARD = 1000
EVERY = .2  # seconds between two looks at a process's memory
SCRIPT = Path(__file__).resolve().parents[1] / 'test_demo.py'


def write_tar(path: Path, images: Iterable[Path]) -> str:
    """Write a tar of the images, named by their numbers; return its path."""
    with tarfile.open(path, 'w') as tar:
        for i, image in enumerate(images):
            tar.add(image, f'{i:06d}.jpg')
    return str(path)


def write_parquet(path: Path, images: Iterable[Path]) -> str:
    """Write a Parquet of the images, with the columns of Hugging Face's data sets; return its path."""
    rows = [{'bytes': image.read_bytes(), 'path': f'{i:06d}.jpg'} for i, image in enumerate(images)]
    pq.write_table(pa.table({'image': rows}), path, row_group_size=100)
    return str(path)


WRITERS = {'tar': write_tar, 'parquet': write_parquet}  # suffix -> writer of a shard


def speed(args: argparse.Namespace) -> dict[str, float]:
    """Print images/s of the network alone, from shards to scores, and of decoding; return the ratios by suffix."""
    preprocess = Preprocess(resize=SIZE if args.resize else None)
    scorer = Scorer(IQAModel(args.architecture), {'k': [1.], 'b': [0.]}, preprocess, args.device)
    batches = max(1, args.images // args.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder, 'images'), batches * args.batch_size, LARGE if args.resize else SIZE)
        batch = torch.stack([Reader(preprocess)(0, str(path)).pixels for path in paths[:args.batch_size]])

        def alone() -> None:
            for _ in range(batches):
                scorer.heads(batch)

        def whole(shard: str) -> Callable[[], None]:
            def score() -> None:
                parts = Parts(tempfile.mkdtemp(dir=folder), list(units_of([shard])), False, 'model')
                for sample in score_files(scorer, prefetched(open_shards([shard])), Reader(preprocess), args.batch_size,
                                          args.num_workers):
                    assert not sample.error
                    parts.end() if sample.ended else parts.write(row_of(sample, scorer, 'model'))
            return score

        def decoding() -> None:
            for path in paths:
                Reader(preprocess)(0, str(path))

        work = {'network alone': alone, 'decoding alone, one thread': decoding} | {
            suffix: whole(write(Path(folder, f'shard.{suffix}'), paths)) for suffix, write in WRITERS.items()}
        seconds = {name: [] for name in work}
        for turn in range(args.rounds + 1):
            for name, part in work.items():
                started = time.perf_counter()
                part()
                if turn:  # the first time is slower
                    seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        print(f'{name:27} {len(paths) / median(times):8.1f} images/s')
    ratios = {suffix: median(seconds['network alone']) / median(seconds[suffix]) for suffix in WRITERS}
    for suffix, ratio in ratios.items():
        print(f'{suffix + " over network alone":27} {ratio:8.3f}')
    return ratios


def memory(folder: Path, suffix: str, count: int) -> tuple[float, float]:
    """Score `count` small images by test_demo.py; return the peak megabytes of its own memory, and images/s."""
    images = photographs(folder / 'tiny', 200, TINY)
    shards = folder / f'{suffix}-{count}'
    shards.mkdir()
    for i, first in enumerate(range(0, count, PER_SHARD)):
        WRITERS[suffix](shards / f'{i:05d}.{suffix}', (images[j % 200] for j in range(min(PER_SHARD, count - first))))
    network = create_model('cnniqa')
    save_checkpoint(folder / 'cnniqa.pth', {
        'model': network.state_dict(), 'k': [100.], 'b': [0.], 'network': {'name': 'cnniqa', 'options': {}},
        'input': {'preprocessing': Preprocess().stored(), 'normalise': network.normalise}})
    command = [sys.executable, str(SCRIPT), '--img', str(shards / f'*.{suffix}'), '--trained_model_file',
               str(folder / 'cnniqa.pth'), '--parquet', str(shards / 'scores'), '-bs', '64', '--device', 'cpu',
               '--no-pbar']
    started, peak = time.perf_counter(), 0.
    process = subprocess.Popen(command)
    while process.poll() is None:
        peak = max(peak, own_memory(process.pid))
        time.sleep(EVERY)
    if process.returncode:
        raise SystemExit(process.returncode)
    return peak, count / (time.perf_counter() - started)


def main(argv: list[str] | None = None) -> dict[str, float]:
    """Measure and print; return the ratios by suffix."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--images', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--batch_size', type=int, default=8)
    parser.add_argument('--num_workers', type=int, default=min(8, torch.get_num_threads()))
    parser.add_argument('--architecture', choices=list(BACKBONES), default='resnet18')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--resize', action='store_true')
    parser.add_argument('--small', type=int, default=1_000)
    parser.add_argument('--large', type=int, default=100_000)
    args = parser.parse_args(argv)
    keep_freed_memory(args.device)
    ratios = speed(args)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in WRITERS if args.large else ():
            for count in (args.small, args.large):
                peak, rate = memory(Path(folder), suffix, count)
                print(f'{suffix}, {count} images of {TINY[1]}x{TINY[0]}: own memory at most {peak:.0f} MB, '
                      f'{rate:.0f} images/s with the start')
    return ratios


if __name__ == '__main__':
    main()
