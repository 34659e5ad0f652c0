"""Measure training steps on a GPU, one improvement after the other: images/s, memory, and the share of the floor.

    python benchmarks/gpu.py [--architecture resnext101_32x8d] [--batch_sizes 8 64] [--steps 20]

The floor is the forward and backward passes' arithmetic at the rate of a product of two bfloat16 matrices, measured in
the same run. For the last way, the kernels that take the most time are listed. `--device cpu --steps 1 --size 64 96
--architecture resnet18` only shows that it runs.
"""
import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass

import torch
from baseline import SIZE, forward_flops
from ignite.engine import Engine, supervised_training_step
from torch.profiler import ProfilerActivity, profile

from iqa_data.target import Target
from IQAloss import IQALoss
from IQAmodel import BACKBONES, IQAModel
from modified_ignite_engine import create_supervised_trainer, preparing


@dataclass(frozen=True)
class Way:
    """One way to compute a step."""

    name: str
    channels_last: bool = True
    eight_bit: bool = True   # 8-bit images are sent to the device and normalised there
    opt_level: str = 'bf16'
    fused: bool = False      # Adam in one kernel
    compiled: str = ''       # mode of torch.compile


WAYS = (Way('baseline', channels_last=False, eight_bit=False, opt_level='O0'),
        Way('channels_last', eight_bit=False, opt_level='O0'),
        Way('channels_last, uint8 (-optl O0)', opt_level='O0'),
        Way('the same, float16 (-optl O1)', opt_level='O1'),
        Way('the same, bfloat16 (-optl bf16)'),
        Way('bfloat16, fused Adam', fused=True),
        Way('bfloat16, fused Adam, compiled', fused=True, compiled='default'),
        Way('bfloat16, fused Adam, compiled, CUDA graphs', fused=True, compiled='reduce-overhead'))


def step_of(way: Way, args: argparse.Namespace, batch_size: int) -> Callable[[], object]:
    """Return the function of one training step."""
    form = torch.channels_last if way.channels_last else torch.contiguous_format
    network = model = IQAModel(args.architecture).to(args.device, memory_format=form)
    optimizer = torch.optim.Adam(model.parameters(), 1e-5, fused=way.fused)
    if way.compiled:
        model = torch.compile(model, mode=way.compiled)
    images = torch.randint(0, 256, (batch_size, 3, *args.size), dtype=torch.uint8).to(memory_format=form)
    scores = (torch.rand(batch_size, 1) * 100,) * 2
    if way.eight_bit:
        engine = create_supervised_trainer(model, optimizer, IQALoss(), prepare=preparing(network, Target()),
                                           device=args.device, opt_level=way.opt_level)
    else:
        images = images.float() / 255
        engine = Engine(supervised_training_step(model, optimizer, IQALoss(), args.device, non_blocking=True))
    if args.device.startswith('cuda'):
        images = images.pin_memory()
    images = (images,) if way.eight_bit else images  # ours takes the images of a pair, or one
    return lambda: engine.run([(images, scores)] * args.steps, max_epochs=1)


def finish(device: str) -> None:
    """Wait until the device has finished all its work."""
    if device.startswith('cuda'):
        torch.cuda.synchronize(device)


def seconds(work: Callable[[], object], device: str) -> float:
    """Return the seconds of a call, after an uncounted call, until the device has finished."""
    work()
    finish(device)
    started = time.perf_counter()
    work()
    finish(device)
    return time.perf_counter() - started


def matrix_rate(device: str, side: int) -> float:
    """Return the floating-point operations a second of a product of two bfloat16 matrices."""
    a = torch.randn(side, side, dtype=torch.bfloat16, device=device)
    return 10 * 2 * side ** 3 / seconds(lambda: [a @ a for _ in range(10)], device)


def table(args: argparse.Namespace, batch_size: int, floor: float) -> None:
    """Print a row for each way; `floor` is an image's seconds at the matrices' rate."""
    print(f'\nBatch {batch_size}\n\n| way | images/s | times the baseline | share of the floor | memory |\n'
          '|---|---|---|---|---|')
    baseline, cuda = None, args.device.startswith('cuda')
    for way in WAYS:
        try:
            if cuda:
                torch.cuda.reset_peak_memory_stats(args.device)
            step = step_of(way, args, batch_size)
            rate = batch_size * args.steps / seconds(step, args.device)
        except torch.OutOfMemoryError:
            print(f'| {way.name} | out of memory | | | |')
            continue
        baseline = baseline or rate
        memory = f'{torch.cuda.max_memory_allocated(args.device) / 1e9:.1f} GB' if cuda else ''
        print(f'| {way.name} | {rate:.1f} | {rate / baseline:.2f} | {rate * floor:.2f} | {memory} |', flush=True)
    with profile(activities=[ProfilerActivity.CPU, *[ProfilerActivity.CUDA] * cuda]) as profiler:
        step()
    order = f'self_{"cuda" if cuda else "cpu"}_time_total'
    print(f'\n{way.name}:\n{profiler.key_averages().table(sort_by=order, row_limit=12, max_name_column_width=60)}')


def main() -> None:
    """Print a table for each size of the batch."""
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('--architecture', choices=list(BACKBONES), default='resnext101_32x8d')
    parser.add_argument('--batch_sizes', type=int, nargs='+', default=[8, 64])
    parser.add_argument('--size', type=int, nargs=2, metavar=('H', 'W'), default=SIZE)
    parser.add_argument('--steps', type=int, default=20)
    parser.add_argument('--device', default='cuda')
    args = parser.parse_args()
    cuda = args.device.startswith('cuda')
    rate = matrix_rate(args.device, 8192 if cuda else 512)
    flops = 3 * forward_flops(args.architecture, args.size)  # twice as many back as forward
    name = torch.cuda.get_device_name(args.device) if cuda else 'CPU'
    print(f'{name}, torch {torch.__version__}, {args.architecture}, {args.size[1]}x{args.size[0]}, bfloat16 matrices '
          f'at {rate / 1e12:.1f} TFLOP/s, {flops / 1e9:.1f} GFLOP an image and step')
    for batch_size in args.batch_sizes:
        table(args, batch_size, flops / rate)


if __name__ == '__main__':
    main()
