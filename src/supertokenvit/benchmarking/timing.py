"""This module times calls in turns, matrix products alone among them, and measures peak memory separately."""

import gc
import math
import multiprocessing
import sys
import time
from collections.abc import Callable, Hashable, Iterable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor

from ..machine import keep_freed_memory, wait_for
from ..products import as_convolution, faster, fits
from .calls import Job, make_call
from .cost import Product, multiply, operands
from .options import Contestant

Key = TypeVar("Key", bound=Hashable)
MOST = 1 << 25  # numbers that the left operand or the result of products alone may hold: attention weights are many


def one_line(error: BaseException) -> str:
    """Shortens an error to one line that fits in a table."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__


def seconds_of(call: Callable[[], Any], times: int, wait: Callable[[], None]) -> float:
    """Returns the seconds of one call, as the mean of several in a row."""
    start = time.perf_counter()
    for _ in range(times):
        call()
    wait()
    return (time.perf_counter() - start) / times


def take_turns(
    calls: dict[Key, Callable[[], Any]],
    *,
    rounds: int,
    seconds: float,
    wait: Callable[[], None] = lambda: None,
    advance: Callable[[], None] = lambda: None,
) -> tuple[dict[Key, list[float]], dict[Key, str]]:
    """Times calls round by round, so that whatever else the machine does hits all of them alike.

    Every second round goes backwards. A call that fails leaves; the others go on.

    Args:
        calls: By a key of their own.
        rounds: Turns of each.
        seconds: Minimum length of a turn.
        wait: Returns when the work of a call is done.
        advance: Called after each turn.

    Returns:
        Seconds of one call in each round, for those that did not fail; and the errors of those that did.
    """
    times: dict[Key, list[float]] = {key: [] for key in calls}
    errors: dict[Key, str] = {}
    repeats: dict[Key, int] = {}

    def turn(key: Key, work: Callable[[], None]) -> None:
        try:
            work()
        except Exception as error:  # whatever it is, the others go on
            errors[key] = one_line(error)
            times.pop(key, None)
        advance()

    def warm_up(key: Key) -> None:
        for _ in range(2):
            calls[key]()
        wait()
        repeats[key] = max(1, math.ceil(seconds / max(seconds_of(calls[key], 1, wait), 1e-9)))

    for key in calls:
        turn(key, lambda: warm_up(key))  # noqa: B023 (called at once)
    for number in range(rounds):
        for key in list(times) if number % 2 == 0 else list(times)[::-1]:
            turn(key, lambda: times[key].append(seconds_of(calls[key], repeats[key], wait)))  # noqa: B023
    return times, errors


def product_call(products: Iterable[tuple[Product, int]], dtype: torch.dtype, device: str) -> Callable[[], None]:
    """Makes a call that computes only the matrix products of a model, each shape as often as the model does.

    On a CPU each shape is computed as a Linear layer or as a convolution, whichever is faster there.
    """
    pieces = [(*piece(product), count) for product, count in products]
    kept = [(operands(part, dtype, torch.device(device)), times * count) for part, times, count in pieces]
    calls = [(fastest_product(a, b), count) for (a, b), count in kept]

    def compute() -> None:
        with torch.inference_mode():
            for call, count in calls:
                for _ in range(count):
                    call()

    return compute


def fastest_product(a: Tensor, b: Tensor) -> Callable[[], Tensor]:
    """Makes the fastest call that computes a product; see cost.operands."""
    plain = partial(multiply, a, b)
    if a.ndim > 2 or not fits(a, b):
        return plain
    other = partial(as_convolution, a, b)
    return other if faster(plain, other, rounds=3) > 1 else plain


def piece(product: Product) -> tuple[Product, int]:
    """Returns a product that fits in MOST, and how many of them make up the whole."""
    n, rows, inner, columns = product
    width = max(inner, columns)
    together = max(d for d in range(1, min(n, max(1, MOST // (rows * width))) + 1) if n % d == 0)
    parts = math.ceil(together * rows * width / MOST)
    return (together, math.ceil(rows / parts), inner, columns), n // together * parts


def in_child(function: Callable[..., Any], *args: Any) -> tuple[Any, str | None]:
    """Runs a function in a process of its own, and returns its result or its error, even if that process dies."""
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_answer, args=(sender, function, args))
    child.start()
    sender.close()
    try:
        answer = receiver.recv()
    except EOFError:
        child.join()
        hint = " (out of memory?)" if child.exitcode == -9 else ""
        return None, f"its process ended with code {child.exitcode}{hint}"
    finally:
        receiver.close()
    child.join()
    return answer


def _answer(sender: Any, function: Callable[..., Any], args: tuple) -> None:
    import supertokenvit  # noqa: F401  registers the models

    keep_freed_memory()
    try:
        sender.send((function(*args), None))
    except Exception as error:  # it goes to the parent
        sender.send((None, one_line(error)))


def peak_memory(contestant: Contestant, job: Job) -> int:
    """Measures the peak memory of two calls in bytes, weights included; the process must have done nothing else."""
    torch.set_num_threads(job.threads)
    before = _memory("VmRSS")
    call = make_call(contestant, job)
    for _ in range(2):
        call()
    wait_for(job.device)
    return torch.cuda.max_memory_allocated() if job.device.startswith("cuda") else _memory("VmHWM") - before


def _memory(key: str) -> int:
    gc.collect()
    if sys.platform == "linux":  # getrusage's peak is inherited from the parent there
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(key))
    import resource  # not there on Windows

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
