"""Measure the speed at which test_demo.py scores images in shards, relative to the network alone, and its memory.

    python benchmarks/shards.py [--images 64] [--architecture resnet18] [--device cuda] [--large 100000]

Speed: photographs-like JPEG files (664x498; see scoring.py for --image_size and --resize) as one tar and as one
Parquet, scored into parts. All are measured in turn, `--rounds` times, and the medians are compared: a machine's speed
drifts. `decoding alone` is one thread's, from which docs/shards.md works out how many cores a GPU needs.

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

import pyarrow as pa
import pyarrow.parquet as pq
from baseline import own_memory, photographs
from scoring import options, speed

from iqa_data.transforms import Preprocess
from iqa_runtime.checkpoint import save_checkpoint
from iqa_scoring.parts import TableParts
from iqa_scoring.scorer import Scorer
from iqa_scoring.shards import open_shards, prefetched
from iqa_scoring.stream import Reader, row_of, score_files
from IQAmodel import create_model

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


def shards_to_scores(scorer: Scorer, paths: list[Path], args: argparse.Namespace, folder: Path) -> dict:
    """Return the ways from shards to parts of scores, by suffix (see scoring.speed)."""
    def whole(shard: str) -> Callable[[], None]:
        def score() -> None:
            parts = TableParts(tempfile.mkdtemp(dir=folder), [shard], False, 'model', 'digest')
            for sample in score_files(scorer, prefetched(open_shards([shard])), Reader(scorer.preprocess),
                                      args.batch_size, args.num_workers):
                assert not sample.error
                parts.end() if sample.ended else parts.write(row_of(sample, scorer, 'model'))
        return score
    return {suffix: whole(write(folder / f'shard.{suffix}', paths)) for suffix, write in WRITERS.items()}


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


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    args = options(__doc__, argv, small=1_000, large=100_000)
    speed(args, shards_to_scores)
    with tempfile.TemporaryDirectory() as folder:
        for suffix in WRITERS if args.large else ():
            for count in (args.small, args.large):
                peak, rate = memory(Path(folder), suffix, count)
                print(f'{suffix}, {count} images of {TINY[1]}x{TINY[0]}: own memory at most {peak:.0f} MB, '
                      f'{rate:.0f} images/s with the start')


if __name__ == '__main__':
    main()
