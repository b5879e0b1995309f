"""Moves images and their boxes together."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import str_to_pil_interp
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from ..preprocessing import Box
from .boxes import Boxes
from .sources import Source

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


def scaled(boxes: np.ndarray, old: tuple[int, int], new: tuple[int, int]) -> np.ndarray:
    """Returns boxes [n, 4] of an image for the same image at another size.

    Args:
        boxes: In pixels of the image.
        old: Its width and height.
        new: The width and height that it gets.
    """
    return (boxes * np.array([new[0] / old[0], new[1] / old[1]] * 2)).astype(np.float32)


class Whole:
    """Turns a whole photograph into what a detector sees: its longer side becomes S pixels, its shape stays.

    Both sides are rounded to multiples of `multiple` pixels.

    Args:
        config: A timm data config: input_size, interpolation.
        multiple: In pixels.
    """

    enough = None  # boxes are in the photograph's own pixels, so it is decoded wholly

    def __init__(self, config: dict[str, Any], multiple: int) -> None:
        self.side: int = max(config["input_size"][-2:])
        self.multiple, self.interpolation = multiple, str_to_pil_interp(config["interpolation"])

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of what the network sees of a photograph of that width and height."""
        width, height = (self.multiple * max(1, round(n * self.side / max(size) / self.multiple)) for n in size)
        return width, height

    def __call__(self, image: Image.Image) -> Tensor:
        """Turns an RGB image of any size into uint8 [3, H, W]."""
        return V.pil_to_tensor(image.resize(self.size_of(image.size), self.interpolation))


class KeepBoxes:
    """Loads images with their boxes, the longer side shrunk to `side` pixels if it is longer; without crowds.

    Args:
        source: Of detection.
        side: In pixels.
    """

    def __init__(self, source: Source, side: int) -> None:
        self.source, self.side = source, side

    def __call__(self, i: int) -> tuple[Tensor, Boxes]:
        """Returns uint8 [3, H, W] and its boxes.

        Raises:
            BadImage: The image cannot be used.
        """
        image, target = self.source.image(i), self.source.target(i)
        factor = min(1.0, self.side / max(image.size))
        width, height = (max(1, round(n * factor)) for n in image.size)
        pixels = V.pil_to_tensor(image if factor == 1 else V.resize(image, [height, width], antialias=True))
        boxes = scaled(target.boxes, image.size, (width, height))[~target.crowd]
        return pixels, Boxes(boxes, target.labels[~target.crowd], target.crowd[~target.crowd])
