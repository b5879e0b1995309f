"""What C library and torch do slowly on a CPU, done otherwise."""

import ctypes
import sys
from typing import Any

import torch
from torch import nn

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # names and numbers of malloc.h


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


def write_out_attention(model: nn.Module, device: torch.device, dtype: torch.dtype) -> None:
    """Has timm's attention layers multiply matrices instead of calling torch's fused kernel, where that trains faster.

    In bf16 on a CPU its backward pass takes much longer than the products written out (torch 2.14; a slow test
    measures both).

    Args:
        model: What will be trained.
        device: Where.
        dtype: Of the products in its forward pass.
    """
    if device.type == "cpu" and dtype == torch.bfloat16:
        module: Any
        for module in model.modules():
            if hasattr(module, "fused_attn"):
                module.fused_attn = False  # as timm.layers.set_fused_attn does for models that are yet to be made
