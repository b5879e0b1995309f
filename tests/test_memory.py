import subprocess
import sys

import pytest

from supertoken.memory import keep_freed_memory

PAGES = """
import resource, sys
import torch
from supertoken.memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(3):
    torch.ones(20_000_000)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(20_000_000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    done = subprocess.run([sys.executable, "-c", PAGES, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="glibc's malloc is only there")
def test_large_tensors_take_memory_from_the_system_only_once():
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    assert faults("keep") < 0.05 * faults("leave")
