"""Backbones: torchvision's networks up to the last layer that is tapped, and their weights."""
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from iqa_networks.pretrained import load_part, read_weights
from iqa_networks.size import without_memory
from iqa_runtime.errors import UserError


@dataclass(frozen=True)
class Backbone:
    """A torchvision network, and the two of its layers that are tapped.

    Attributes:
        build: its name in torchvision.models, or a function of `weights`.
        taps: the numbers of the two layers.
        channels: the channels of their feature maps.
        side: the height and width of the images that it takes; None: any.
        normalise: name of the pixels' normalisation that its weights expect.
    """

    build: str | Callable[..., nn.Module]
    taps: tuple[int, int]
    channels: tuple[int, int]
    side = None
    normalise = 'imagenet'
    source = 'torchvision'

    def network(self, weights: str | None = None) -> nn.Module:
        """Build the whole network; weights: those of torchvision, by name."""
        if callable(self.build):
            return self.build(weights=weights)
        from torchvision import models  # slow to import
        return getattr(models, self.build)(weights=weights)

    def load(self, weights: str | Path | None, arch: str) -> nn.Module:
        """Build the whole network with `weights`: None (random), 'imagenet' (downloaded), or the path of a state dict.

        Raises UserError, which names the network `arch`, if the weights cannot be had.
        """
        if weights is None:
            return self.network()
        if weights == 'imagenet':
            try:
                return self.network('IMAGENET1K_V1')
            except (OSError, RuntimeError) as error:  # no network, or a download that was cut
                raise UserError(f"cannot download torchvision's ImageNet weights of {arch} ({error}); on a machine "
                                'without internet give --weights PATH, a torchvision state dict, or --weights none'
                                ) from None
        network = self.network()
        used = self.names()
        names = {name: name if name in used else None for name in network.state_dict()}
        load_part(network, weights, read_weights(weights), names, f"torchvision's {arch}")
        return network

    def features(self, network: nn.Module) -> 'TappedLayers':
        """Return the layers up to the last tap; a ResNet's are its children up to the last residual stage."""
        layers = network.features if hasattr(network, 'features') else network.children()
        return TappedLayers(self.taps, [*layers][:self.taps[1] + 1])

    def names(self) -> dict[str, str]:
        """Return the name of each tensor in torchvision's state dict -> its name in `features`."""
        network = without_memory(self.network)
        place = {id(tensor): name for name, tensor in self.features(network).state_dict(keep_vars=True).items()}
        return {name: place[id(tensor)] for name, tensor in network.state_dict(keep_vars=True).items()
                if id(tensor) in place}


class TappedLayers(nn.Sequential):
    """Layers of which two are tapped. `forward(x)`, x (N, 3, H, W), returns their maps (N, C, h, w)."""

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
