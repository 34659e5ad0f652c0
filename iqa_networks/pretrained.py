"""Pretrained weights from a file: a state dict in the usual wrappings, put into a network that it fits, strictly."""
from collections.abc import Collection, Mapping
from pathlib import Path

import torch
from torch import Tensor

from iqa_networks.network import Network
from iqa_networks.svd_layers import factored_layers
from iqa_runtime.checkpoint import read_tensors
from iqa_runtime.checks import checked_value, tensors
from iqa_runtime.errors import UserError

# key of the state dict in a file, if the file is not the state dict itself -> who writes such files
WRAPPINGS = {'model': 'this project', 'params': 'pyiqa', 'state_dict': 'Lightning'}
PREFIXES = ('module.', 'net.')  # in front of all names: of a parallel wrapper, of a Lightning module


def load_pretrained(network: Network, path: str | Path, keep: Collection[str] = ()) -> str:
    """Load the weights in a file; return in words which tensors matched.

    The file fits if it holds each tensor of the network and no other, or if it fits one of `network.other_names()`.
    Tensors that factoring adds to a layer, and counts of batches, may be missing, and then stay as they are.

    Args:
        network: any network of the toolkit.
        path: a checkpoint of this project, a state dict, or one wrapped as WRAPPINGS and PREFIXES say.
        keep: names of tensors that are not loaded.

    Raises UserError that names the file if it cannot be read, or if it fits nothing.
    """
    state, own = state_dict_in(read_tensors(path), path), network.state_dict()
    optional = {f'{name}.delta' for name, _ in factored_layers(network)}
    optional |= {name for name in own if name.endswith('.num_batches_tracked')}  # torch wrote none before 0.4.1

    def wanted(names: Mapping[str, str]) -> dict[str, str]:
        return {there: here for there, here in names.items() if there in state or here not in optional}
    names, whose = wanted({name: name for name in own}), 'the network'
    if set(state) != set(names):
        others = {kind: wanted(theirs) for kind, theirs in network.other_names().items()}
        fitting = [(kind, theirs) for kind, theirs in others.items() if set(theirs) <= set(state)]
        whose, names = fitting[0] if fitting else (whose, names)
    check_fit(state, names, own, path, strict=whose == 'the network')
    loaded = {here: state[there] for there, here in names.items() if here not in keep}
    network.load_state_dict({**own, **loaded})
    rest = [name for name in own if name not in loaded and name not in optional]
    return (f'{path}: {len(loaded)} of {len(own)} tensors are those of {whose}'
            + (f'; {len(rest)} stay as they were ({some(rest)})' if rest else ''))


def state_dict_in(content, path: str | Path) -> dict[str, Tensor]:
    """Return the state dict in the content of a file, without wrapping and prefixes; UserError if there is none."""
    if isinstance(content, Mapping):
        for key in WRAPPINGS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    state = checked_value(path, 'weights', tensors, content)
    for prefix in PREFIXES:
        if state and all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state


def check_fit(state: dict[str, Tensor], names: dict[str, str], own: dict[str, Tensor], path: str | Path,
              strict: bool) -> None:
    """Raise UserError if a tensor is missing or has another shape, or if `strict` and there are others."""
    missing = [there for there in names if there not in state]
    more = [name for name in state if name not in names] if strict else []
    other = [f'{there} {shape(state[there])} for {shape(own[here])}' for there, here in names.items()
             if there in state and state[there].shape != own[here].shape]
    wrong = {'lacks': missing, 'has besides': more, 'has other shapes,': other}
    if any(wrong.values()):
        raise UserError(f'--pretrained {path}: does not fit the network: it ' + ', and '.join(
            f'{what} {some(names)}' for what, names in wrong.items() if names))


def shape(tensor: torch.Tensor) -> str:
    """Return the shape of a tensor in words."""
    return 'x'.join(map(str, tensor.shape)) or 'a number'


def some(names: Collection[str]) -> str:
    """Return the first three names, and how many there are if there are more."""
    first = [*names][:3]
    return ', '.join(first) + (f', ... ({len(names)})' if len(names) > len(first) else '')
