"""Names what is wrong with the boxes of a data set (`supertokenvit check-data`)."""

from collections import Counter

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .boxes import Boxes, box_files
from .listing import counted
from .sources import Source

BEYOND = 1.0  # pixels by which a box may reach beyond its image: Pascal VOC counts them from 1


def named_faults(source: Source, left_out: list[str]) -> list[str]:
    """Returns what is left out, with a line for everything that annotations name and training does not use.

    Args:
        source: Images with boxes.
        left_out: Lines that only count such things, and others.
    """
    faults = box_files(source).faults
    summed = {counted(kind, names) for kind, names in faults.items()}
    others = [f"left out: {line}" for line in left_out if line not in summed]
    return [f"left out, {kind}: {name}" for kind, names in faults.items() for name in names] + others


def odd_boxes(source: Source, sizes: list[tuple[int, int] | None]) -> list[str]:
    """Returns a line for each box that reaches beyond its image, and for each that is there twice.

    Args:
        source: The images.
        sizes: Width and height of each image; None if it cannot be decoded.
    """
    lines = []
    for i, size in enumerate(sizes):
        target = source.target(i)
        if size is not None:
            edges = np.array(size * 2, dtype=np.float32)
            beyond = ((target.boxes < -BEYOND) | (target.boxes > edges + BEYOND)).any(1)
            shown = f"{size[0]} x {size[1]} pixels"
            lines += [f"{text} reaches beyond the image ({shown})" for text in _named(source, i, target, beyond)]
        _, first, count = np.unique(
            np.column_stack([target.labels, target.boxes]), axis=0, return_index=True, return_counts=True
        )
        doubled = np.isin(np.arange(len(target.labels)), first[count > 1])
        lines += [f"{text} is there more than once" for text in _named(source, i, target, doubled)]
    return lines


def _named(source: Source, i: int, target: Boxes, which: np.ndarray) -> list[str]:
    """Names some boxes of an image."""
    return [
        f"{source.name(i)}: {source.classes[target.labels[b]]} ({', '.join(f'{edge:g}' for edge in target.boxes[b])})"
        for b in np.flatnonzero(which)
    ]


def print_boxes(sources: dict[str, Source], console: Console) -> None:
    """Prints how many boxes of each class there are."""
    table = Table("class", *sources, title="boxes")
    labels = {
        name: Counter(int(k) for i in range(len(source)) for k in source.target(i).labels)
        for name, source in sources.items()
    }
    for k, name in enumerate(next(iter(sources.values())).classes):
        table.add_row(escape(name), *(f"{labels[split][k]:,}" for split in sources))
    table.add_row("all", *(f"{labels[split].total():,}" for split in sources), style="bold")
    console.print(table)
