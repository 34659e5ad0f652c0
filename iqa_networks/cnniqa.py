"""CNNIQA: one convolution, its extremes over the whole image, and three fully connected layers.

After L. Kang, P. Ye, Y. Li, D. Doermann: Convolutional Neural Networks for No-Reference Image Quality Assessment, CVPR
2014, as recent toolboxes train it: on colour images of any size, without local contrast normalisation and patches.
"""
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from iqa_networks import register_model
from iqa_networks.network import Network
from iqa_networks.svd_layers import factored_layers
from iqa_runtime.option_types import Share

CELL = 32  # side of a cell of the quality map, in pixels
CACHED = 2 ** 16  # pixels of the images that are convolved at once; a larger image is, alone


@register_model('cnniqa', system='SVD-CNNIQA')
@register_model('svd_cnniqa_fc', system='SVD-CNNIQA', svd='fc*')
@register_model('svd_cnniqa_conv', system='SVD-CNNIQA', svd='conv1')
class CNNIQA(Network):
    """CNNIQA. `forward(x)`, x (N, 3, H, W) in 0..1 with H, W >= 7, returns ((N, 1),), a score of about 0..1.

    The layers are conv1 (7x7, 50 channels, no padding, no activation), the maximum and the minimum of each channel over
    the image, fc1 (100 -> 800), ReLU, dropout, fc2 (800 -> 800), ReLU and fc3 (800 -> 1), with 729,801 parameters.
    State-dict names are those of pyiqa's CNNIQA.

    Args:
        dropout: probability that an output of fc1 is dropped.
    """

    normalise = 'none'
    trunk = 'conv1'
    width = 100
    last = ('fc3',)

    def __init__(self, dropout: Share = .5):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 50, 7)
        self.fc1 = nn.Linear(100, 800)
        self.fc2 = nn.Linear(800, 800)
        self.fc3 = nn.Linear(800, 1)
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Return the score (see the class)."""
        return self.regress(*self.pooled(x))

    def pooled(self, x: Tensor) -> tuple[Tensor]:
        """Return the extremes of conv1's maps of images, (N, 100)."""
        if torch.is_grad_enabled():
            return (self.traced_extremes(x),)
        return (torch.cat([self.extremes(self.conv1(images)) for images in self.portions(x)]),)

    def portions(self, x: Tensor) -> Sequence[Tensor]:
        """Return images in portions whose maps fit the processor's cache; all on a GPU, or in an exported network."""
        if x.device.type != 'cpu' or torch.compiler.is_exporting():
            return (x,)
        return x.split(max(1, CACHED // (x.shape[2] * x.shape[3])))

    def extremes(self, maps: Tensor) -> Tensor:
        """Return the maximum and the minimum of each channel of maps (N, 50, H, W), as (N, 100)."""
        return torch.cat([F.adaptive_max_pool2d(maps, 1), -F.adaptive_max_pool2d(-maps, 1)], 1).flatten(1)

    def traced_extremes(self, x: Tensor) -> Tensor:
        """Return the extremes of conv1's maps of x, with their gradient.

        The gradient of an extreme flows through a single window of 7x7 pixels. The windows are located without
        gradients, and only they are convolved again: values and gradients equal those of whole maps, in a third of the
        time, and the maps of the batch need not be kept.
        """
        images, side = torch.arange(len(x), device=x.device), torch.arange(7, device=x.device)
        rows, columns = (first[..., None] + side for first in self.places(x))  # (N, 100, 7)
        windows = x.permute(0, 2, 3, 1)[images[:, None, None, None], rows[..., None], columns[:, :, None]]
        maps = self.conv1(windows.flatten(0, 1).permute(0, 3, 1, 2)).view(len(x), 2, 50, 50)
        return maps.diagonal(dim1=2, dim2=3).flatten(1)  # the extreme of channel c is channel c of its window

    @torch.no_grad()
    def places(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the first row and column, each (N, 100), of the windows whose outputs are the extremes."""
        found = []
        for images in self.portions(x):
            maps = self.conv1(images)
            _, highest = F.adaptive_max_pool2d(maps, 1, return_indices=True)
            _, lowest = F.adaptive_max_pool2d(maps.neg_(), 1, return_indices=True)
            found.append(torch.cat([highest, lowest], 1).flatten(1))
        places, width = torch.cat(found), x.shape[3] - 6
        return places.div(width, rounding_mode='floor'), places % width

    def regress(self, extremes: Tensor) -> tuple[Tensor]:
        """Return the score (..., 1) of extremes (..., 100)."""
        hidden = self.dropout(F.relu(self.fc1(extremes)))
        return (self.fc3(F.relu(self.fc2(hidden))),)

    def local(self, x: Tensor, window: int = 3, head: int = -1) -> Tensor:
        """Return the scores (N, h, w) of cells of about 32x32 pixels, the patches of the original CNNIQA.

        The score of a cell is computed from the extremes in the window of `window` x `window` cells around it; windows
        at the border are moved inwards.
        """
        maps = self.conv1(x)
        h, w = (max(1, size // CELL) for size in maps.shape[2:])
        pooled = []
        for signed in (maps, -maps):
            cells = F.adaptive_max_pool2d(signed, (h, w))
            inside = F.max_pool2d(cells, (min(window, h), min(window, w)), 1)
            more = [(size - have) // 2 + rest * ((size - have) % 2) for size, have in
                    ((w, inside.shape[3]), (h, inside.shape[2])) for rest in (0, 1)]
            pooled.append(F.pad(inside, more, 'replicate'))
        extremes = torch.cat([pooled[0], -pooled[1]], 1)
        return self.mean(self.regress(extremes.permute(0, 2, 3, 1))[head])[..., 0]

    def other_names(self) -> dict[str, dict[str, str]]:
        """Return the names in checkpoints of the code published with SVD-CNNIQA, if layers are factored.

        That code keeps the plain layers beside its factored ones, such as `svdfc1` for fc1. Except for fc3, a factored
        layer has a copy of the plain layer's weight; its bias and its delta are its own.
        """
        factored = [name for name, _ in factored_layers(self)]
        names = {name: name for name in self.state_dict() if name.rpartition('.')[0] not in factored}
        for layer in factored:
            names |= {f'svd{layer}.{tensor}': f'{layer}.{tensor}' for tensor in ('bias', 'delta')}
            names['svdfc3.weight' if layer == 'fc3' else f'{layer}.weight'] = f'{layer}.weight'
        return {'the published SVD-CNNIQA': names} if factored else {}

    def legacy_random(self) -> list[str]:
        """Return the tensors that the published code leaves random when it starts from a pretrained CNNIQA.

        That code copies the weights of the factored layers, but neither their biases nor the weight of fc3.
        """
        factored = [name for name, _ in factored_layers(self)]
        return [f'{layer}.bias' for layer in factored] + [f'{layer}.weight' for layer in factored if layer == 'fc3']
