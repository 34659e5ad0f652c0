"""Check image sizes against a network, and the memory that a network needs against the machine's."""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from iqa_runtime.errors import UserError
from iqa_runtime.process import memory

LARGE = 512  # side of an image that is large enough for every network, in pixels


def without_memory(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network with names and shapes only: it has no weights, and draws no random numbers."""
    with torch.device('meta'):
        return build()


@torch.no_grad()
def macs(network: nn.Module, size: tuple[int, int]) -> float:
    """Return the multiply-accumulate operations of scoring an image, or a pair, of (h, w) pixels.

    Counted in eval mode by torch.utils.flop_counter; a network on the device meta computes nothing for it.
    """
    device, training = next(network.parameters()).device, network.training
    with FlopCounterMode(display=False) as counter:
        network.eval()(*[torch.zeros(1, 3, *size, device=device)] * network.inputs)
    network.train(training)
    return counter.get_total_flops() / 2


def too_small(network: nn.Module, images: Sequence[Tensor]) -> bool:
    """Return whether images (N, C, h, w) are too small for a network: it fails for this size, but not for LARGE."""
    device = next(network.parameters()).device
    one, large = ([torch.zeros(1, image.shape[1], *size, device=device) for image in images]
                  for size in (images[0].shape[2:], (LARGE, LARGE)))
    return not _runs(network, one) and _runs(network, large)


@torch.no_grad()
def _runs(network: nn.Module, images: Sequence[Tensor]) -> bool:
    training = network.training
    try:
        network.eval()(*images)
    except (RuntimeError, UserError):
        return False
    finally:
        network.train(training)
    return True


def check_side(images: Tensor, side: int, also: str = '') -> None:
    """Raise UserError if images (N, C, h, w) are not side x side; `also` is appended to the advice in the message."""
    height, width = images.shape[2:]
    if (height, width) != (side, side):
        raise UserError(f'images of {height}x{width} (h x w) for a network of {side}x{side}: '
                        f'give --resize -rs_h {side} -rs_w {side}{also}')


def check_memory(build: Callable[[], nn.Module]) -> None:
    """Raise MemoryError if twice the weights of a network need more than this machine's memory.

    A system that overcommits memory would kill the process later. The factor of two accounts for gradients, or for the
    checkpoint from which weights are read. A network on the device meta needs no memory.
    """
    has = memory()
    if torch.get_default_device().type == 'meta' or has is None:  # None: Windows, which does not overcommit
        return
    weights = sum(weight.numel() * weight.element_size() for weight in without_memory(build).parameters())
    if 2 * weights > has:
        raise MemoryError
