"""Average the weights of a network while it trains."""
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
