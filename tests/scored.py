"""Parts for the tests of scoring: a small random network as a checkpoint, and images to score."""
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from iqa_runtime.checkpoint import save_checkpoint
from iqa_scoring.scorer import Scorer
from IQAmodel import IQAModel

SIZE = (48, 64)
PHOTO_SCORE = 57.34  # of photo(0), with random_checkpoint()


def needs_onnx() -> None:
    """Skip a test where the packages of requirements-export.txt are not installed."""
    for package in ('onnx', 'onnxruntime', 'onnxscript'):
        pytest.importorskip(package, reason='needs requirements-export.txt')


def photo(seed: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A smooth pattern with noise, (h, w, 3) uint8."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:size[0], :size[1]][..., None]
    waves = np.sin(x * rng.uniform(.05, .5, 3) + y * rng.uniform(.05, .5, 3) + rng.uniform(0, 6, 3))
    return (127 + 90 * waves + rng.normal(0, rng.uniform(0, 60), (*size, 3))).clip(0, 255).astype(np.uint8)


def save_photos(folder: Path, n: int, size: tuple[int, int] = SIZE) -> list[str]:
    """Write photo(0), photo(1), ... as PNG; return the paths."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [str(folder / f'{i:02d}.png') for i in range(n)]
    for i, path in enumerate(paths):
        Image.fromarray(photo(i, size)).save(path)
    return paths


def random_checkpoint(resize: tuple[int, int] | None = SIZE, **network) -> dict:
    """A checkpoint of a random network whose scores of photos spread over some ten units around PHOTO_SCORE."""
    torch.manual_seed(1)
    options = {'architecture': 'resnet18', 'pool': 'avg', 'use_bn_end': False, 'P6': 1, 'P7': 1, **network}
    model = IQAModel(options['architecture'], **{name: options[name] for name in ('pool', 'use_bn_end', 'P6', 'P7')})
    checkpoint = {'model': model.state_dict(), 'k': [1., 1., 1.], 'b': [0., 0., 0.], 'options': options,
                  'preprocessing': {'resize': resize, 'first_resize': None}, 'dataset': 'demo',
                  'mos': {'values': torch.linspace(20, 80, 61), 'min': 20., 'max': 80., 'higher_is_better': True}}
    photos = [torch.from_numpy(photo(i, resize or (96, 128))).permute(2, 0, 1) for i in range(12)]
    heads = Scorer(model, checkpoint).heads(torch.stack(photos))
    k = 10 / heads.std(0)
    return {**checkpoint, 'k': k.tolist(), 'b': (PHOTO_SCORE - k * heads[0]).tolist()}


def saved(folder: Path, **arguments) -> str:
    """The path of random_checkpoint(**arguments), written to the folder."""
    save_checkpoint(folder / 'checkpoint.pth', random_checkpoint(**arguments))
    return str(folder / 'checkpoint.pth')
