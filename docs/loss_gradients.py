"""Draw the gradient of each loss over a pair of images, for docs/losses.md.

    python docs/loss_gradients.py

Four images have the MOS -1, 0, 1 and 2, in units in which MOS are z-scores, and are predicted as -1, 0, x and 2: the
curve is the derivative of the loss by x, over x. Where it is negative, a step of the optimizer moves x up.
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

import numpy as np
import torch
from torch import Tensor

from IQAloss import LOSSES

PICTURE = Path(__file__).parent / 'pictures' / 'loss_gradients.png'
MOS = torch.tensor([[-1.], [0.], [1.], [2.]])
SHARES = torch.tensor([[.1], [.4], [.6], [.9]])  # of the upper of two levels
MORE = {'std': torch.full((4, 1), .5), 'interval': torch.full((4, 1), .3), 'log_variance': torch.zeros(4, 1),
        'flipped': MOS, 'ratings': torch.cat([1 - SHARES, SHARES], 1)}
POSITIONS = np.linspace(-2, 3, 401)


def gradient(name: str, x: float) -> float:
    """Return the derivative of a loss by the third prediction; of a histogram of two levels, by its upper logit."""
    value = torch.tensor(float(x), requires_grad=True)
    y_pred = torch.stack([MOS[0, 0], MOS[1, 0], value, MOS[3, 0]])[:, None]
    inputs = {'y_pred': y_pred, 'y': MOS, 'logits': torch.cat([torch.zeros(4, 1), y_pred], 1), **MORE}
    loss: Tensor = LOSSES[name].build(**{need: inputs[need] for need in LOSSES[name].needs()})
    loss.backward()
    return value.grad.item()


def main() -> None:
    """Draw all losses, and write the picture."""
    from matplotlib.figure import Figure
    names = [name for name in LOSSES if name != 'macs']  # that has a ranker of its own
    figure = Figure((11, 1.75 * -(-len(names) // 5)), layout='constrained')
    for axes, name in zip(figure.subplots(-(-len(names) // 5), 5, sharex=True).flat, names, strict=False):
        axes.axhline(0, color='.8', linewidth=.8)
        axes.axvline(1, color='.8', linewidth=.8, linestyle=':')
        axes.plot(POSITIONS, [gradient(name, x) for x in POSITIONS], linewidth=1.4)
        axes.set_title(name, fontsize=9)
        axes.tick_params(labelsize=7)
    for axes in figure.axes[len(names):]:
        axes.set_axis_off()
    figure.supxlabel('prediction x of the image of MOS 1; those of MOS -1, 0 and 2 are predicted as -1, 0 and 2',
                     fontsize=9)
    figure.supylabel('derivative of the loss by x', fontsize=9)
    PICTURE.parent.mkdir(exist_ok=True)
    figure.savefig(PICTURE, dpi=100)


if __name__ == '__main__':
    main()
