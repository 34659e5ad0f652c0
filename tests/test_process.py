"""The process of a command: the memory that tensors free is kept for the next tensors if the command asks for it."""
import platform
from pathlib import Path

import pytest
import torch
from processes import launch

from iqa_runtime.process import keep_freed_memory

resource = pytest.importorskip('resource')


def count_faults(device: str, file: Path) -> None:
    """Write how often the system had to give a page, while three tensors of 64 MB came and went after three others."""
    keep_freed_memory(device)
    counts = []
    for _ in range(2):
        for _ in range(3):
            torch.ones(2 ** 24)
        counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
    file.write_text(str(counts[1] - counts[0]))


def page_faults(device: str, folder: Path) -> int:
    """Return what count_faults counts in a process of its own."""
    launch(count_faults, device, folder / device).join()
    return int((folder / device).read_text())


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='only glibc has an option that keeps memory')
def test_freed_memory_is_kept_for_a_network_on_the_cpu(tmp_path):
    assert page_faults('cpu', tmp_path) < page_faults('cuda', tmp_path) / 10
