"""Sides of images in pixels, as users write several of them."""

from collections.abc import Sequence

from .errors import UsageError


def read_sizes(sizes: Sequence[int] | str) -> tuple[int, ...]:
    """Reads sides of images, as 160,192,224 or [160, 192, 224], and puts them in order.

    Args:
        sizes: In pixels.

    Raises:
        UsageError: They are none.
    """
    given = sizes.strip("[]").split(",") if isinstance(sizes, str) else sizes
    read = [int(size) for size in given if str(size).strip().isdecimal()]
    if not read or len(read) < len(given) or min(read) < 1:
        raise UsageError(f"sizes={sizes}: must be whole numbers of pixels with commas between, as 160,192,224")
    return tuple(sorted(read))
