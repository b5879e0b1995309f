"""Matrix products on a CPU: torch computes those of Linear layers and of convolutions with two different libraries.

Which of them is faster differs by a factor of up to two and a half from one processor to another, so it is measured.
"""

import functools
import statistics
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

LEAST_GAIN = 1.1  # of the product alone; a smaller one is lost in what else is done for each layer
ROUNDS = 9
SHAPE = (2048, 256, 512)  # rows, inner, columns: a few milliseconds


def as_convolution(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Computes what torch.nn.functional.linear does, as a convolution of 1x1 pixels: with oneDNN instead of MKL.

    Args:
        x: [..., inner].
        weight: [columns, inner].
        bias: [columns].

    Returns:
        [..., columns], equal up to rounding.
    """
    rows = x.reshape(1, 1, -1, x.shape[-1])  # one row of pixels
    out = F.conv2d(rows.permute(0, 3, 1, 2), weight[:, :, None, None], bias)
    return out.permute(0, 2, 3, 1).reshape(*x.shape[:-1], weight.shape[0])


class LinearAsConvolution(TorchFunctionMode):
    """While this lasts, products of float32 matrices with a Linear layer's weights are computed as convolutions."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Computes one of torch's functions; torch calls this for each."""
        if func is F.linear and fits(*args, **(kwargs or {})):
            return as_convolution(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def fits(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> bool:
    """Says whether a product can be computed as a convolution, and may gain by it."""
    return x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and x.ndim > 1 and x.numel() > 0


def fastest(by_convolution: bool) -> AbstractContextManager:
    """Makes the context in which products are computed as convolutions, or as torch does."""
    return LinearAsConvolution() if by_convolution else nullcontext()


def gain_of_convolution(shape: tuple[int, int, int] = SHAPE) -> float:
    """Measures how much faster a product is as a convolution: the ratio of medians, taking turns."""
    rows, inner, columns = shape
    x, weight = torch.randn(rows, inner), torch.randn(columns, inner)
    return faster(lambda: F.linear(x, weight), lambda: as_convolution(x, weight))


def faster(one: Callable[[], Any], other: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Measures how many times as fast the other of two calls is: the ratio of medians, taking turns."""
    times: tuple[list[float], list[float]] = ([], [])
    with torch.inference_mode():
        for number in range(rounds + 1):
            for call, kept in zip((one, other), times, strict=True):
                began = time.perf_counter()
                call()
                if number:  # the first one is slower
                    kept.append(time.perf_counter() - began)
    return statistics.median(times[0]) / statistics.median(times[1])


@functools.cache
def convolution_pays() -> bool:
    """Says whether products are faster as convolutions on this processor; it is measured once (some milliseconds)."""
    return torch.backends.mkldnn.is_available() and gain_of_convolution() > LEAST_GAIN
