"""Backbones: torchvision's networks up to the last layer that is tapped, and their weights."""
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from iqa_runtime.checkpoint import read_tensors
from iqa_runtime.checks import checked_value, tensors
from iqa_runtime.errors import UserError


@dataclass(frozen=True)
class Backbone:
    """A torchvision network, and the two of its layers that are tapped.

    Attributes:
        build: its name in torchvision.models, or a function of `weights`.
        taps: the numbers of the two layers.
        channels: the channels of their feature maps.
    """

    build: str | Callable[..., nn.Module]
    taps: tuple[int, int]
    channels: tuple[int, int]

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
        state = checked_value(f'--weights {weights}', 'the file', tensors, read_tensors(weights))
        try:
            network.load_state_dict(state)
        except (RuntimeError, TypeError, AttributeError) as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(f'--weights {weights}: not a torchvision state dict of {arch} ({reason})') from None
        return network

    def features(self, network: nn.Module) -> nn.Sequential:
        """Return the layers up to the last tap; a ResNet's are its children up to the last residual stage."""
        layers = network.features if hasattr(network, 'features') else nn.Sequential(*network.children())
        return layers[:self.taps[1] + 1]
