"""The process of a command: the memory that tensors free is kept for the next tensors if the command asks for it."""
import platform
import subprocess
import sys

import pytest
from conftest import ROOT

pytest.importorskip('resource')

COUNT_FAULTS = '''
import resource, sys, torch
from iqa_runtime.process import keep_freed_memory
keep_freed_memory(sys.argv[1])
counts = []
for tensors in (30, 3):
    for _ in range(tensors):
        torch.ones(2 ** 23)
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
print(counts[1] - counts[0])
'''


def page_faults(device: str) -> int:
    """Return how often the system had to give a page, while three tensors of 32 MB came and went after thirty others.

    The first ones do not count: in some processes, depending on the addresses, glibc's caches of small blocks keep a
    freed tensor from being joined with its neighbours, until the caches are full (after 16 tensors at most, seen in 80
    processes). The interpreter is a new one, since a forked process inherits the heap of its parent.
    """
    command = [sys.executable, '-c', COUNT_FAULTS, device]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='only glibc has an option that keeps memory')
def test_freed_memory_is_kept_for_a_network_on_the_cpu():
    assert page_faults('cpu') < page_faults('cuda') / 10
