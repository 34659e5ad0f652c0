"""Measure whole runs of main.py on growing data sets: time to the first step, time of an epoch, and memory.

    python benchmarks/growth.py [--images 200] [--doublings 3] [--start 400]

The runs that grow are of small images (64x48) and resnet18 on the CPU; the starts are of --start photographs of
1024x768, resized to 664x498, and are stopped after their first step.
"""
import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from baseline import SIZE, Baseline, options, own_memory, photographs, write_labels

from iqa_results.curves import read_scalars

MAIN = Path(__file__).resolve().parents[1] / 'main.py'
OPTIONS = ['--dataset', 'demo', '-arch', 'resnet18', '--weights', 'none', '--device', 'cpu', '--no-pbar', '-bs', '8']
EPOCHS = 3
EVERY = .2  # seconds between two looks at a process's memory


def run(folder: Path, paths: list[Path], size: tuple[int, int], epochs: int) -> tuple[list[float], float]:
    """Train on images of `size` (h, w): the seconds after the start at which each step was done, and peak megabytes.

    With 0 epochs, the run is asked to stop as soon as it begins to train, which it does after one step.
    """
    info, where = folder / f'{len(paths)}.mat', Path(tempfile.mkdtemp(dir=folder))
    write_labels(info, paths)
    command = [sys.executable, str(MAIN), *OPTIONS, '--im_dir', str(paths[0].parent), '--data_info', str(info), '-e',
               str(max(epochs, 1)), '--resize', '-rs_h', str(size[0]), '-rs_w', str(size[1]),
               '--cache_dir', str(folder / 'cache')]
    for name in ('log_dir', 'result_dir', 'checkpoint_dir'):
        command += [f'--{name}', str(where / name)]
    started, peak = time.time(), 0.
    with open(where / 'log', 'w') as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, env={**os.environ, 'PYTHONUNBUFFERED': '1'})
        while process.poll() is None:
            peak = max(peak, own_memory(process.pid))
            time.sleep(EVERY)
            if not epochs and 'Run ' in (where / 'log').read_text():
                process.terminate()
                process.wait()
    if process.returncode != (0 if epochs else 128 + signal.SIGTERM):
        raise SystemExit((where / 'log').read_text())
    curve = read_scalars(next((where / 'log_dir').iterdir()))['train/loss']
    return [seconds - started for seconds, _, _ in curve], peak


def starts(args: argparse.Namespace, folder: Path) -> None:
    """Print the seconds to the first step of a first and a second start, and of the baseline's decoding alone."""
    paths = photographs(args.folder / 'photographs', args.start)
    started = time.perf_counter()
    Baseline(paths)
    decoding = time.perf_counter() - started
    first, second = (run(folder, paths, SIZE, 0)[0][0] for _ in range(2))
    print(f'{len(paths)} images of 1024x768: the first step is done after {first:.1f} s in a first start, {second:.1f} '
          f's in a second; the baseline decodes for {decoding:.1f} s')


def growth(args: argparse.Namespace, folder: Path) -> None:
    """Print the table of runs, each on twice as many images as the one before."""
    print('\n| images | first step after | an epoch | per image | own memory at most |\n|---|---|---|---|---|')
    for count in (args.images * 2 ** i for i in range(args.doublings + 1)):
        paths = photographs(args.folder / 'small', count, (48, 64))
        steps, peak = run(folder, paths, (48, 64), EPOCHS)
        epoch = (steps[-len(steps) // EPOCHS] - steps[0]) / (EPOCHS - 1)  # from its first step to the next one's
        print(f'| {count} | {steps[0]:.1f} s | {epoch:.2f} s | {epoch / count * 1e3:.2f} ms | {peak:.0f} MB |',
              flush=True)


def main() -> None:
    """Print the starts, then the table."""
    args = options(__doc__, images=200, doublings=3, start=400)
    args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=args.folder) as folder:
        starts(args, Path(folder))
        growth(args, Path(folder))


if __name__ == '__main__':
    main()
