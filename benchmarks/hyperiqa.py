"""Measure HyperIQA's training on the CPU: epochs of 25 crops per image, and steps with layers for each image.

    python benchmarks/hyperiqa.py [--images 8] [--batch 4] [--rounds 3]

An epoch is the data without the network: JPEGs of 1024x768, resized to 512x384, flipped and cropped to 224x224, 25
times each. The baseline decodes an image for every crop; ours decodes it once, which its time includes. The baseline's
step computes the target network by grouped convolutions, with a group for each image, as the published code does.
"""
import os
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from baseline import in_turns, options, photographs, row, work, write_labels
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import v2

from iqa_data.augmentation import Augmentation
from iqa_data.datasets import Source
from iqa_data.loaders import Loading
from iqa_data.target import Target
from iqa_data.transforms import Preprocess
from iqa_networks.hyperiqa import HyperIQA
from iqa_networks.normalise import memory_format
from iqa_runtime.process import keep_freed_memory
from IQAdataset import open_data
from IQAloss import IQALoss
from modified_ignite_engine import create_supervised_trainer, preparing

RESIZED, CROP, CROPS, BATCH = (384, 512), 224, 25, 96


class Decoded(Dataset):
    """Images that are decoded for every crop; item i is (uint8 (3, 224, 224), MOS)."""

    def __init__(self, paths: list[Path]):
        self.paths = paths * CROPS
        self.transform = v2.Compose([v2.RandomHorizontalFlip(), v2.RandomCrop(CROP), v2.PILToTensor()])

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, i: int):
        image = Image.open(self.paths[i]).convert('RGB').resize(RESIZED[::-1], Image.Resampling.BILINEAR)
        return self.transform(image), torch.tensor([i / len(self)])


class Grouped(HyperIQA):
    """HyperIQA whose target network is made of grouped convolutions."""

    @staticmethod
    def target(described: Tensor, layers) -> Tensor:
        """Return the scores (N, 1) of descriptions (N, 224)."""
        n = len(described)
        q = described.reshape(1, -1, 1, 1)
        for i, (matrix, bias) in enumerate(layers):
            kernel = matrix.reshape(n * matrix.shape[1], matrix.shape[2], 1, 1)
            q = F.conv2d(q if i == 0 else q.sigmoid(), kernel, bias.reshape(-1), groups=n)
        return q.reshape(n, 1)


def epoch(side: str, paths: list[Path], folder: Path):
    """Return the function that makes an epoch's batches."""
    if side == 'baseline':
        return lambda: list(DataLoader(Decoded(paths), BATCH, shuffle=True))
    write_labels(folder / 'hyperiqa.csv', paths)

    def ours() -> None:
        data = open_data(Source(str(paths[0].parent), str(folder / 'hyperiqa.csv'), ''), 'benchmark',
                         lambda info: {'train': np.arange(len(info.names))}, Preprocess(RESIZED),
                         Loading(BATCH, cache='ram'))
        data.augment, data.train_crops = Augmentation(('hflip', 'crop'), crop_size_h=CROP, crop_size_w=CROP), CROPS
        list(data.training_loader())
    return ours


def prepare(side: str, paths: list[Path], folder: Path, batch: int) -> None:
    """Fill `work` with the measurements of a side, 'baseline' or 'ours'."""
    torch.manual_seed(0)
    keep_freed_memory('cpu')
    network = (Grouped if side == 'baseline' else HyperIQA)().to(memory_format=memory_format((CROP, CROP)))
    optimizer = torch.optim.Adam(network.parameters(), 1e-5)
    engine = create_supervised_trainer(network, optimizer, IQALoss('mae', beta=(1,)),
                                       prepare=preparing(network, Target()))
    images = (torch.randint(0, 256, (batch, 3, CROP, CROP), dtype=torch.uint8),), (torch.rand(batch, 1),) * 2
    described, last = torch.rand(BATCH, 224), torch.rand(BATCH, 2048, 7, 7)
    hyper = [parameter for name, parameter in network.named_parameters() if not name.startswith('res.')]

    def generated() -> None:
        torch.autograd.grad(network.target(described, network.generate(last)).sum(), hyper)
    work.update({'epoch': epoch(side, paths, folder), 'step': lambda: engine.run([images], max_epochs=1),
                 'hyper and target network': generated})


def main() -> None:
    """Print the table."""
    args = options(__doc__, images=8, batch=4, rounds=3)
    paths = photographs(args.folder / 'photographs', args.images)
    print(f'{os.cpu_count()} cores, torch {torch.__version__}, {len(paths)} images, {CROPS} crops of each; a step of '
          f'{args.batch} images, of {BATCH} for the hyper and target network alone; float32\n\n'
          '| what | baseline | ours | times faster |\n|---|---|---|---|')
    names = ['epoch', 'step', 'hyper and target network']
    best = in_turns(prepare, (paths, args.folder, args.batch), names, args.rounds)
    for name in names:
        row(name, *(best[name, side] * 1e3 for side in ('baseline', 'ours')))


if __name__ == '__main__':
    main()
