"""CNNIQA: one convolution, its extremes over the whole image, and three fully connected layers.

After L. Kang, P. Ye, Y. Li, D. Doermann: Convolutional Neural Networks for No-Reference Image Quality Assessment, CVPR
2014, in the form that today's toolboxes train: colour images of any size, without local contrast normalisation and
without patches.
"""
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqa_networks.network import Network
from iqa_networks.svd_layers import factored_layers


class CNNIQA(Network):
    """CNNIQA. `forward(x)`, x (N, 3, H, W) in 0..1 with H, W >= 7, returns ((N, 1),), a score of about 0..1.

    conv1 (7x7, 50 channels, no padding, no activation), the maximum and the minimum of each channel over the image,
    fc1 (100 -> 800), ReLU, dropout, fc2 (800 -> 800), ReLU, fc3 (800 -> 1): 729,801 parameters. State-dict names are
    those of pyiqa's CNNIQA.

    Args:
        dropout: probability that an output of fc1 is dropped.
    """

    normalise = 'none'

    def __init__(self, dropout: float = .5):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 50, 7)
        self.fc1 = nn.Linear(100, 800)
        self.fc2 = nn.Linear(800, 800)
        self.fc3 = nn.Linear(800, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the score (see the class)."""
        maps = self.conv1(x)
        extremes = torch.cat([F.adaptive_max_pool2d(maps, 1), -F.adaptive_max_pool2d(-maps, 1)], 1).flatten(1)
        hidden = self.dropout(F.relu(self.fc1(extremes)))
        return (self.fc3(F.relu(self.fc2(hidden))),)

    def other_names(self) -> dict[str, dict[str, str]]:
        """Return the names in checkpoints of the code published with SVD-CNNIQA, if layers are factored.

        It keeps the plain layers beside its own, `svdfc1` for fc1. Its own have a copy of the plain layer's weight,
        but for fc3, and a bias and delta of their own.
        """
        factored = [name for name, _ in factored_layers(self)]
        names = {name: name for name in self.state_dict() if name.rpartition('.')[0] not in factored}
        for layer in factored:
            names |= {f'svd{layer}.{tensor}': f'{layer}.{tensor}' for tensor in ('bias', 'delta')}
            names['svdfc3.weight' if layer == 'fc3' else f'{layer}.weight'] = f'{layer}.weight'
        return {'the published SVD-CNNIQA': names} if factored else {}

    def legacy_random(self) -> list[str]:
        """Return the tensors that the published code leaves random when it starts from a pretrained CNNIQA.

        It copies the weights of the factored layers, but neither their biases nor the weight of fc3.
        """
        factored = [name for name, _ in factored_layers(self)]
        return [f'{layer}.bias' for layer in factored] + [f'{layer}.weight' for layer in factored if layer == 'fc3']
