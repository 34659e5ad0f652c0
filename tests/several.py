"""Data sets of noisy images, for several at once."""
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image

from iqa_data.info import write_info


def make_set(name: str, seed: int, low: float, high: float, count: int = 20, *, lower_is_better: bool = False,
             **columns) -> None:
    """Write NAME.csv and its noisy images, with scores in low..high that rise, or fall, with their quality."""
    rng = np.random.RandomState(seed)
    quality = rng.uniform(0, 1, count)
    Path(name).mkdir(exist_ok=True)
    names = [f'{name}/{i:02d}.png' for i in range(count)]
    ramp = np.linspace(0, 255, 64)[None, :, None]
    for file, score in zip(names, quality, strict=True):
        noisy = ramp + rng.normal(0, 100 * (1 - score), (48, 64, 3))
        Image.fromarray(noisy.clip(0, 255).astype(np.uint8)).save(file)
    mos = low + (high - low) * (1 - quality if lower_is_better else quality)
    write_info(f'{name}.csv', names, mos, np.full(count, (high - low) / 10), range(1, count + 1),
               np.empty((count, 0), int), about={'higher_is_better': not lower_is_better})
    if columns:
        pd.read_csv(f'{name}.csv').assign(**columns).to_csv(f'{name}.csv', index=False)
