"""The machine that computes: devices, cores, memory, precision, the C library's allocator, and how to record it all."""

import ctypes
import os
import platform
import re
import statistics
import sys
import time
from pathlib import Path
from typing import Any, Literal

import psutil
import torch
from torch import nn

from .errors import UserError

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names and numbers of malloc.h
LEAST_GAIN = 1.5  # of matrix products in bf16: conversions and all that stays in fp32 eat a smaller one
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
Precision = Literal["fp32", "bf16"]


class DeviceError(UserError):
    """A device that is not there."""


def best_device(wanted: str | None) -> torch.device:
    """Returns the device of that name, or the best one there is.

    Args:
        wanted: Such as "cpu", "cuda:1" or "mps"; None for the best.

    Raises:
        DeviceError: There is none of that name here.
    """
    if wanted:
        try:
            return torch.empty(0, device=wanted).device
        except (RuntimeError, AssertionError) as error:  # torch without CUDA asserts
            reason = str(error).splitlines()[0].split(" at start of device string")[0]
            raise DeviceError(f"device={wanted}: {reason}") from None
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def cores() -> int:
    """Counts the cores that this process may use: its share, if a launcher started several on this machine."""
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, count // int(os.environ.get("LOCAL_WORLD_SIZE", "1")))


def free_memory() -> int:
    """Bytes that this process may still take, of the machine's and within the limit of its container (cgroup v2)."""
    free, group = psutil.virtual_memory().available, Path("/sys/fs/cgroup")
    try:
        limit, used = (int((group / name).read_text()) for name in ("memory.max", "memory.current"))
        files = re.search(r"^inactive_file (\d+)$", (group / "memory.stat").read_text(), re.MULTILINE)
    except (OSError, ValueError):  # no such system, or no limit
        return free
    return max(0, min(free, limit - used + (int(files[1]) if files else 0)))  # what was read of files gives way


def wait_for(device: torch.device | str) -> None:
    """Returns when the device has done everything asked of it."""
    if torch.device(device).type != "cpu":
        torch.accelerator.synchronize(torch.device(device))


def best_precision(device: torch.device) -> tuple[Precision, str]:
    """Chooses bf16 where the device computes faster with it, and says why.

    CPUs with bf16 units differ, so their gain is measured (a few milliseconds).
    """
    if device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False):
        return "bf16", "the GPU has units for it"
    if device.type != "cpu" or not torch.cpu._is_avx512_bf16_supported():
        return "fp32", "no bf16 units"
    gain = _gain_of_bf16()
    return ("bf16" if gain > LEAST_GAIN else "fp32"), f"products are {gain:.1f} times as fast in bf16"


def _gain_of_bf16() -> float:
    """Time of a product in float32 through that in bf16, as medians, taking turns."""
    times: dict[torch.dtype, list[float]] = {torch.float32: [], torch.bfloat16: []}
    pairs = {kind: (torch.randn(4096, 256).to(kind), torch.randn(256, 512).to(kind)) for kind in times}
    for _ in range(15):
        for kind, (a, b) in pairs.items():
            began = time.perf_counter()
            a @ b
            times[kind].append(time.perf_counter() - began)
    return statistics.median(times[torch.float32]) / statistics.median(times[torch.bfloat16])


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """Makes the context in which products are computed in that precision ("fp32" changes nothing)."""
    dtype = DTYPES[precision]
    return torch.autocast(device.type, dtype, enabled=dtype != torch.float32)


def keep_freed_memory() -> bool:
    """Lets the process keep freed memory for its next tensors; says whether it could (glibc only).

    glibc gives every block above 32 MB back to the system when it is freed, and takes a new one for the next
    activation, whose pages the system must fill with zeros one by one. On a CPU that was a sixth of a training step.
    """
    if sys.platform != "linux":
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, -1))


def write_out_attention(model: nn.Module, device: torch.device, precision: str) -> None:
    """Replaces torch's fused attention kernel by plain products in timm's layers, where that trains faster.

    In bf16 on a CPU the backward pass of the fused kernel takes much longer than the products written out
    (torch 2.14; a slow test measures both).

    Args:
        model: What will be trained.
        device: Where.
        precision: Of the products in its forward pass.
    """
    if device.type == "cpu" and precision == "bf16":
        module: Any
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # as timm.layers.set_fused_attn does for models that are yet to be made


UNITS = {"avx512_bf16": "bf16", "avx512_vnni": "VNNI", "avx_vnni": "VNNI", "amx_bf16": "AMX", "sve": "SVE"}
"""What Linux calls units that decide how fast matrix products are, and what people call them."""


def processor() -> str:
    """Names the processor and its instruction set: two machines of one name may have different ones."""
    name, flags = platform.processor() or platform.machine(), set[str]()
    info = Path("/proc/cpuinfo")
    if info.exists():
        lines = [line.partition(":") for line in info.read_text().splitlines()]
        fields = {key.strip(): value.strip() for key, _, value in reversed(lines)}
        name = fields.get("model name", name)
        flags = set(fields.get("flags", fields.get("Features", "")).split())
    units = dict.fromkeys(unit for flag, unit in UNITS.items() if flag in flags)
    return f"{name} ({', '.join([torch.backends.cpu.get_cpu_capability(), *units])})"


def environment() -> dict[str, Any]:
    """Records what a number depends on besides the recipe: versions, processor, threads."""
    import timm
    import torchvision

    from . import __version__

    return {
        "supertokenvit": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
        "system": platform.platform(),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
    }
