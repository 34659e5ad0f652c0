"""The process of a command: signals that can wait, memory that is kept and that there is, Pillow's limit, seeds."""
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

UNCAUGHT = (signal.SIG_IGN, None)  # handlers of signals that are ignored, or are not Python's to handle


@contextmanager
def signals_wait(said: str = '') -> Iterator[SimpleNamespace]:
    """Let a first Ctrl-C or SIGTERM only set `signal` of the yielded object, and print `said`.

    A second one does what it would have done before. Outside the main thread, no signal is caught; nor is one that is
    ignored, as Ctrl-C is by a process that a script started in the background: it is meant for another command.
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
        if said:
            print(said, flush=True)

    for number in before:
        signal.signal(number, ask)
    try:
        yield stop
    finally:
        restore()


def keep_freed_memory(device: str) -> None:
    """Let the C library keep the memory that a network on the CPU frees for its next tensors, until the process ends.

    glibc gives large tensors back to the system when they are freed; the system then clears every page for the next
    ones, in each step anew (how long that takes: benchmarks/). With another C library nothing is changed. Tensors are
    put into huge pages besides, which is torch's own switch: where their sizes vary, the aligned pieces that are
    kept fit the next ones better, and less memory is.
    """
    if not device.startswith('cpu'):
        return
    os.environ.setdefault('THP_MEM_ALLOC_ENABLE', '1')  # read when the first large tensor is made
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):
        return
    trim_threshold, mmap_threshold = -1, -3  # their numbers in malloc.h
    for parameter in (trim_threshold, mmap_threshold):
        mallopt(parameter, 2 ** 31 - 1)


@contextmanager
def pillow_without_limit() -> Iterator[None]:
    """Let Pillow open images of any size, for stream.Reader has a limit of its own."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit


def seed_everything(seed: int, randomness: bool) -> None:
    """Seed Python, numpy and torch and choose repeatable GPU kernels; with `randomness` any seed, and the fastest.

    All processes get the same seed, since they share out the batches that it orders.
    """
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = not randomness, randomness
    if randomness:
        import ignite.distributed as idist  # a network needs none
        seed = int(idist.broadcast(float(torch.seed() % 2 ** 32), 0) if idist.get_world_size() > 1 else torch.seed())
    random.seed(seed)
    np.random.seed(seed % 2 ** 32)
    torch.manual_seed(seed)


def memory() -> int | None:
    """Return the bytes of memory of this machine; None on a system that has no way to ask, as Windows."""
    if not hasattr(os, 'sysconf'):
        return None
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')
