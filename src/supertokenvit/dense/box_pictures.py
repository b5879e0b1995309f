"""Paints boxes onto photographs."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from matplotlib import colormaps, font_manager
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as V
from torchvision.utils import draw_bounding_boxes

from ..data.boxes import Boxes
from .detector import Found

COLUMNS = 4  # of images in a picture


@functools.cache
def _font() -> str:
    """A font with the letters of most languages, which comes with matplotlib."""
    return font_manager.findfont("DejaVu Sans")


def colour_of(label: int) -> str:
    """Returns the colour in which a class is painted."""
    return to_hex(colormaps["tab10"](label % 10))


def paint(image: Tensor, found: Found | Boxes, classes: Sequence[str]) -> Tensor:
    """Paints boxes with the names of their classes, and their scores if they have any.

    Args:
        image: uint8 [3, H, W].
        found: Boxes in its pixels; a crowd is painted without a name.
        classes: Names in the order of the class numbers.

    Returns:
        uint8 [3, H, W].
    """
    boxes, labels = torch.as_tensor(found.boxes), [int(k) for k in found.labels]
    if not len(boxes):
        return image
    side = max(image.shape[1:])
    names = [classes[k] for k in labels]
    if isinstance(found, Found):
        names = [f"{name} {100 * score:.0f}" for name, score in zip(names, found.scores.tolist(), strict=True)]
    colours = [colour_of(k) for k in labels]
    size = max(9, round(side / 45))
    return draw_bounding_boxes(
        image, boxes, names, colours, width=max(1, round(side / 250)), font=_font(), font_size=size,
        label_colors=["white"] * len(names), label_background_colors=colours, fill_labels=True,
    )  # fmt: skip


def paint_photograph(image: Image.Image, found: Found | Boxes, classes: Sequence[str]) -> Image.Image:
    """The same, of a photograph."""
    return V.to_pil_image(paint(V.pil_to_tensor(image), found, classes))


def draw_grid(path: Path, images: Sequence[Tensor], titles: Sequence[str], columns: int = COLUMNS, **text: Any) -> None:
    """Draws images side by side as a PNG.

    Args:
        path: Of the picture.
        images: uint8 [3, H, W] each.
        titles: What stands above each.
        columns: Images side by side.
        **text: Title of the whole, as matplotlib's `suptitle` takes it.
    """
    rows = -(-len(images) // columns)
    shape = max(image.shape[1] / image.shape[2] for image in images)
    figure = Figure(figsize=(3.3 * columns, (3.3 * shape + 0.3) * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axis in axes:
        axis.axis("off")
    for axis, image, title in zip(axes, images, titles, strict=False):
        axis.imshow(image.permute(1, 2, 0).numpy())
        axis.set_title(title, fontsize=8, parse_math=False)  # a $ in a name is no formula
    if text:
        figure.suptitle(**text)
    figure.savefig(path, dpi=110)
