"""Parts for the tests of pairs: a tiny full-reference network, and a tiny data set with reference images."""
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from iqa_networks.network import Network

CONTENTS, PER_CONTENT = 6, 4


class TinyPairs(Network):
    """Score (N, 3, H, W) images by their distance from their references, in units that are learned."""

    inputs, normalise = 2, 'none'

    def __init__(self, weights: str | None = None):
        super().__init__()
        self.linear = nn.Linear(3, 1)

    def forward(self, reference: Tensor, distorted: Tensor) -> tuple[Tensor]:
        """Return the score of a pair."""
        return (self.linear((reference - distorted).abs().mean((2, 3))),)


def make_pairs(folder: Path, size: tuple[int, int] = (20, 24)) -> Path:
    """Write images/ and references/ and pairs.csv: references are in a folder of their own, MOS falls with noise."""
    rng = np.random.default_rng(3)
    for name in ('images', 'references'):
        (folder / name).mkdir(parents=True)
    rows = ['image,mos,reference']
    for content in range(CONTENTS):
        reference = rng.integers(60, 190, (*size, 3))
        Image.fromarray(reference.astype(np.uint8)).save(folder / f'references/c{content}.png')
        for i in range(PER_CONTENT):
            noise = rng.normal(0, 5 + 12 * i, reference.shape)
            pixels = (reference + noise).clip(0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f'images/c{content}_{i}.png')
            rows.append(f'c{content}_{i}.png,{90 - 20 * i + content},c{content}.png')
    (folder / 'pairs.csv').write_text('\n'.join(rows) + '\n')
    return folder


def random_pair(seed: int = 0) -> tuple[Tensor, Tensor]:
    """Return (reference, distorted), float (2, 3, 20, 24) in 0..1."""
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.rand(2, 3, 20, 24, generator=generator) for _ in range(2))
