"""A training step, evaluation, and the loss's share of a step, resnet18 at 664x498: ours against the baseline.

    python benchmarks/training.py [--batches 3]
"""
import os

import numpy as np
import torch
from baseline import SIZE, Baseline, options, photographs, row, seconds
from ignite.engine import Engine, supervised_training_step
from loading import BATCH, as_data
from torch import Tensor, nn
from torch.utils.data import DataLoader

from IQAdataset import memory_format
from IQAloss import IQALoss
from IQAmodel import IQAModel
from modified_ignite_engine import create_supervised_trainer, evaluate

ROUNDS = 3


def step_times(images: list, device: str) -> tuple[float, float]:
    """Seconds of a training step, baseline and ours, taken in turns."""
    torch.manual_seed(0)
    times, engines = {}, {}
    scores = (torch.rand(BATCH, 1) * 100,) * 2
    floats = torch.stack([images[0][i][0] for i in range(BATCH)])
    bytes_, _ = next(iter(images[1].training_loader()))
    for name, form in (('baseline', torch.contiguous_format), ('ours', memory_format(SIZE))):
        model = IQAModel('resnet18').to(device, memory_format=form)
        optimizer = torch.optim.Adam(model.parameters(), 1e-5)
        if name == 'ours':
            engines[name] = create_supervised_trainer(model, optimizer, IQALoss(), device, opt_level='O0'), bytes_
        else:
            engines[name] = Engine(supervised_training_step(model, optimizer, IQALoss(), device)), floats
    for _ in range(ROUNDS):
        for name, (engine, batch) in engines.items():
            took = seconds(lambda engine=engine, batch=batch: engine.run([(batch, scores)], max_epochs=1), 1)
            times[name] = min(times.get(name, took), took)
    return times['baseline'], times['ours']


def loss_time() -> float:
    """Seconds of the loss of three heads on a batch, forward and backward."""
    heads = [torch.randn(BATCH, 1, requires_grad=True) for _ in range(3)]
    scores, loss = (torch.rand(BATCH, 1) * 100,) * 2, IQALoss()
    return seconds(lambda: [loss(heads, scores).backward() for _ in range(100)]) / 100


@torch.no_grad()
def one_by_one(model: nn.Module, baseline: Baseline) -> list[Tensor]:
    """The baseline's evaluation."""
    return [model(image)[-1] for image, _ in DataLoader(baseline, 1)]


def main() -> None:
    """Print the table."""
    args = options(__doc__, batches=3)
    paths = photographs(args.folder / 'photographs', BATCH * args.batches)
    mos = np.arange(len(paths), dtype=float)
    baseline, data = Baseline(paths, mos), as_data(paths, mos, args.folder / 'cache')
    print(f'{os.cpu_count()} cores, torch {torch.__version__}, resnet18, {SIZE[1]}x{SIZE[0]}, batch {BATCH}, float32'
          '\n\n| what | baseline | ours | times faster |\n|---|---|---|---|')
    slow, fast = step_times([baseline, data], 'cpu')
    row('training step', slow, fast, 's')
    before, now = (IQAModel('resnet18').to(memory_format=form).eval()
                   for form in (torch.contiguous_format, memory_format(SIZE)))
    loader = data.evaluation_loader('train', torch.Generator())
    old, new = seconds(lambda: one_by_one(before, baseline), 2), seconds(lambda: evaluate(now, loader, 'cpu'), 2)
    row('evaluation, per image', old / len(paths) * 1e3, new / len(paths) * 1e3)
    share = loss_time()
    print(f'\na training step takes {fast / slow:.2f} of the baseline\'s time; the loss takes {share * 1e3:.2f} ms, '
          f'{share / fast:.2%} of a step')


if __name__ == '__main__':
    main()
