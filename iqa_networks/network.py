"""Define the contract of every network of the toolkit."""
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from torch import Tensor, nn


class Network(nn.Module):
    """Base class of all networks: all that the trainer and the scorer may know of a network.

    `forward(*images)` returns a tuple of (N, 1) tensors, raw scores of the heads, the final one last. A no-reference
    network takes one batch of normalised images (N, 3, H, W); a full-reference network takes two, (reference,
    distorted). The arguments of the constructor are the options of the network, by name; `weights`, if it is among
    them, is 'imagenet', None (random) or a path.

    Attributes:
        inputs: images that the network compares: 1 (no reference) or 2 (full reference).
        heads: name of each head, in the order of the outputs.
        side: the height and width that the network needs; None if it takes any size.
        normalise: name of the pixels' normalisation that the network was designed for.
        l2_layers: 'dense' and 'conv' -> the layers whose weights --l2 penalises.
        any_size: whether an exported network takes images of any size.
        frozen: names of the modules that stay in eval mode while the others train: frozen batch normalisations.
    """

    inputs: int = 1
    heads: tuple[str, ...] = ('score',)
    side: int | None = None
    normalise: str = 'imagenet'
    l2_layers: Mapping[str, Sequence[str]] = MappingProxyType({})
    any_size: bool = True
    frozen: Sequence[str] = ()

    @property
    def backbone(self) -> nn.Module | None:
        """Return the pretrained module, trained at `ft_lr_ratio` times the learning rate; None if there is none."""
        return None

    def other_names(self) -> dict[str, dict[str, str]]:
        """Return the names of the tensors in other published files: whose file -> name there -> name here.

        Tensors of the file that are not named are not loaded, those of the network stay as they were.
        """
        return {}

    def train(self, mode: bool = True) -> 'Network':
        """Set training mode, or with False eval mode; modules that are `frozen` are in eval mode always."""
        super().train(mode)
        for name in self.frozen:
            self.get_submodule(name).eval()
        return self

    def forward(self, *images: Tensor) -> tuple[Tensor, ...]:
        """Return the raw scores of the heads (see the class)."""
        raise NotImplementedError


def scored_first(heads: Sequence, scored: int = -1) -> list:
    """Return `heads`, an item per head, with that of position `scored` first, the others in their order."""
    scored %= len(heads)
    return [heads[scored], *(head for i, head in enumerate(heads) if i != scored)]
