"""List the networks, for --list_models."""
from functools import partial

from iqa_networks.size import without_memory
from IQAmodel import create_model, entry_of, list_models

MOST_BUILT = 60  # networks that are built to count their parameters; timm has more than a thousand


def models_table(pattern: str = '*') -> str:
    """Return a line for each network whose name matches: name, number of parameters, input images, and system.

    If more than MOST_BUILT networks match, the lines hold the names alone.
    """
    names = list_models(pattern)
    if len(names) > MOST_BUILT:
        return '\n'.join([*names, f'{len(names)} networks; sizes are shown if at most {MOST_BUILT} match'])
    lines = [f'{"network":24}{"parameters":>14}  {"input":<30}system']
    return '\n'.join([*lines, *map(_line, names)])


def _line(name: str) -> str:
    network = without_memory(partial(create_model, name))
    size = f'{network.side}x{network.side}' if network.side else 'any size'
    images = f'{"image" if network.inputs == 1 else "reference and image"}, {size}'
    count = sum(parameter.numel() for parameter in network.parameters())
    return f'{name:24}{count:14,}  {images:<30}{entry_of(name).system}'
