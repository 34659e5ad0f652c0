"""The opinions of a batch of images, as losses get them."""
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Labels:
    """The opinions of N images; unpacks as `mos, std`.

    Attributes:
        mos, std: (N, 1), mean and standard deviation of the opinions; std is nan if it is not known.
        more: name -> (N, C), further labels that losses need: 'interval', (N, 1), half the width of the 95 %
            confidence interval of the MOS; 'ratings', (N, K), the share of the opinions at each of K levels.
    """

    mos: Tensor
    std: Tensor
    more: Mapping[str, Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, scores: 'Labels | tuple[Tensor, Tensor] | Tensor') -> 'Labels':
        """Return labels as they are, and the pair (mos, std), or the MOS alone, as labels."""
        if isinstance(scores, Tensor):
            return cls(scores, torch.full_like(scores, math.nan, dtype=torch.float32))
        return scores if isinstance(scores, cls) else cls(*scores)

    def __iter__(self) -> Iterator[Tensor]:
        return iter((self.mos, self.std))

    def __getitem__(self, i: int) -> Tensor:
        return (self.mos, self.std)[i]

    def __len__(self) -> int:
        return 2

    def map(self, function: Callable[[Tensor], Tensor]) -> 'Labels':
        """Return the labels with a function applied to each tensor."""
        return Labels(function(self.mos), function(self.std),
                      {name: function(value) for name, value in self.more.items()})

    def pin_memory(self) -> 'Labels':
        """Return the labels in memory that a GPU copies fast: the loader of batches asks for it."""
        return self.map(Tensor.pin_memory)

    def onto(self, target: Callable[[Tensor], Tensor], scale: float) -> 'Labels':
        """Return the labels on the scale that a network is trained on (see iqa_data.target.Target)."""
        width = abs(scale)
        widths = {name: value / width for name, value in self.more.items() if name == 'interval'}
        return replace(self, mos=target(self.mos), std=self.std / width, more={**self.more, **widths})
