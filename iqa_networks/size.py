"""Sizes of networks, counted without memory for their weights."""
import os
from collections.abc import Callable

import torch
from torch import nn


def without_memory(build: Callable[[], nn.Module]) -> nn.Module:
    """Build a network that has shapes and names, but neither weights nor random draws."""
    with torch.device('meta'):
        return build()


def check_memory(build: Callable[[], nn.Module]) -> None:
    """Raise MemoryError if the weights of a network, twice, are larger than this machine's memory.

    A system that promises more memory than it has would kill the process later on. Twice, for their gradients or for
    the checkpoint that they are read from. A network that is itself built without memory needs none.
    """
    if torch.get_default_device().type == 'meta' or not hasattr(os, 'sysconf'):  # Windows promises no more than it has
        return
    weights = sum(weight.numel() * weight.element_size() for weight in without_memory(build).parameters())
    if 2 * weights > os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES'):
        raise MemoryError
