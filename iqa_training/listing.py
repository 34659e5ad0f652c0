"""List the networks, for --list_models."""
from functools import partial

from iqa_networks.size import without_memory
from IQAmodel import create_model, entry_of, list_models

MOST_BUILT = 60  # names whose networks are built to count their parameters; timm has more than a thousand


def models_table(pattern: str = '*') -> str:
    """Return a line for each network that matches: its name, parameters, images that it takes, and system.

    Of more than MOST_BUILT networks, the names alone.
    """
    names = list_models(pattern)
    if len(names) > MOST_BUILT:
        return '\n'.join([*names, f'{len(names)} networks; of at most {MOST_BUILT}, their sizes are shown too'])
    lines = [f'{"network":24}{"parameters":>14}  {"input":<30}system']
    return '\n'.join([*lines, *map(_line, names)])


def _line(name: str) -> str:
    network = without_memory(partial(create_model, name))
    size = f'{network.side}x{network.side}' if network.side else 'any size'
    images = f'{"image" if network.inputs == 1 else "reference and image"}, {size}'
    count = sum(parameter.numel() for parameter in network.parameters())
    return f'{name:24}{count:14,}  {images:<30}{entry_of(name).system}'
