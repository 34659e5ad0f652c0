"""Average the weights of a network while it trains."""
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn


def averaged(network: nn.Module, decay: float) -> AveragedModel:
    """Return the exponential moving average of a network; `average.module` is a network with the averaged weights.

    After the first optimizer step, `average.update_parameters(network)` takes the weights w_1, and after step t

        a_t = decay a_(t-1) + (1 - decay) w_t,                a_1 = w_1

    The running statistics of batch normalisations are averaged in the same way, so that they are those of the weights
    beside them; whole numbers, as the batches that were counted, are copied. What does not change, as a frozen
    parameter, is equal in the average, bit for bit.

    Args:
        network: on its device, frozen and factored already.
        decay: between 0 and 1; about 1 / (1 - decay) steps take part.
    """
    average = get_ema_multi_avg_fn(decay)

    def update(averages: list[Tensor], values: list[Tensor], count: Tensor) -> None:
        if averages[0].is_floating_point():
            average(averages, values, count)
        else:
            for kept, value in zip(averages, values, strict=True):
                kept.copy_(value)

    return AveragedModel(network, multi_avg_fn=update, use_buffers=True)
