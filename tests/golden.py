"""Read the numbers recorded from the original systems, and the functions that make its inputs, from ../shared."""
import importlib.util
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import torch


def recorded(shared: Path, name: str) -> np.lib.npyio.NpzFile:
    """Return the numbers of a system, by name."""
    return np.load(shared / 'golden' / 'systems' / f'{name}.npz', allow_pickle=False)


def filling(shared: Path) -> ModuleType:
    """Return the module whose `fill`, `picture`, `distorted` and `probe` made the recorded inputs."""
    spec = importlib.util.spec_from_file_location('fill_systems', shared / 'golden' / 'systems' / 'fill_systems.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def cases(numbers: np.lib.npyio.NpzFile, key: str) -> list[dict]:
    """Return the recorded cases under a key."""
    return json.loads(str(numbers[key]))


def weights(made: ModuleType, shapes: Mapping, salt: str, gain: float) -> dict[str, torch.Tensor]:
    """Return a state dict of names -> shapes, float64, filled by the module of `filling`."""
    return {name: torch.tensor(made.values(name, tuple(shape), salt, gain)) for name, shape in shapes.items()}


def images(made: ModuleType, seeds: Iterable[int], height: int, width: int) -> torch.Tensor:
    """Return pictures (N, 3, H, W) float64 in 0..1."""
    pictures = np.stack([made.picture(seed, height, width) for seed in seeds])
    return torch.tensor(pictures).permute(0, 3, 1, 2).double() / 255


def pairs(made: ModuleType, seed: int, count: int, side: int = 288) -> tuple[torch.Tensor, torch.Tensor]:
    """Return references and their distorted images, (N, 3, H, W) float64 in -1..1."""
    references = [made.picture(seed + i, side, side) for i in range(count)]
    distorted = [made.distorted(seed + 100 + i, reference, 20 + 30 * i) for i, reference in enumerate(references)]
    return tuple(torch.tensor(np.stack(images)).permute(0, 3, 1, 2).double().sub(127.5).div(127.5)
                 for images in (references, distorted))
