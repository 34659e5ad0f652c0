"""Measure the speed at which test_demo.py scores files, relative to the network alone, in one run.

    python benchmarks/scoring.py [--images 64] [--architecture resnet18] [--device cuda] [--resize]

Writes photographs-like JPEG files of 664x498 (with --resize: of 1024x768, resized to 664x498) to a temporary folder.
All are measured in turn, `--rounds` times, and the medians are compared: a machine's speed drifts.
"""
import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from baseline import SIZE, photographs

from iqa_data.transforms import Preprocess
from iqa_runtime.process import keep_freed_memory
from iqa_scoring.scorer import Scorer
from iqa_scoring.stream import Reader, score_files
from IQAmodel import BACKBONES, IQAModel

LARGE = (768, 1024)
ALONE = 'network alone'


def options(description: str, argv: list[str] | None = None, **numbers: int) -> argparse.Namespace:
    """Parse the options of a benchmark of scoring; --NAME for each number, with its default."""
    parser = argparse.ArgumentParser(description=description.partition('\n')[0])
    parser.add_argument('--images', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--batch_size', type=int, default=8)
    parser.add_argument('--num_workers', type=int, default=min(8, torch.get_num_threads()))
    parser.add_argument('--architecture', choices=list(BACKBONES), default='resnet18')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--resize', action='store_true')
    for name, default in numbers.items():
        parser.add_argument(f'--{name}', type=int, default=default)
    args = parser.parse_args(argv)
    keep_freed_memory(args.device)
    return args


def speed(args: argparse.Namespace, ways_of: Callable[[Scorer, list[Path], argparse.Namespace, Path], dict]
          ) -> dict[str, float]:
    """Print images/s of the network alone, of decoding and of ways to score; return each way's over the network's.

    `ways_of`: (scorer, files, args, a folder to write to) -> {name: function that scores the files once}.
    """
    preprocess = Preprocess(resize=SIZE if args.resize else None)
    scorer = Scorer(IQAModel(args.architecture), {'k': [1.], 'b': [0.]}, preprocess, args.device)
    batches = max(1, args.images // args.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder, 'images'), batches * args.batch_size, LARGE if args.resize else SIZE)
        batch = torch.stack([Reader(preprocess)(0, str(path)).pixels for path in paths[:args.batch_size]])

        def alone() -> None:
            for _ in range(batches):
                scorer.heads(batch)

        def decoding() -> None:
            for path in paths:
                Reader(preprocess)(0, str(path))

        ways = ways_of(scorer, paths, args, Path(folder))
        work = {ALONE: alone, 'decoding alone, one thread': decoding, **ways}
        seconds = {name: [] for name in work}
        for turn in range(args.rounds + 1):
            for name, part in work.items():
                started = time.perf_counter()
                part()
                if turn:  # the first time is slower
                    seconds[name].append(time.perf_counter() - started)
    for name, times in seconds.items():
        print(f'{name:27} {len(paths) / median(times):8.1f} images/s')
    ratios = {name: median(seconds[ALONE]) / median(seconds[name]) for name in ways}
    for name, ratio in ratios.items():
        print(f'{name + " over network alone":35} {ratio:8.3f}')
    return ratios


def files_to_scores(scorer: Scorer, paths: list[Path], args: argparse.Namespace, folder: Path) -> dict:
    """Return the way from files to scores (see speed)."""
    def score() -> None:
        reader = Reader(scorer.preprocess)
        for sample in score_files(scorer, map(str, paths), reader, args.batch_size, args.num_workers):
            assert not sample.error
    return {'files to scores': score}


if __name__ == '__main__':
    speed(options(__doc__), files_to_scores)
