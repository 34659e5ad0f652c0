"""Networks other than LinearityIQA, one family per file. They need torch alone, two of them timm too.

A network is a class under the decorator `register_model`, which makes it a row of NETWORKS; those parameters that are
options (see iqa_runtime/variants.py) are flags of the command line.
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
    """A row of NETWORKS: options -> the network.

    Attributes:
        system: the system that the network belongs to.
        svd: the pattern of the layers that are factored (iqa_networks/svd_layers.py), unless the option svd says so.
    """

    system: str = ''
    svd: str | None = None

    @property
    def inputs(self) -> int:
        """Return the number of images that the network compares, a fact of its class: 1, or 2 with a reference."""
        build = getattr(self.build, 'func', self.build)  # of a partial
        made: type[Network] = build if isinstance(build, type) else build.__annotations__['return']
        return made.inputs

    def has_weights(self) -> bool:
        """Return whether there are published weights that the network can start from."""
        return 'weights' in inspect.signature(self.build).parameters


NETWORKS = Variants('architecture', 'register_model', ['IQAmodel.py', 'iqa_networks/*.py'], Entry,
                    find=lambda name: look_up('IQAmodel:entry_of')(name))
register_model = NETWORKS.register
