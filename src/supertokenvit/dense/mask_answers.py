"""Answers of segmentation: masks of photographs, rows of an evaluation and the picture of the worst."""

import csv
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from ..data.decode import printable
from ..run_folder import put_in_place
from .masks import colours, overlay, palette_image

WORST = 8  # images in the picture of the worst answers


@dataclass
class MaskPrediction:
    """The answer for one image: a class for each pixel, or what is wrong with it."""

    file: str
    """Path of the image, or "image N" for one that came without a path (N counts from 0)."""
    mask: np.ndarray | None
    """Class numbers in the photograph's own size, uint8 [H, W]; None if there is no answer."""
    shares: dict[str, float] = field(default_factory=dict)
    """Fraction of the pixels of each class that is seen, the largest first."""
    classes: list[str] = field(default_factory=list)
    """Names in the order of the class numbers."""
    error: str | None = None
    """Why there is no answer."""

    def line(self, width: int) -> str:
        """Writes it as one line: file and the share of each class."""
        shares = ", ".join(f"{name} {100 * share:.1f} %" for name, share in self.shares.items())
        return f"{self.file:<{width}}  {shares}"

    def as_dict(self) -> dict[str, Any]:
        """Returns it for JSON, without the mask."""
        size = None if self.mask is None else list(self.mask.shape[::-1])
        return {"file": self.file, "size": size, "shares": self.shares, "error": self.error}

    def pictures(self, photograph: Image.Image) -> dict[str, Image.Image]:
        """Returns the mask as a palette picture whose values are class numbers, and it painted over the photograph."""
        if self.mask is None:
            return {}
        painted = overlay(np.asarray(photograph), self.mask, len(self.classes))
        return {"": palette_image(self.mask, len(self.classes)), "-overlay": Image.fromarray(painted)}


def of_mask(name: str, answer: Tensor, classes: list[str]) -> MaskPrediction:
    """Makes the answer of a mask [H, W]."""
    counts = answer.flatten().bincount(minlength=len(classes)).tolist()
    order = sorted((k for k in range(len(classes)) if counts[k]), key=lambda k: -counts[k])
    shares = {classes[k]: counts[k] / answer.numel() for k in order}
    return MaskPrediction(name, answer.numpy().astype(np.uint8), shares, classes)


def write_rows(path: Path, rows: Sequence[tuple[str, float, float, float]]) -> None:
    """Writes answers as CSV: file, mean IoU over the classes that are seen, pixel accuracy, mean loss of a pixel."""
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "mean_iou", "pixel_accuracy", "loss"])
        writer.writerows([name, *(f"{value:.6g}" for value in values)] for name, *values in rows)
    put_in_place(temporary, path)


def draw_worst(path: Path, worst: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray, str]], classes: list[str]) -> None:
    """Draws photographs, true masks and answers side by side, with the colours of the classes.

    Args:
        path: Of the picture.
        worst: For each image the photograph [H, W, 3], the true and the answered mask [H, W], and a title.
        classes: Names in the order of the class numbers.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    figure = Figure(figsize=(10, 2.6 * len(worst) + 0.6), layout="constrained")
    axes = figure.subplots(len(worst), 3, squeeze=False)
    for row, (photograph, true, said, title) in zip(axes, worst, strict=True):
        shown = (photograph, *(overlay(photograph, mask, len(classes), 0.75) for mask in (true, said)))
        for axis, pixels, name in zip(row, shown, (title, "truth", "answer"), strict=True):
            axis.imshow(pixels)
            axis.set_title(name, fontsize=8, parse_math=False)
            axis.axis("off")
    table = colours(len(classes)) / 255
    seen = np.unique([mask for _, true, said, _ in worst for some in (true, said) for mask in np.unique(some)])
    patches = [Patch(color=table[k], label=classes[k]) for k in seen if k < len(classes)]
    figure.legend(handles=patches, loc="outside lower center", ncols=min(6, len(patches)), fontsize=8)
    figure.savefig(path, dpi=110)


def name_of(source: Any, index: int) -> str:
    """Name of an image, to show."""
    return printable(source.name(index))
