"""Measure the speed at which test_demo.py scores files, relative to the network alone, in one run.

    python benchmarks/scoring.py [--images 64] [--architecture resnet18] [--device cuda] [--engine onnx]
                                 [--image_size 768 1024] [--resize 498 664]

Writes photographs-like JPEG files (664x498, or --image_size) to a temporary folder. All are measured in turn,
`--rounds` times, and the medians are compared: a machine's speed drifts. The processor's seconds are those of all
threads. With --engine, scoring by that program is another row, and the images after which compiling the network for
it has paid are printed.
"""
import argparse
import copy
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import torch
from baseline import SIZE, photographs

from iqa_data.transforms import Preprocess
from iqa_runtime.process import keep_freed_memory
from iqa_scoring.engines import ENGINES
from iqa_scoring.scorer import Scorer
from iqa_scoring.stream import Reader, score_files
from IQAmodel import create_model

ALONE, FILES = 'network alone', 'files to scores'


def options(description: str, argv: list[str] | None = None, **numbers: int) -> argparse.Namespace:
    """Parse the options of a benchmark of scoring; --NAME for each number, with its default."""
    parser = argparse.ArgumentParser(description=description.partition('\n')[0])
    parser.add_argument('--images', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--batch_size', type=int, default=8)
    parser.add_argument('--num_workers', type=int, default=min(8, torch.get_num_threads()))
    parser.add_argument('--architecture', default='resnet18')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--engine', choices=list(ENGINES), default='torch')
    parser.add_argument('--image_size', nargs=2, type=int, default=SIZE, metavar=('H', 'W'))
    parser.add_argument('--resize', nargs=2, type=int, metavar=('H', 'W'))
    for name, default in numbers.items():
        parser.add_argument(f'--{name}', type=int, default=default)
    args = parser.parse_args(argv)
    keep_freed_memory(args.device)
    return args


def speed(args: argparse.Namespace, ways_of: Callable[[Scorer, list[Path], argparse.Namespace, Path], dict]
          ) -> dict[str, float]:
    """Print the speed of the network alone, of decoding and of ways to score, and each way's over the network's.

    `ways_of`: (scorer, files, args, a folder to write to) -> {name: function that scores the files once}. Returns the
    processor's seconds an image, by name.
    """
    preprocess = Preprocess(resize=tuple(args.resize) if args.resize else None)
    scorer = Scorer(create_model(args.architecture), {'k': [1.], 'b': [0.]}, preprocess, args.device)
    batches = max(1, args.images // args.batch_size)
    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder, 'images'), batches * args.batch_size, tuple(args.image_size))
        batch = torch.stack([Reader(preprocess)(0, str(path)).pixels for path in paths[:args.batch_size]])

        def alone() -> None:
            for _ in range(batches):
                scorer.heads(batch)

        def decoding() -> None:
            for path in paths:
                Reader(preprocess)(0, str(path))

        ways = ways_of(scorer, paths, args, Path(folder))
        elapsed, spent = medians({ALONE: alone, 'decoding alone, one thread': decoding, **ways}, args.rounds)
    print('| what | images/s | processor, ms an image |\n|---|---|---|')
    for name, seconds in elapsed.items():
        print(f'| {name} | {len(paths) / seconds:.1f} | {spent[name] / len(paths) * 1e3:.1f} |')
    for name in ways:
        print(f'{name} over network alone: {elapsed[ALONE] / elapsed[name]:.3f} of the images/s')
    return {name: seconds / len(paths) for name, seconds in spent.items()}


def medians(work: dict[str, Callable[[], None]], rounds: int) -> tuple[dict[str, float], dict[str, float]]:
    """Return the medians of the elapsed and of the processor's seconds of each work, measured in turn."""
    clocks = time.perf_counter, time.process_time
    seconds = {name: [] for name in work}
    for turn in range(rounds + 1):
        for name, part in work.items():
            started = [clock() for clock in clocks]
            part()
            if turn:  # the first time is slower
                seconds[name].append([clock() - start for clock, start in zip(clocks, started, strict=True)])
    return tuple({name: median(both[i] for both in all_rounds) for name, all_rounds in seconds.items()}
                 for i in range(len(clocks)))


def score(scorer: Scorer, paths: list[Path], args: argparse.Namespace) -> None:
    """Score files."""
    for sample in score_files(scorer, map(str, paths), Reader(scorer.preprocess), args.batch_size, args.num_workers):
        assert not sample.error


def main(argv: list[str] | None = None) -> None:
    """Measure and print."""
    args, compiling = options(__doc__, argv), []

    def files_to_scores(scorer: Scorer, paths: list[Path], args: argparse.Namespace, _: Path) -> dict:
        ways = {FILES: lambda: score(scorer, paths, args)}
        if args.engine != 'torch':
            other = ENGINES[args.engine](copy.copy(scorer))
            started = time.process_time()
            score(other, paths[:1], args)
            compiling.append(time.process_time() - started)
            ways[f'{FILES}, {args.engine}'] = lambda: score(other, paths, args)
        return ways

    spent = speed(args, files_to_scores)
    for seconds in compiling:
        gain = spent[FILES] - spent[f'{FILES}, {args.engine}']
        pays = f'pays after {seconds / gain:.0f} images' if gain > 0 else 'does not pay'
        print(f'compiling the network, and its first image: {seconds:.1f} s of the processor, which {pays}')


if __name__ == '__main__':
    main()
