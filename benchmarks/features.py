"""An epoch of training on cached features against one that computes them: seconds, and their ratio, in one run.

    python benchmarks/features.py [--images 128] [--rounds 3] [--arch NAME] [--size 224] [--batch 64]

The backbone is frozen in both, and the images are decoded already. Weights are random, which changes no time. Beside
seconds of the clock stand seconds of the processor, which other work on the machine changes less.
"""
import argparse
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import torch
from ignite.engine import Engine
from PIL import Image

from iqa_data.info import write_info
from iqa_data.loaders import Data
from iqa_data.target import Target
from iqa_networks.normalise import memory_format
from iqa_runtime.process import keep_freed_memory
from iqa_training.features import OnFeatures, with_features
from iqa_training.optimizers import build_optimizer
from iqa_training.options import TRAIN
from IQAdataset import get_data_loaders
from IQAloss import IQALoss
from IQAmodel import build_model
from modified_ignite_engine import create_supervised_trainer, preparing


def parsed() -> argparse.Namespace:
    """Return the options of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (('images', 128), ('rounds', 3), ('arch', 'timm/tf_efficientnet_lite0'), ('size', 224),
                          ('batch', 64)):
        parser.add_argument(f'--{name}', type=type(default), default=default)
    return parser.parse_args()


def draw(folder: Path, count: int, side: int) -> Path:
    """Draw images of noise into a folder; return their info file."""
    rng = np.random.RandomState(0)
    names = [f'{i}.png' for i in range(count)]
    (folder / 'images').mkdir()
    for name in names:
        Image.fromarray(rng.randint(0, 256, (side, side, 3), np.uint8)).save(folder / 'images' / name)
    index = np.stack([rng.permutation(count) + 1], 1)
    write_info(folder / 'info.mat', names, rng.uniform(0, 100, count), np.ones(count), range(1, count + 1), index)
    return folder / 'info.mat'


def epoch_of(model: torch.nn.Module, data: Data, optimizer: torch.optim.Optimizer, heads: int) -> tuple[Engine, object]:
    """Return an engine and the loader of an epoch."""
    loss = IQALoss(beta=(.1, .1, 1)[-heads:])
    engine = create_supervised_trainer(model, optimizer, loss, prepare=preparing(model, Target()))
    return engine, data.training_loader(2)


def measured(engine: Engine, loader, rounds: int) -> tuple[float, float]:
    """Return the least seconds of the clock and of the processor of an epoch."""
    found = []
    for _ in range(rounds):
        clock, processor = time.perf_counter(), time.process_time()
        engine.run(loader, max_epochs=1)
        found.append((time.perf_counter() - clock, time.process_time() - processor))
    return min(clock for clock, _ in found), min(processor for _, processor in found)


def main() -> None:
    """Print the table."""
    given = parsed()
    keep_freed_memory('cpu')
    with TemporaryDirectory() as folder:
        info = draw(Path(folder), given.images, given.size)
        args = TRAIN.parse(['--dataset', str(info), '--im_dir', f'{folder}/images', '-arch', given.arch, '--weights',
                            'none', '-flr', '0', '--features', 'cached', '-bs', str(given.batch), '-tr', '.98', '-tvr',
                            '.99', '--split', 'random', '--cache', 'ram', '--device', 'cpu', '--num_workers', '0'])
        model = build_model(args)
        data = get_data_loaders(args)
        model.to(memory_format=memory_format(data.sizes['train'][0]))
        optimizer, heads = build_optimizer(args, model), len(model.heads)
        pooled = with_features(args, data, model)
        count = len(data.names['train'])
        computed = measured(*epoch_of(model, data, optimizer, heads), 1)
        cached = measured(*epoch_of(OnFeatures(model, pooled.pooled), pooled, optimizer, heads), given.rounds)
    print(f'\n{given.arch}, {count} training images of {given.size}x{given.size}, batch {given.batch}, '
          f'{torch.get_num_threads()} threads, torch {torch.__version__}\n\n'
          '| an epoch | features computed | cached | times faster | 2,000 images, cached |\n|---|---|---|---|---|')
    for unit, slow, fast in zip(('seconds', 'seconds of the processor'), computed, cached, strict=True):
        print(f'| {unit} | {slow:.2f} | {fast:.3f} | {slow / fast:.0f} | {fast / count * 2000:.2f} |')


if __name__ == '__main__':
    main()
