"""Measure a training step, evaluation and the loss, resnet18 at 664x498 on the CPU, against the baseline.

    python benchmarks/training.py [--batches 3] [--rounds 5]

Below the table is the rate of the arithmetic divided by that of a product of two matrices: near 1, the work cannot
become faster on this machine in float32.
"""
import os
from pathlib import Path

import torch
from baseline import SIZE, Baseline, forward_flops, in_turns, options, photographs, row, seconds, work
from ignite.engine import Engine, supervised_training_step
from loading import BATCH, as_data
from torch.utils.data import DataLoader

from iqa_data.target import Target
from iqa_networks.normalise import memory_format
from iqa_runtime.process import keep_freed_memory
from IQAloss import IQALoss
from IQAmodel import IQAModel
from IQAperformance import evaluate
from modified_ignite_engine import create_supervised_trainer, preparing


def prepare(side: str, paths: list[Path], cache: Path) -> None:
    """Fill `work` with the measurements of a side, 'baseline' or 'ours'."""
    torch.manual_seed(0)
    scores = (torch.rand(BATCH, 1) * 100,) * 2
    form = torch.contiguous_format if side == 'baseline' else memory_format(SIZE)
    model = IQAModel('resnet18').to(memory_format=form)
    optimizer = torch.optim.Adam(model.parameters(), 1e-5)
    if side == 'baseline':
        data = Baseline(paths)
        batch = torch.stack([data[i][0] for i in range(BATCH)]), scores
        engine = Engine(supervised_training_step(model, optimizer, IQALoss()))
        work['evaluation'] = lambda: one_by_one(model.eval(), data)
    else:
        keep_freed_memory('cpu')
        data = as_data(paths, cache)
        batch = next(iter(data.training_loader()))[0], scores
        engine = create_supervised_trainer(model, optimizer, IQALoss(), prepare=preparing(model, Target()))
        loader = data.evaluation_loader('train')
        work['evaluation'] = lambda: evaluate(model, loader)
    work['training step'] = lambda: engine.run([batch], max_epochs=1)


@torch.no_grad()
def one_by_one(model: IQAModel, data: Baseline) -> list[torch.Tensor]:
    """Evaluate as the baseline does."""
    return [model(image)[-1] for image, _ in DataLoader(data, 1)]


def loss_time() -> float:
    """Return the seconds of the loss of three heads on a batch, forward and backward."""
    heads = [torch.randn(BATCH, 1, requires_grad=True) for _ in range(3)]
    scores, loss = (torch.rand(BATCH, 1) * 100,) * 2, IQALoss()
    return seconds(lambda: [loss(heads, scores).backward() for _ in range(100)]) / 100


def matrix_rate(side: int = 3000) -> float:
    """Return the floating-point operations a second of a product of two float32 matrices."""
    a = torch.randn(side, side)
    return 2 * side ** 3 / seconds(lambda: a @ a, 20)


def main() -> None:
    """Print the table."""
    args = options(__doc__, batches=3, rounds=5)
    paths = photographs(args.folder / 'photographs', BATCH * args.batches)
    images = {'training step': BATCH, 'evaluation': len(paths)}
    rate = matrix_rate()
    best = in_turns(prepare, (paths, args.folder / 'cache'), list(images), args.rounds)
    rate = max(rate, matrix_rate())

    print(f'{os.cpu_count()} cores, torch {torch.__version__}, resnet18, {SIZE[1]}x{SIZE[0]}, batch {BATCH}, float32, '
          f'matrices at {rate / 1e9:.0f} GFLOP/s\n\n| what | baseline | ours | times faster |\n|---|---|---|---|')
    for what, count in images.items():
        row(f'{what}, per image', *(best[what, side] / count * 1e3 for side in ('baseline', 'ours')))
    step, share, flops = best['training step', 'ours'], loss_time(), forward_flops(IQAModel('resnet18'), SIZE)
    print(f'\na training step takes {step / best["training step", "baseline"]:.2f} of the baseline\'s time; the loss '
          f'takes {share * 1e3:.2f} ms, {share / step:.2%} of a step')
    for what, passes in (('training step', 3), ('evaluation', 1)):
        reached = passes * flops * images[what] / best[what, 'ours']
        print(f'{what}: {reached / 1e9:.0f} GFLOP/s, {reached / rate:.2f} of the matrices\' rate')


if __name__ == '__main__':
    main()
