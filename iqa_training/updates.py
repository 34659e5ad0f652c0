"""Update weights: their moving average while a network trains, and Adam as Keras computes it."""
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Return the exponential moving average of a network; `average.module` is a network with the averaged weights.

    Call `average.update_parameters(network)` after each optimizer step: with the weights w_t after step t, it computes

        a_t = decay a_(t-1) + (1 - decay) w_t,                a_1 = w_1

    Running statistics of batch normalisation are averaged in the same way, so that they match the averaged weights;
    integer buffers, such as the count of batches, are copied. A frozen parameter stays the same in the average, bit for
    bit.

    Args:
        network: the network, on its device, after parameters are frozen and layers are factored.
        decay: in (0, 1); the average spans about 1 / (1 - decay) steps.
    """
    average = get_ema_multi_avg_fn(decay)

    def update(averages: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        if averages[0].is_floating_point():
            average(averages, values, count)
        else:
            for kept, value in zip(averages, values, strict=True):
                kept.copy_(value)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)


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
