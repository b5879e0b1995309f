"""Pictures of several images side by side."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

SMALL = 400  # pixels of the longer side of a panel
WIDE, TITLE = 2.6, 0.35  # inches of a panel and of a line of text


def draw_titled(path: Path, images: Tensor, titles: list[str]) -> None:
    """Draws the first images [N, 3, S, S] of an augmented batch with a title each."""
    from matplotlib.figure import Figure

    n = min(len(images), 24)
    rows = -(-n // 8)
    figure = Figure(figsize=(13, 1.95 * rows), layout="constrained")
    axes = figure.subplots(rows, 8, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images[:n], titles[:n], strict=False):
        axis.imshow(visible(image))
        axis.set_title(title, fontsize=9, parse_math=False)  # a $ in a name is no formula
    figure.savefig(path, dpi=110)


def visible(image: Tensor) -> np.ndarray:
    """Turns a normalised image [3, H, W] into one to look at, [H, W, 3], whose darkest value is 0 and brightest 1."""
    low, high = image.amin(), image.amax()
    return ((image - low) / (high - low).clamp(min=1e-6)).permute(1, 2, 0).numpy()


@dataclass
class Panel:
    """A small picture with a title."""

    image: Image.Image
    title: str


def panel(image: Image.Image, title: str) -> Panel:
    """Makes a panel of a photograph of any size."""
    small = image.copy()
    small.thumbnail((SMALL, SMALL))
    return Panel(small, title)


def draw_panels(path: Path, rows: Sequence[Sequence[Panel]], title: str = "") -> None:
    """Draws rows of panels as a PNG.

    Args:
        path: Of the picture.
        rows: They may differ in length.
        title: Of the whole picture.
    """
    from matplotlib.figure import Figure

    columns = max(map(len, rows))
    heights = [WIDE * max(one.image.height / one.image.width for one in row) + TITLE for row in rows]
    figure = Figure(figsize=(WIDE * columns, sum(heights) + TITLE * bool(title)), layout="constrained")
    axes = figure.subplots(len(rows), columns, squeeze=False, gridspec_kw={"height_ratios": heights})
    for axis in axes.flat:
        axis.axis("off")
    for line, panels in zip(axes, rows, strict=True):
        for axis, one in zip(line, panels, strict=False):
            axis.imshow(np.asarray(one.image))
            axis.set_title(one.title, fontsize=8, parse_math=False)  # a $ in a name is no formula
    if title:
        figure.suptitle(title, fontsize=9)
    figure.savefig(path, dpi=110)
