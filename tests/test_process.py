"""The process of a command: the memory that tensors free is kept for the next tensors if the command asks for it."""
import platform
import subprocess
import sys

import pytest
from conftest import ROOT

COUNT_FAULTS = '''
import resource, sys, torch
from iqa_runtime.process import keep_freed_memory
keep_freed_memory(sys.argv[1])
for _ in range(10):
    torch.ones(2 ** 25)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    torch.ones(2 ** 25)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
'''


def page_faults(device: str) -> int:
    """How often the system had to give a page, while four tensors of 128 MB came and went after ten others."""
    command = [sys.executable, '-c', COUNT_FAULTS, device]
    return int(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=300).stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != 'glibc', reason='only glibc has an option that keeps memory')
def test_freed_memory_is_kept_for_a_network_on_the_cpu():
    assert page_faults('cpu') < page_faults('cuda') / 10
