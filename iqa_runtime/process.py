"""Signal handling, allocator settings, the size of the memory, Pillow's image size limit, and seeds."""
import ctypes
import os
import random
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import torch
from PIL import Image

UNCAUGHT = (signal.SIG_IGN, None)  # handlers of signals that are ignored, or were installed outside Python


@contextmanager
def signals_wait(message: str = '') -> Iterator[SimpleNamespace]:
    """Defer Ctrl-C and SIGTERM: the first only sets `signal` of the yielded object, and prints `message`.

    A second signal is handled as before the context. Outside the main thread, no signal is caught. Ignored signals stay
    ignored, such as Ctrl-C in a process that a script started in the background: it is for the foreground command.
    """
    stop = SimpleNamespace(signal=None)
    main = threading.current_thread() is threading.main_thread()
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM) if main}
    before = {number: handler for number, handler in before.items() if handler not in UNCAUGHT}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def ask(number: int, _) -> None:
        stop.signal = number
        restore()
        if message:
            print(message, flush=True)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        restore()


def keep_freed_memory(device: str) -> None:
    """Let the C library keep freed memory for the next tensors of a network on the CPU, until the process ends.

    By default, glibc returns the memory of large tensors to the system when they are freed, and the system clears the
    pages again in every step (see benchmarks/ for the time that this takes). Other C libraries are left unchanged.
    torch's own switch also puts tensors into huge pages: if tensor sizes vary, the aligned blocks are easier to reuse,
    and less memory is kept.
    """
    if not device.startswith('cpu'):
        return
    os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')  # read when the first large tensor is allocated
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    trim_threshold, mmap_threshold = -1, -3  # their numbers in malloc.h
    for parameter in (trim_threshold, mmap_threshold):
        mallopt(parameter, 2 ** 31 - 1)


@contextmanager
def pillow_without_limit() -> Iterator[None]:
    """Let Pillow open images of any size within the context; stream.Reader has its own limit."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def seed_everything(seed: int, randomness: bool) -> None:
    """Seed Python, numpy and torch, and select deterministic GPU kernels.

    With `randomness`, the seed is random and the fastest kernels are selected. All processes get the same seed, since
    they build the same network and divide batches of the same order among them (see `seed_by_rank`).
    """
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = not randomness, randomness
    if randomness:
        import ignite.distributed as idist  # a network needs none
        seed = int(idist.broadcast(float(torch.seed() % 2 ** 32), 0) if idist.get_world_size() > 1 else torch.seed())
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    torch.manual_seed(seed)


def seed_by_rank(rank: int) -> None:
    """Seed torch in each process differently, so that dropout and augmentation differ; that of rank 0 is unchanged."""
    if rank:
        torch.manual_seed((torch.initial_seed() + rank) % 2 ** 64)


def memory() -> int | None:
    """Return the memory of this machine in bytes; None on systems that do not report it, such as Windows."""
    if not hasattr(os, 'sysconf'):
        return None
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
