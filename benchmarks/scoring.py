"""How fast test_demo.py scores files, over how fast the network alone is, in one run on this machine.

    python benchmarks/scoring.py [--images 64] [--architecture resnet18] [--device cuda] [--resize]

Writes photographs-like JPEG files of 664x498 (with --resize: of 1024x768, resized to 664x498) to a temporary folder.
The two are measured in turn, `--rounds` times, and the medians are compared: a machine's speed drifts.
"""
import argparse
import tempfile
import time
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


def main(argv: list[str] | None = None) -> float:
    """Measure, print, and return the ratio."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--images', type=int, default=64)
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--batch_size', type=int, default=8)
    parser.add_argument('--num_workers', type=int, default=min(8, torch.get_num_threads()))
    parser.add_argument('--architecture', choices=list(BACKBONES), default='resnet18')
    parser.add_argument('--device', default='cuda' if torch.cuda.is_available() else 'cpu')
    parser.add_argument('--resize', action='store_true')
    args = parser.parse_args(argv)
    keep_freed_memory(args.device)
    preprocess = Preprocess(resize=SIZE if args.resize else None)
    scorer = Scorer(IQAModel(args.architecture), {'k': [1.], 'b': [0.]}, preprocess, args.device)
    batches = args.images // args.batch_size

    with tempfile.TemporaryDirectory() as folder:
        paths = photographs(Path(folder), batches * args.batch_size, LARGE if args.resize else SIZE)
        batch = torch.stack([Reader(preprocess)(0, path).pixels for path in paths[:args.batch_size]])

        def alone() -> None:
            for _ in range(batches):
                scorer.heads(batch)

        def whole() -> None:
            for sample in score_files(scorer, paths, Reader(preprocess), args.batch_size, args.num_workers):
                assert not sample.error

        def decoding() -> None:
            for i, path in enumerate(paths):
                Reader(preprocess)(i, path)

        parts = {'network alone': alone, 'files to scores': whole, 'decoding alone, one thread': decoding}
        for part in parts.values():
            part()  # the first time is slower
        seconds = {name: [] for name in parts}
        for _ in range(args.rounds):
            for name, part in parts.items():
                start = time.perf_counter()
                part()
                seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(f'{name:27} {len(paths) / median(times):8.1f} images/s')
    ratio = median(seconds['network alone']) / median(seconds['files to scores'])
    print(f'{"ratio":27} {ratio:8.3f}')
    return ratio


if __name__ == '__main__':
    main()
