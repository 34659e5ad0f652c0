"""Load pretrained weights: read a state dict in the usual wrappings, and load it into a network strictly."""
from collections.abc import Collection, Mapping
from pathlib import Path

from torch import Tensor, nn

from iqa_networks.adapted_layers import added_parameters
from iqa_networks.network import Network
from iqa_runtime.checkpoint import read_content
from iqa_runtime.checks import checked_value, tensors
from iqa_runtime.errors import UserError
from iqa_runtime.published import is_published, read_safetensors

# key of the state dict in a file that contains more -> project that writes such files
WRAPPINGS = {'model': 'this project', 'params': 'pyiqa', 'state_dict': 'Lightning'}
PREFIXES = ('module.', 'net.')  # before all names: added by a parallel wrapper or a Lightning module
COMPILED = '_orig_mod.'         # anywhere in a name: added by torch.compile
COUNTS = '.num_batches_tracked'  # not written by torch before 0.4.1
DISTRIBUTION = 'distribution.'  # tensors of iqa_networks/distribution.py


def load_pretrained(network: Network, path: str | Path, keep: Collection[str] = ()) -> str:
    """Load the weights in a file into a network; return a summary of the loaded tensors.

    The file fits if it has exactly the tensors of the network, or those of one of `network.other_names()`. Tensors that
    adapted layers add, and batch counts, may be missing, and then stay unchanged. So do the last layers of a network
    that predicts a distribution, if the file's predict another one, or a score alone.

    Args:
        network: any network of the toolkit.
        path: see `read_weights`.
        keep: names of tensors that are not loaded.

    Raises UserError that names the file if it cannot be read, or does not fit the network.
    """
    state, own = read_weights(path), network.state_dict()
    added = added_parameters(network)
    optional = {*added} | {name for name in own if name.endswith(COUNTS) or name.startswith(DISTRIBUTION)}

    def wanted(names: Mapping[str, str]) -> dict[str, str]:
        return {there: here for there, here in names.items() if there in state or here not in optional}
    names, whose = wanted({name: name for name in own}), 'the network'
    if set(state) != set(names):
        others = {kind: wanted(theirs) for kind, theirs in network.other_names().items()}
        fitting = [(kind, theirs) for kind, theirs in others.items() if set(theirs) <= set(state)]
        whose, names = fitting[0] if fitting else (whose, names)
    other_heads = heads_of_another_kind(network, state, names)
    names = {there: here for there, here in names.items() if there not in other_heads}
    if wrong := misfit(state, names, own, other_heads if whose == 'the network' else state):
        raise UserError(f'--pretrained {path}: does not fit the network: {wrong}')
    loaded = {here: state[there] for there, here in names.items() if here not in keep}
    network.load_state_dict({**own, **loaded})
    rest = [name for name in own if name not in loaded and name not in added]
    return (f'{path}: {len(loaded)} of {len(own)} tensors are those of {whose}'
            + (f'; {len(rest)} stay as they were ({some(rest)})' if rest else ''))


def heads_of_another_kind(network: Network, state: Mapping[str, Tensor], names: Mapping[str, str]) -> set[str]:
    """Return the tensors of the last layers, by their names in a file, if these predict other than the network's.

    Args:
        network: its `distribution` says what it predicts.
        state: state dict of the file.
        names: name of each tensor in the file -> its name in the network.
    """
    if network.distribution is None:
        return set()
    own, ends = network.state_dict(), tuple(f'{name}.' for name in network.last)
    heads = {there: own[here] for there, here in names.items() if here.startswith(ends)}
    levels = {name: tensor for name, tensor in {**state, **own}.items() if name.startswith(DISTRIBUTION)}
    same = all(name in state and name in own for name in levels) and all(
        there in state and state[there].shape == tensor.shape for there, tensor in {**heads, **levels}.items())
    return set() if same else {*heads, *levels}


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """Read the state dict in a file; UserError if the file contains none.

    The file may be a checkpoint of this project, a state dict, or a state dict wrapped as in WRAPPINGS, PREFIXES and
    COMPILED, in torch's format; a state dict in the safetensors format; or a published model, by its folder or its name
    on the hub.
    """
    safe = Path(path).suffix == '.safetensors' and not is_published(path)
    return state_dict_in(read_safetensors(path) if safe else read_content(path), path)


def load_part(network: nn.Module, path: str | Path, state: Mapping[str, Tensor], names: Mapping[str, str | None],
              whose: str) -> None:
    """Load a state dict of a whole backbone into the used part of it; UserError about --weights if it does not fit.

    Args:
        network: the used part.
        path: file of the state dict, for the error message.
        state: the state dict that `read_weights` returned.
        names: name of each tensor of the whole backbone -> its name in the part, None if it is not used.
        whose: description of the backbone, for the error message.
    """
    used = {there: here for there, here in names.items() if here and (there in state or not here.endswith(COUNTS))}
    if wrong := misfit(state, used, network.state_dict(), names):
        raise UserError(f'--weights {path}: not a state dict of {whose}: {wrong}; --pretrained takes checkpoints and '
                        'other weights of the whole network')
    network.load_state_dict({here: state[there] for there, here in used.items()}, strict=False)


def state_dict_in(content, path: str | Path) -> dict[str, Tensor]:
    """Return the state dict in the content of a file, without wrappings and prefixes; UserError if it has none."""
    if isinstance(content, Mapping):
        for key in WRAPPINGS:
            if isinstance(content.get(key), Mapping):
                content = content[key]
                break
    state = checked_value(path, 'weights', tensors, content)
    plain = {name.replace(COMPILED, ''): tensor for name, tensor in state.items()}
    while plain and (prefix := _shared_prefix(plain)):
        plain = {name.removeprefix(prefix): tensor for name, tensor in plain.items()}
    return plain if len(plain) == len(state) else state


def _shared_prefix(names: Collection[str]) -> str:
    """Return the prefix in PREFIXES with which all names begin, or ''."""
    return next((prefix for prefix in PREFIXES if all(name.startswith(prefix) for name in names)), '')


def misfit(state: Mapping[str, Tensor], names: Mapping[str, str], own: Mapping[str, Tensor],
           others: Collection[str]) -> str:
    """Describe the missing and unexpected tensors of a state dict, and those of another shape; '' if it fits.

    Args:
        state: state dict of the file.
        names: name of each expected tensor in the file -> its name in the network.
        own: state dict of the network.
        others: further names that the file may contain.
    """
    missing = [there for there in names if there not in state]
    more = [name for name in state if name not in names and name not in others]
    other = [f'{there} {shape(state[there])} for {shape(own[here])}' for there, here in names.items()
             if there in state and state[there].shape != own[here].shape]
    wrong = {'lacks': missing, 'has besides': more, 'has other shapes,': other}
    found = ', and '.join(f'{what} {some(names)}' for what, names in wrong.items() if names)
    return f'it {found}' if found else ''


def shape(tensor: Tensor) -> str:
    """Format the shape of a tensor, such as 64x3x7x7."""
    return 'x'.join(map(str, tensor.shape)) or 'a number'


def some(names: Collection[str]) -> str:
    """Format the first three names, followed by the number of names if there are more."""
    first = [str(name)[:80] for name in [*names][:3]]
    return ', '.join(first) + (f', ... ({len(names)})' if len(names) > len(first) else '')
