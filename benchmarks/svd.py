"""Measure CNNIQA's training and evaluation on 512x512 JPEGs, batch 80, and the cost of factored layers.

    python benchmarks/svd.py [--crop 224] [--batches 2] [--rounds 3]

All runs are on the CPU; the seconds are the processor's, those of the loaders' workers too, and the peak of memory is
without these. The baseline does what the field's toolboxes do: two workers decode every image in every epoch,
crop and convert it, the convolution's whole maps are kept for the gradient, and whole images are evaluated one at a
time. A factored step is compared with a step of the plain network in the same code.
"""
import os
from multiprocessing import set_start_method
from pathlib import Path

import numpy as np
import torch
from baseline import in_turns, options, photographs, processor, row, work, write_labels
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from iqa_data.augmentation import Augmentation
from iqa_data.datasets import Source
from iqa_data.loaders import Loading
from iqa_data.target import Target
from iqa_data.transforms import Preprocess
from iqa_networks.normalise import memory_format
from iqa_runtime.process import keep_freed_memory
from IQAdataset import open_data
from IQAloss import IQALoss
from IQAmodel import create_model
from IQAperformance import evaluate
from modified_ignite_engine import create_supervised_trainer, preparing

SIDE, BATCH, WORKERS = 512, 80, 2
FACTORED = ('svd_cnniqa_fc', 'svd_cnniqa_conv')


class Decoded(Dataset):
    """Images that are decoded at each access; item i is (float (3, H, W), MOS)."""

    def __init__(self, paths: list[Path], crop: int | None = None):
        crops = [v2.RandomCrop(crop), v2.RandomHorizontalFlip()] if crop else []
        self.paths = paths
        self.transform = v2.Compose([*crops, v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int):
        return self.transform(Image.open(self.paths[i]).convert('RGB')), torch.tensor([i / len(self)])


def baseline(paths: list[Path], crop: int) -> None:
    """Fill `work` with the baseline's epoch and evaluation."""
    model = create_model('cnniqa')
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
    training = DataLoader(Decoded(paths, crop), BATCH, shuffle=True, num_workers=WORKERS)
    whole = DataLoader(Decoded(paths), 1, num_workers=WORKERS)

    def epoch() -> None:
        for images, mos in training:
            score, = model.train().regress(model.extremes(model.conv1(images)))
            optimizer.zero_grad()
            torch.nn.functional.mse_loss(score, mos).backward()
            optimizer.step()

    @torch.no_grad()
    def evaluation() -> list[float]:
        return [model.eval()(image)[0].item() for image, _ in whole]

    work.update({'training': epoch, 'evaluation': evaluation})


def trainer_of(name: str, crop: int) -> tuple:
    """Return a network, and the engine that trains it."""
    model = create_model(name).to(memory_format=memory_format((crop, crop)))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-5)
    return model, create_supervised_trainer(model, optimizer, IQALoss('mse', beta=(1,)),
                                            prepare=preparing(model, Target(0, 100)))


def ours(paths: list[Path], cache: Path, crop: int) -> None:
    """Fill `work` with our epoch and evaluation."""
    write_labels(cache.parent / 'svd.csv', paths)
    data = open_data(Source(str(paths[0].parent), str(cache.parent / 'svd.csv'), ''), 'benchmark',
                     lambda info: {'train': np.arange(len(info.names))}, Preprocess(),
                     Loading(BATCH, WORKERS, 'disk', str(cache)))
    data.augment = Augmentation(('crop', 'hflip'), crop_size_h=crop, crop_size_w=crop)
    model, engine = trainer_of('cnniqa', crop)
    loader, whole = data.training_loader(), data.evaluation_loader('train')
    work.update({'training': lambda: engine.run(loader, max_epochs=1),
                 'evaluation': lambda: evaluate(model, whole)})


def steps(side: str, crop: int) -> None:
    """Fill `work` with a step of each factored network, or of the plain one instead."""
    batch = (torch.randint(0, 256, (BATCH, 3, crop, crop), dtype=torch.uint8),), (torch.rand(BATCH, 1),) * 2
    for name in FACTORED:
        engine = trainer_of('cnniqa' if side == 'baseline' else name, crop)[1]
        work[f'step of {name}'] = lambda engine=engine: engine.run([batch], max_epochs=1)


def prepare(side: str, paths: list[Path], cache: Path, crop: int) -> None:
    """Fill `work` with the measurements of a side, 'baseline' or 'ours'."""
    torch.manual_seed(0)
    set_start_method('fork', force=True)  # of the loaders' workers, as in main.py; this process was spawned
    if side == 'ours':
        keep_freed_memory('cpu')
        ours(paths, cache, crop)
    else:
        baseline(paths, crop)


def prepare_steps(side: str, crop: int) -> None:
    """Fill `work` with steps; both sides keep freed memory."""
    torch.manual_seed(0)
    keep_freed_memory('cpu')
    steps(side, crop)


def main() -> None:
    """Print the table."""
    args = options(__doc__, crop=224, batches=2, rounds=3)
    paths = photographs(args.folder / 'photographs512', BATCH * args.batches, (SIDE, SIDE))
    print(f'{os.cpu_count()} cores, torch {torch.__version__}, cnniqa, {len(paths)} images {SIDE}x{SIDE}, crop '
          f'{args.crop}, batch {BATCH}, float32\n\n| what | baseline | ours | times faster |\n|---|---|---|---|')
    best = in_turns(prepare, (paths, args.folder / 'cache', args.crop), ['training', 'evaluation'], args.rounds,
                    processor)
    for what in ('training', 'evaluation'):
        row(f'{what}, per image', *(best[what, side] / len(paths) * 1e3 for side in ('baseline', 'ours')))
    row('both, per image', *(sum(best[what, side] for what in ('training', 'evaluation')) / len(paths) * 1e3
                             for side in ('baseline', 'ours')))
    row('peak memory', *(best['peak memory', side] for side in ('baseline', 'ours')), 'MB')
    best = in_turns(prepare_steps, (args.crop,), [f'step of {name}' for name in FACTORED], args.rounds, processor)
    print()
    for name in FACTORED:
        plain, factored = (best[f'step of {name}', side] for side in ('baseline', 'ours'))
        print(f'a step of {name} takes {factored / plain:.2f} of the time of cnniqa\'s, {plain * 1e3:.0f} ms')


if __name__ == '__main__':
    main()
