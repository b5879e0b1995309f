"""Moves images and their boxes together: random parts for training, and the way back to a photograph's pixels."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from ..preprocessing import Box
from .boxes import Boxes

SMALLEST = 2.0  # pixels of a side below which a box that was cut is dropped, and
VISIBLE = 0.1  # the share of its area: both are what ultralytics takes


@dataclass(frozen=True)
class BoxCrop:
    """Random part of an image with its boxes, on a canvas whose free parts have the colour of the border.

    The part has the shape of the canvas and may reach beyond the image, so that objects become larger and smaller.

    Args:
        kind: "none" (the whole image in the middle), "shift" (moved by up to an eighth) or "resized".
        size: Height and width of the canvas.
        scale: Smallest share of the canvas's area that a "resized" part takes; the largest is its reciprocal.
        fill: Colour of the border, 0 to 255.
    """

    kind: str
    size: tuple[int, int]
    scale: float
    fill: tuple[int, int, int]

    def __call__(self, image: Tensor, target: Boxes, rng: np.random.Generator, flip: bool) -> tuple[Tensor, Boxes]:
        """uint8 [3, any, any] with its boxes -> uint8 [3, H, W] with the boxes that are seen there."""
        part = self.part(image.shape[1], image.shape[2], rng)
        canvas, boxes = self.cut(image, target.boxes, part)
        if flip:
            canvas = canvas.flip(2)
            boxes = np.stack([self.size[1] - boxes[:, 2], boxes[:, 1], self.size[1] - boxes[:, 0], boxes[:, 3]], 1)
        boxes, kept = seen(boxes, self.size)
        return canvas, Boxes(boxes, target.labels[kept], target.crowd[kept])

    def part(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """Draws the part of an image that is seen."""
        fit = max(height / self.size[0], width / self.size[1])  # pixels of the image in one of the canvas
        if self.kind == "resized":
            fit *= float(np.exp(rng.uniform(np.log(self.scale), -np.log(self.scale)) / 2))
        h, w = fit * self.size[0], fit * self.size[1]
        if self.kind == "resized":
            top, left = (_between(0.0, free, rng) for free in (height - h, width - w))
        else:
            by = 1 / 8 if self.kind == "shift" else 0.0
            top, left = (((n - m) / 2 + _between(-by * m, by * m, rng)) for n, m in ((height, h), (width, w)))
        return Box(left, top, left + w, top + h)

    def cut(self, image: Tensor, boxes: np.ndarray, part: Box) -> tuple[Tensor, np.ndarray]:
        """Puts a part of an image on the canvas, and its boxes likewise."""
        H, W = self.size
        y, x = H / (part.bottom - part.top), W / (part.right - part.left)
        # whole pixels of the image, and where they lie on the canvas
        top, left = max(0, round(part.top)), max(0, round(part.left))
        bottom = max(top + 1, min(image.shape[1], round(part.bottom)))
        right = max(left + 1, min(image.shape[2], round(part.right)))
        to_top, to_left = _inside((top - part.top) * y, H), _inside((left - part.left) * x, W)
        height = max(1, min(H - to_top, round((bottom - top) * y)))
        width = max(1, min(W - to_left, round((right - left) * x)))
        canvas = torch.tensor(self.fill, dtype=torch.uint8)[:, None, None].repeat(1, H, W)
        small = V.resize(image[:, top:bottom, left:right], [height, width], antialias=True)
        canvas[:, to_top : to_top + height, to_left : to_left + width] = small
        factor = np.array([width / (right - left), height / (bottom - top)] * 2, dtype=np.float32)
        return canvas, (boxes - np.array([left, top] * 2)) * factor + np.array([to_left, to_top] * 2)


def _between(low: float, high: float, rng: np.random.Generator) -> float:
    """A random number between two, whichever is the larger."""
    return float(rng.uniform(min(low, high), max(low, high)))


def _inside(place: float, length: int) -> int:
    """The nearest pixel of a length."""
    return min(length - 1, max(0, round(place)))


def seen(boxes: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Clips boxes [n, 4] to a canvas, and drops those of which next to nothing is left.

    Args:
        boxes: In pixels of the canvas.
        size: Its height and width.

    Returns:
        The boxes that are left, float32 [m, 4], and which they are, bool [n].
    """
    clipped = np.clip(boxes, 0, [size[1], size[0]] * 2).astype(np.float32)
    sides, whole = clipped[:, 2:] - clipped[:, :2], boxes[:, 2:] - boxes[:, :2]
    uncut = np.isclose(sides, whole).all(1)
    kept = (sides > 0).all(1) & (uncut | ((sides >= SMALLEST).all(1) & (sides.prod(1) >= VISIBLE * whole.prod(1))))
    return clipped[kept], kept


def shrunk(target: Boxes, factor: tuple[float, float]) -> Boxes:
    """Returns boxes for an image whose width and height were multiplied."""
    return target._replace(boxes=(target.boxes * np.array(factor * 2)).astype(np.float32))


def to_photograph(boxes: Tensor, shown: Box, canvas: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """Turns boxes [n, 4] on a canvas into pixels of the photograph, clipped to it.

    Args:
        boxes: In pixels of the canvas.
        shown: The part of the photograph that the canvas shows (preprocessing.Preprocess.box).
        canvas: Height and width of the canvas.
        size: Width and height of the photograph.
    """
    x, y = (shown.right - shown.left) / canvas[1], (shown.bottom - shown.top) / canvas[0]
    moved = boxes * boxes.new_tensor([x, y, x, y]) + boxes.new_tensor([shown.left, shown.top] * 2)
    return moved.clamp(min=0).minimum(boxes.new_tensor([*size, *size]))


def to_canvas(boxes: Tensor, shown: Box, canvas: tuple[int, int]) -> Tensor:
    """Turns boxes [n, 4] of a photograph into pixels of the canvas; the reverse of to_photograph, without clipping."""
    x, y = canvas[1] / (shown.right - shown.left), canvas[0] / (shown.bottom - shown.top)
    return (boxes - boxes.new_tensor([shown.left, shown.top] * 2)) * boxes.new_tensor([x, y, x, y])
