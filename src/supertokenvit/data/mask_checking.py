"""Counts what is on masks, and names what is wrong with them (`supertokenvit check-data`)."""

from collections.abc import Sequence

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .masks import IGNORED, check_size
from .sources import Source


def pixels_of(source: Source, i: int, size: tuple[int, int]) -> np.ndarray:
    """Counts the pixels of each class on the mask of an image of that width and height, [K].

    Raises:
        BadImage: The mask cannot be used.
    """
    mask = source.target(i)
    check_size(source, i, size, mask.shape)
    return np.bincount(mask[mask != IGNORED].ravel(), minlength=len(source.classes))


def print_pixels(classes: list[str], pixels: dict[str, Sequence[np.ndarray | None]], console: Console) -> None:
    """Prints which share of the pixels each class has in each split.

    Args:
        classes: Names.
        pixels: For each split what pixels_of counted on each mask; None for those that cannot be used.
        console: Where to.
    """
    table = Table("class", *pixels, title="% of the pixels that count")
    none = np.zeros(len(classes), dtype=int)
    sums = {split: sum((some for some in found if some is not None), start=none) for split, found in pixels.items()}
    for k, name in enumerate(classes):
        table.add_row(escape(name), *(f"{100 * count[k] / max(1, count.sum()):.2f}" for count in sums.values()))
    console.print(table)
