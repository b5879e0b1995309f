"""Paints boxes onto photographs."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as V
from torchvision.utils import draw_bounding_boxes

from ..data.boxes import Boxes
from .detector import Found

COLUMNS = 4  # of images in a picture
SIDE = 480  # pixels of an image's longer side there
MOST_NAMES = 24  # classes whose colours are named there; further ones have the same ten colours


@functools.cache
def _font() -> str:
    """A font with the letters of most languages, which comes with matplotlib."""
    from matplotlib import font_manager  # slow to import, as all of matplotlib

    return font_manager.findfont("DejaVu Sans")


def colour_of(label: int) -> str:
    """Returns the colour in which a class is painted."""
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return to_hex(colormaps["tab10"](label % 10))


def paint(image: Tensor, found: Found | Boxes, classes: Sequence[str], *, every_name: bool = True) -> Tensor:
    """Paints boxes with the names of their classes, and their scores if they have any.

    Args:
        image: uint8 [3, H, W].
        found: Boxes in its pixels.
        classes: Names in the order of the class numbers.
        every_name: Also name boxes that are smaller than their names.

    Returns:
        uint8 [3, H, W].
    """
    boxes, labels = torch.as_tensor(found.boxes), [int(k) for k in found.labels]
    if not len(boxes):
        return image
    side = max(image.shape[1:])
    size = max(9, round(side / 45))
    names: list[Any] = [classes[k] for k in labels]
    if isinstance(found, Found):
        names = [f"{name} {100 * score:.0f}" for name, score in zip(names, found.scores.tolist(), strict=True)]
    if not every_name:
        wide = [0.6 * size * len(name) for name in names]
        fits = [w < r - x and 1.5 * size < b - y for (x, y, r, b), w in zip(boxes.tolist(), wide, strict=True)]
        names = [name if fit else "" for name, fit in zip(names, fits, strict=True)]
    colours = [colour_of(k) for k in labels]
    return draw_bounding_boxes(
        image, boxes, names, colours, width=max(1, round(side / 250)), font=_font(), font_size=size,
        label_colors=["white"] * len(names), label_background_colors=colours, fill_labels=True,
    )  # fmt: skip


def paint_photograph(image: Image.Image, found: Found | Boxes, classes: Sequence[str]) -> Image.Image:
    """The same, of a photograph."""
    return V.to_pil_image(paint(V.pil_to_tensor(image), found, classes))


def paint_small(image: Tensor, found: Any, classes: Sequence[str]) -> Tensor:
    """Paints boxes on an image [3, H, W] whose longer side is made SIDE pixels long, for a picture of several."""
    factor = SIDE / max(image.shape[1:])
    size = [max(1, round(side * factor)) for side in image.shape[1:]]
    boxes = found.boxes * np.float32(factor)
    return paint(V.resize(image, size, antialias=True), found._replace(boxes=boxes), classes, every_name=False)


def draw_grid(
    path: Path, images: Sequence[Tensor], titles: Sequence[str], classes: Sequence[str], about: str = ""
) -> None:
    """Draws painted images side by side as a PNG, with the colours of the classes below.

    Args:
        path: Of the picture.
        images: uint8 [3, H, W] each.
        titles: What stands above each.
        classes: Names in the order of the class numbers.
        about: Title of the whole.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    rows = -(-len(images) // COLUMNS)
    shape = max(image.shape[1] / image.shape[2] for image in images)
    figure = Figure(figsize=(3.3 * COLUMNS, (3.3 * shape + 0.25) * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, COLUMNS, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    for axis, image, title in zip(axes, images, titles, strict=False):
        axis.imshow(image.permute(1, 2, 0).numpy())
        axis.set_title(title, fontsize=8, parse_math=False)  # a $ in a name is no formula
    if about:
        figure.suptitle(about, fontsize=9)
    shown = [Patch(color=colour_of(k), label=name) for k, name in enumerate(classes[:MOST_NAMES])]
    for text in figure.legend(
        handles=shown, loc="outside lower center", ncols=8, fontsize=8, frameon=False
    ).get_texts():
        text.set_parse_math(False)
    figure.savefig(path, dpi=110)
