"""Map raw outputs of a network to MOS, and compare scores with the MOS of the training images."""
import inspect
from dataclasses import dataclass

import numpy as np
import torch
from scipy.special import expit
from torch import Tensor

from iqa_runtime.errors import UserError, pick


def linear(raw, k: float, b: float):
    """Return k raw + b."""
    return k * raw + b


def logistic(raw, top: float, bottom: float, centre: float, width: float):
    """Return bottom + (top - bottom) / (1 + exp(-(raw - centre) / width)); falls if bottom > top."""
    z = (raw - centre) / width
    return bottom + (top - bottom) * (torch.sigmoid(z) if isinstance(z, Tensor) else expit(z))


MAPPINGS = {'linear': linear, 'logistic': logistic}  # name -> function of raw (a tensor, array or number), parameters


@dataclass(frozen=True)
class Mapping:
    """The mapping from raw outputs of the final head to MOS; takes and returns a tensor, an array or a number."""

    name: str
    parameters: tuple[float, ...]

    def __post_init__(self):
        wanted = list(inspect.signature(MAPPINGS[pick(MAPPINGS, self.name, 'mapping')]).parameters)[1:]
        if len(self.parameters) != len(wanted) or dict(zip(wanted, self.parameters, strict=True)).get('width') == 0:
            raise UserError(f'{self.name} with {", ".join(wanted)}; a width must not be 0')

    def __call__(self, raw):
        return MAPPINGS[self.name](raw, *self.parameters)

    @classmethod
    def of(cls, checkpoint: dict) -> 'Mapping':
        """Return the checkpoint's calibration ('mapping': {'name', 'parameters'}), or else the line k[0], b[0]."""
        calibrated = checkpoint.get('mapping', {'name': 'linear',
                                                'parameters': (checkpoint['k'][0], checkpoint['b'][0])})
        return cls(calibrated['name'], tuple(float(value) for value in calibrated['parameters']))


@dataclass(frozen=True)
class Scale:
    """The MOS of the training images, for comparison with scores; unknown in a checkpoint of the original package."""

    values: np.ndarray  # (N,) float64, sorted; empty if unknown
    low: float | None = None
    high: float | None = None
    higher_is_better: bool | None = None

    @classmethod
    def of(cls, checkpoint: dict) -> 'Scale':
        """Return the scale that the checkpoint keeps in 'mos'."""
        mos = checkpoint.get('mos')
        if not mos:
            return cls(np.empty(0))
        return cls(np.asarray(mos['values'], float), mos['min'], mos['max'], mos['higher_is_better'])

    def percentile(self, score: float) -> float | None:
        """Return the percentage of training images of lower MOS (an equal MOS counts half), 0..100; None if unknown."""
        if not len(self.values):
            return None
        both = np.searchsorted(self.values, score, 'left') + np.searchsorted(self.values, score, 'right')
        return float(50 * both / len(self.values))

    def outside(self, score: float) -> str:
        """Return 'below' or 'above' if the score lies outside the range of the training MOS, else ''."""
        if self.low is None:
            return ''
        return 'below' if score < self.low else 'above' if score > self.high else ''

    def clamp(self, score: float) -> float:
        """Return the score, clipped to the range of the training MOS."""
        return score if self.low is None else min(max(score, self.low), self.high)

    def __str__(self) -> str:
        if self.low is None:
            return 'MOS of the training images: not in this checkpoint'
        return (f'MOS of the training images: {self.low:.4g} to {self.high:.4g}, '
                f'{"higher" if self.higher_is_better else "lower"} is better')
