import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import timm
import torch
import torch.nn.functional as F
from torch import nn

from supertokenvit.benchmarking.timing import take_turns
from supertokenvit.machine import free_memory, keep_freed_memory, write_out_attention

PAGES = """
import resource, sys
import torch
from supertokenvit.machine import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for _ in range(20):  # where the heap lies is random: it may take some blocks until one is given back again
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


@pytest.mark.parametrize("name", ["stt_nano", "deit_tiny_patch16_224"])
@pytest.mark.parametrize(
    ("device", "precision", "written"),
    [("cpu", "bf16", True), ("cpu", "fp32", False), ("cuda", "bf16", False)],
)
def test_attention_is_written_out_for_bf16_on_a_cpu_only(name, device, precision, written):
    model = timm.create_model(name, device="meta")
    write_out_attention(model, torch.device(device), precision)
    assert {m.fused_attn for m in model.modules() if hasattr(m, "fused_attn")} == {not written}


def test_a_model_without_attention_is_left_alone():
    write_out_attention(nn.Linear(2, 2), torch.device("cpu"), "bf16")


@pytest.mark.slow
@pytest.mark.skipif(not torch.cpu._is_avx512_bf16_supported(), reason="this CPU has no bf16 units")
def test_torchs_fused_attention_is_still_slow_in_bf16():
    """When this fails, write_out_attention has outlived its reason."""
    q, k, v = torch.randn(3, 1024, 4, 17, 24, dtype=torch.bfloat16, requires_grad=True)

    def backward(attention):
        return lambda: attention().sum().backward()

    calls = {
        "fused": backward(lambda: F.scaled_dot_product_attention(q, k, v)),
        "written out": backward(lambda: (q * q.shape[-1] ** -0.5 @ k.transpose(-2, -1)).softmax(-1) @ v),
    }
    times, errors = take_turns(calls, rounds=5, seconds=0.1)
    assert not errors and min(times["fused"]) > 1.5 * min(times["written out"])


def test_memory_is_that_of_the_container(monkeypatch, tmp_path):
    free = free_memory()
    assert 0 <= free <= psutil.virtual_memory().total
    texts = {"memory.max": "5000", "memory.current": "4900", "memory.stat": "anon 1000\ninactive_file 3900\nx 1\n"}
    monkeypatch.setattr(Path, "read_text", lambda path: texts[path.name])
    assert free_memory() == 4000
    texts["memory.max"] = "max"
    assert free_memory() > 4000
