"""A linear probe: one linear layer on what a network's trunk gives, to measure how good its features are."""
from torch import Tensor, nn

from iqa_networks.network import Network
from iqa_runtime.errors import UserError


class Probed:
    """The part of a probed network that is not in its class: `probe` instead of all layers behind the trunk."""

    heads = ('score',)

    def regress(self, *pooled: Tensor) -> tuple[Tensor]:
        """Return the score (..., 1) of pooled features, linear in `described(*pooled)`."""
        return (self.probe(self.described(*pooled)),)


def probed(network: Network) -> Network:
    """Replace all layers behind the trunk by one linear layer, in place; return the network.

    Its maps, its normalisation and the names of the trunk's tensors are those of the network.
    """
    if network.trunk is None:
        raise UserError(f'--probe: {type(network).__name__} has no trunk whose features can be probed')
    for name in [name for name, _ in network.named_children() if name != network.trunk]:
        delattr(network, name)
    kind = type(network)
    network.__class__ = type(f'Probed{kind.__name__}', (Probed, kind), {})
    network.probe = nn.Linear(network.width, 1)
    return network
