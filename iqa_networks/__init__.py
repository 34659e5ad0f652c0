"""The table of networks, NETWORKS. Networks other than LinearityIQA are here, a file for each family.

A network is a class under the decorator `register_model`. The decorator makes it a row of NETWORKS, and turns its
optional parameters into flags of the command line (see iqa_runtime/variants.py). The networks depend on torch only;
backbones of timm and MANIQA also on timm.
"""
import inspect
from dataclasses import dataclass
from typing import TYPE_CHECKING

from iqa_runtime.option_types import look_up
from iqa_runtime.variants import Row, Variants

if TYPE_CHECKING:  # torch is slow to import
    from iqa_networks.network import Network


@dataclass(frozen=True)
class Entry(Row):
    """A row of NETWORKS: a function from options to the network.

    Attributes:
        system: name of the published system that the network belongs to.
        svd: default pattern of the layers that are factored (iqa_networks/svd_layers.py); None: no layers.
    """

    system: str = ''
    svd: str | None = None

    @property
    def inputs(self) -> int:
        """Return the number of images that the network compares, by its class: 1, or 2 with a reference."""
        build = getattr(self.build, 'func', self.build)  # of a partial
        made: type[Network] = build if isinstance(build, type) else build.__annotations__['return']
        return made.inputs

    def has_weights(self) -> bool:
        """Return whether the network can start from published weights."""
        return 'weights' in inspect.signature(self.build).parameters


NETWORKS = Variants('architecture', 'register_model', ['IQAmodel.py', 'iqa_networks/*.py'], Entry,
                    find=lambda name: look_up('IQAmodel:entry_of')(name))
register_model = NETWORKS.register
HEADS = Variants('head', 'head', ['iqa_networks/distribution.py'])  # what a network predicts, beside or as the score
head = HEADS.register
