"""The target scale: convert MOS to the values with which the loss compares predictions, and back."""
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from iqa_runtime.errors import UserError


@dataclass(frozen=True)
class Target:
    """The linear map from MOS to the values with which the loss compares predictions: target = (mos - shift) / scale.

    The inverse is MOS = scale target + shift: k = scale, b = shift for a network that predicts the target.
    """

    shift: float = 0.
    scale: float = 1.

    def __call__(self, mos):
        """Return the target of MOS, a number, an array or a tensor."""
        return mos if self == Target() else (mos - self.shift) / self.scale


def target_of(words: Sequence[str], mos: np.ndarray) -> Target:
    """Return the target that --target describes, for training images with MOS (N,); `words` as in `check_target`."""
    numbers = [float(word) for word in words if word not in ('none', 'zscore')]
    if words[0] == 'none':
        return Target()
    if words[0] == 'zscore':
        shift, scale = numbers or (float(np.mean(mos)), float(np.std(mos)))
        if scale == 0:
            raise UserError('--target zscore: all training images have the same MOS')
        return Target(shift, scale)
    low, high = numbers
    outside = int(((mos < low) | (mos > high)).sum())
    if outside:
        print(f'WARNING: the MOS of {outside} of {len(mos)} training images lies outside --target {low:g} {high:g} '
              f'({np.min(mos):g} to {np.max(mos):g})')
    return Target(low, high - low)


def check_target(words: Sequence[str]) -> None:
    """Raise UserError if the words of --target are none of: none; zscore; zscore MEAN STD; LOW HIGH."""
    try:
        numbers = [float(word) for word in words[words[0] in ('none', 'zscore'):]]
    except ValueError:
        numbers = [np.nan]
    known = {'none': (0,), 'zscore': (0, 2)}.get(words[0], (2,))
    ordered = words[0] == 'none' or not numbers or (numbers[-1] > (0 if words[0] == 'zscore' else numbers[0]))
    if len(numbers) not in known or not np.isfinite(numbers).all() or not ordered:
        raise UserError(f'--target {" ".join(words)}: expected none, zscore, zscore MEAN STD with STD above 0, or LOW '
                        'HIGH, the range of MOS')
