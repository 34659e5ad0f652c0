"""Register a network of the user's own, a class in a file: -arch FILE.py:CLASS."""
import importlib.util
import sys
from pathlib import Path

from iqa_networks import NETWORKS
from iqa_networks.network import Network
from iqa_runtime.errors import UserError, first_line


def own_name(place: str) -> str:
    """Return the name in NETWORKS of a class of the user's own, 'FILE.py:CLASS': that without the file's folder."""
    return Path(place.rpartition(':')[0]).name + ':' + place.rpartition(':')[2]


def register_own(place: str) -> None:
    """Register a class of the user's own, 'FILE.py:CLASS', by the file's name without its folder; this runs the file.

    Only a class that the user types on the command line is registered. Checkpoints and recipes, which can come from
    other people, never run a file. UserError if the file has no such class.
    """
    file, _, name = place.rpartition(':')
    spec = importlib.util.spec_from_file_location(f'own network {Path(file).resolve()}', file)
    if spec.name in sys.modules and own_name(place) in NETWORKS:
        return
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # where Python looks for the source of a class
    try:
        spec.loader.exec_module(module)
        own = getattr(module, name)
    except Exception as error:  # any line of the file may fail
        raise UserError(f'-arch {place}: {type(error).__name__}: {first_line(error)}') from error
    if not (isinstance(own, type) and issubclass(own, Network)):
        raise UserError(f'-arch {place}: {name} is no subclass of iqa_networks.network.Network')
    NETWORKS.register(own_name(place), system=f'of {Path(file).name}')(own)
