"""How this process keeps memory that it no longer uses."""

import ctypes
import sys

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
