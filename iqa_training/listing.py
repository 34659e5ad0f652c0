"""List the networks, for --list_models."""
from functools import partial

from iqa_networks.size import without_memory
from IQAmodel import NETWORKS, create_model, list_models


def models_table(pattern: str = '*') -> str:
    """Return a line for each network that matches: its name, parameters, images that it takes, and system."""
    lines = [f'{"network":24}{"parameters":>14}  {"input":<30}system']
    for name in list_models(pattern):
        network = without_memory(partial(create_model, name))
        size = f'{network.side}x{network.side}' if network.side else 'any size'
        images = f'{"image" if network.inputs == 1 else "reference and image"}, {size}'
        count = sum(parameter.numel() for parameter in network.parameters())
        lines.append(f'{name:24}{count:14,}  {images:<30}{NETWORKS[name].system}')
    return '\n'.join(lines)
