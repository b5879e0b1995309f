"""Decoding of images: that of the runtime package, and threads to do it in."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from supertokenvit_runtime.decode import IMAGE_ENDINGS as IMAGE_ENDINGS
from supertokenvit_runtime.decode import MAX_BYTES as MAX_BYTES
from supertokenvit_runtime.decode import MAX_PIXELS as MAX_PIXELS
from supertokenvit_runtime.decode import BadImage as BadImage
from supertokenvit_runtime.decode import decode as decode
from supertokenvit_runtime.decode import printable as printable
from supertokenvit_runtime.decode import read_file as read_file
from supertokenvit_runtime.decode import to_rgb as to_rgb
from supertokenvit_runtime.decode import too_large as too_large

AT_ONCE = 1000  # tasks handed to threads at a time: a million waiting ones would take gigabytes
T = TypeVar("T")


def in_threads(look: Callable[[int], T], count: int, threads: int) -> Iterator[T]:
    """`look` of each number below `count`, in order; decoding leaves Python's lock, so that threads are of use."""
    with ThreadPoolExecutor(threads) as pool:
        for start in range(0, count, AT_ONCE):
            yield from pool.map(look, range(start, min(start + AT_ONCE, count)))
