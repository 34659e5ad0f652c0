"""What a scoring run needs of its machine: other processes to share with, Ctrl-C, closed pipes, Pillow's limit."""
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch.distributed as dist
from PIL import Image


@dataclass(frozen=True)
class Processes:
    """This process among those that share a list of images; alone where torchrun did not start it."""

    rank: int = 0
    world: int = 1

    def gather(self, value) -> list:
        """The values of all processes, by rank, in the first; an empty list in the others. Waits for all."""
        if self.world == 1:
            return [value]
        values = [None] * self.world if self.rank == 0 else None
        dist.gather_object(value, values)
        return values or []


@contextmanager
def joined() -> Iterator[Processes]:
    """Join the other processes where torchrun started this one."""
    if 'RANK' not in os.environ or int(os.environ.get('WORLD_SIZE', 1)) == 1:
        yield Processes()
        return
    dist.init_process_group('gloo')
    try:
        yield Processes(dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def own_device(device: str) -> str:
    """`device`, or for cuda the GPU that is this process's own."""
    return f'cuda:{os.environ["LOCAL_RANK"]}' if device == 'cuda' and 'LOCAL_RANK' in os.environ else device


class Interrupted:
    """While the context lasts, the first Ctrl-C (or SIGTERM) only sets a flag, `interrupted()`; the second one ends."""

    def __init__(self):
        self.set, self.before = False, {}

    def __call__(self) -> bool:
        return self.set

    def __enter__(self) -> 'Interrupted':
        if threading.current_thread() is threading.main_thread():
            self.before = {name: signal.signal(name, self._on_signal) for name in (signal.SIGINT, signal.SIGTERM)}
        return self

    def _on_signal(self, number: int, frame) -> None:
        self.set = True
        signal.signal(number, self.before[number])

    def __exit__(self, *error) -> None:
        for name, handler in self.before.items():
            signal.signal(name, handler)


@contextmanager
def quiet_pipe() -> Iterator[None]:
    """End quietly, with the status of other programs (141), where who reads the output has gone, as `| head` does."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains while it ends
        raise SystemExit(141) from None


@contextmanager
def pillow_without_limit() -> Iterator[None]:
    """Let Pillow open images of any size, for IQAstream.Reader has a limit of its own."""
    limit = Image.MAX_IMAGE_PIXELS
    Image.MAX_IMAGE_PIXELS = None
    try:
        yield
    finally:
        Image.MAX_IMAGE_PIXELS = limit
