"""Sizes of networks, counted without memory for their weights, and of the images that they take."""
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from iqa_runtime.errors import UserError
from iqa_runtime.process import memory

LARGE = 512  # pixels


def without_memory(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network that has shapes and names, but neither weights nor random draws."""
    with torch.device('meta'):
        return build()


def too_small(network: nn.Module, images: Sequence[Tensor]) -> bool:
    """Return whether images (N, C, h, w) are too small for a network: it fails for one, and not for a large one."""
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
    """Raise UserError if images (N, C, h, w) are not of side x side; `also` ends the advice of the message."""
    height, width = images.shape[2:]
    if (height, width) != (side, side):
        raise UserError(f'images of {height}x{width} (h x w) for a network of {side}x{side}: '
                        f'give --resize -rs_h {side} -rs_w {side}{also}')


def check_memory(build: Callable[[], nn.Module]) -> None:
    """Raise MemoryError if the weights of a network, twice, are larger than this machine's memory.

    A system that promises more memory than it has would kill the process later on. Twice, for their gradients or for
    the checkpoint that they are read from. A network that is itself built without memory needs none.
    """
    has = memory()
    if torch.get_default_device().type == 'meta' or has is None:  # Windows promises no more than it has
        return
    weights = sum(weight.numel() * weight.element_size() for weight in without_memory(build).parameters())
    if 2 * weights > has:
        raise MemoryError
