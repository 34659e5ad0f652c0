"""Freeze parts of a network: training leaves their parameters unchanged."""
import difflib
import fnmatch
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from iqa_runtime.errors import UserError

if TYPE_CHECKING:  # torch is slow to import, and options are checked without it
    from torch import Tensor

    from iqa_networks.network import Network


def freeze(network: 'Network', patterns: Sequence[str]) -> 'set[Tensor]':
    """Freeze the parameters whose names match the patterns, in place; return them.

    A batch normalisation whose parameters are all frozen stays in eval mode: it normalises with its running statistics
    and does not update them, so that a frozen layer computes the same in training and in testing. (With --ft_lr_ratio
    0, running statistics follow the training images, as in the original package.)

    Args:
        network: the network, before DistributedDataParallel wraps it.
        patterns: glob patterns of parameter names, such as 'features.0.weight', or of module names, such as
            'features.[0-4]', for all parameters in the module.

    Raises UserError if a pattern matches neither.
    """
    frozen = named_by(network, patterns)
    for parameter in frozen:
        parameter.requires_grad_(False)
    network.frozen = _frozen_normalisations(network, frozen)
    return frozen


def named_by(network: 'Network', patterns: Sequence[str]) -> 'set[Tensor]':
    """Return the parameters that patterns name (see `freeze`)."""
    parameters = dict(network.named_parameters())
    names = {name: _holders(name) for name in parameters}
    known = list(dict.fromkeys(holder for holders in names.values() for holder in holders))
    matching = set()
    for pattern in patterns:
        found = fnmatch.filter(known, pattern)
        if not found:
            raise UserError(f'--freeze {pattern}: no parameter and no layer has such a name{_nearest(pattern, known)}')
        matching.update(found)
    return {parameters[name] for name, holders in names.items() if matching.intersection(holders)}


def frozen_summary(network: 'Network', frozen: 'Collection[Tensor]') -> str:
    """Return a line with the counts of frozen parameters and of numbers that are still trained."""
    from iqa_networks.adapted_layers import count_parameters  # it imports torch
    count = count_parameters(network)
    return (f'{len(frozen)} of {len(list(network.parameters()))} parameters and {len(network.frozen)} batch '
            f'normalisations are frozen: {count["trainable"]:,} trainable numbers are left')


def _holders(name: str) -> list[str]:
    """Return the names of the modules that contain a parameter, the outermost first, then its own name."""
    parts = name.split('.')
    return ['.'.join(parts[:end]) for end in range(1, len(parts) + 1)]


def _nearest(pattern: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(pattern.strip('*?.'), known, n=1, cutoff=0)
    return f' (did you mean {near[0]}?)' if near else ''


def _frozen_normalisations(network: 'Network', frozen: 'set[Tensor]') -> list[str]:
    from torch.nn.modules.batchnorm import _BatchNorm
    own = {name: list(module.parameters()) for name, module in network.named_modules()
           if isinstance(module, _BatchNorm)}
    return [name for name, parameters in own.items() if parameters and frozen.issuperset(parameters)]
