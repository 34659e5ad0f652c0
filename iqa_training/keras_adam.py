"""Compute Adam's steps as Keras does."""
import math
from collections.abc import Callable

import torch


class KerasAdam(torch.optim.Adam):
    """Adam that adds epsilon before the bias correction: lr sqrt(1 - b2^t) / (1 - b1^t) m / (sqrt(v) + eps).

    That is torch's Adam with eps / sqrt(1 - b2^t) in step t = 1, 2, ... The arguments are those of torch's; Keras's
    epsilon is 1e-7.
    """

    def __init__(self, params, lr: float = 1e-3, eps: float = 1e-7, **settings):
        super().__init__(params, lr=lr, eps=eps, **settings)
        for group in self.param_groups:
            group.update(keras_eps=group['eps'], steps=0)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:
        """Take a step; return the loss that `closure` computes, if it is given."""
        for group in self.param_groups:
            group['steps'] = group['steps'] + 1 if self.state else 1  # the state is empty after optimizers.forget
            group['eps'] = group['keras_eps'] / math.sqrt(1 - group['betas'][1] ** group['steps'])
        return super().step(closure)
