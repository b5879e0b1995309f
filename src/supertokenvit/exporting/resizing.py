"""Resizing and cropping as Pillow does it, in operations that every engine computes alike.

ONNX has a Resize of its own, but engines do not agree on its antialiasing, and some leave it out in silence. Two
products with matrices of weights are the same everywhere.
"""

import functools
import math
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ..preprocessing import Preprocess
from .options import ExportError


def triangle(x: Tensor) -> Tensor:
    """Pillow's BILINEAR filter, which is 0 from 1 on."""
    return (1 - x.abs()).clamp(min=0)


def cubic(x: Tensor) -> Tensor:
    """Pillow's BICUBIC filter (Keys 1981 with a = -0.5), which is 0 from 2 on."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def lanczos(x: Tensor) -> Tensor:
    """Pillow's LANCZOS filter, which is 0 from 3 on."""
    near = torch.where(x == 0, torch.ones_like(x), x) * math.pi
    value = torch.sin(near) / near * torch.sin(near / 3) / (near / 3)
    return torch.where(x == 0, torch.ones_like(x), torch.where(x.abs() < 3, value, torch.zeros_like(x)))


FILTERS = {"bilinear": triangle, "bicubic": cubic, "lanczos": lanczos}


class PhotographResize(nn.Module):
    """Gives photographs of any size the size that a network takes: the same pixels as `Preprocess` of preprocessing.

    Args:
        config: A timm data config: input_size, interpolation, crop_pct, crop_mode, mean.

    Raises:
        ExportError: It resizes in a way that is not built here.
    """

    colour: Tensor

    def __init__(self, config: dict[str, Any]) -> None:
        super().__init__()
        preprocess = Preprocess(config)
        self.mode, self.side, self.scaled = preprocess.mode, preprocess.side, preprocess.scaled
        if config["interpolation"] not in FILTERS:
            raise ExportError(f"interpolation {config['interpolation']}: only {', '.join(FILTERS)} can be exported")
        if self.mode not in ("center", "squash", "border"):
            raise ExportError(f"resize={self.mode}: only center, squash and border can be exported")
        self.filter = FILTERS[config["interpolation"]]
        colour = [round(255 * value) if self.mode == "border" else 0 for value in config["mean"]]
        self.register_buffer("colour", torch.tensor(colour, dtype=torch.float32).view(1, 3, 1, 1), persistent=False)

    def forward(self, photographs: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] -> whole numbers from 0 to 255 as float32 [B, 3, S, S]"""
        x = photographs.permute(0, 3, 1, 2).float()
        height, width = (torch.scalar_tensor(length, dtype=torch.int64) for length in x.shape[2:])
        new_height, new_width = self.resized(height, width)
        across, inside_width = self.weights(width, new_width, x.shape[3], self.side[1])
        down, inside_height = self.weights(height, new_height, x.shape[2], self.side[0])
        resized = rounded(down @ rounded(x @ across.T))  # Pillow goes across first, and rounds in between
        if pillow_may_go_down_first():
            far_down = (new_height < height) & (height - new_height > 2 * (width - new_width))
            resized = torch.where(far_down, rounded(rounded(down @ x) @ across.T), resized)
        inside = inside_height[:, None] & inside_width[None]
        return torch.where(inside, resized, self.colour)

    def box(self, photographs: Tensor) -> Tensor:
        """Finds the box of uint8 [B, H, W, 3] that is seen: left, upper, right and lower edge [4], as fractions."""
        height, width = (torch.scalar_tensor(length, dtype=torch.int64) for length in photographs.shape[1:3])
        rows, columns = self.resized(height, width)
        top, left = first_of(rows, self.side[0]), first_of(columns, self.side[1])
        edges = [left / columns, top / rows, (left + self.side[1]) / columns, (top + self.side[0]) / rows]
        return torch.stack([edge.float() for edge in edges])

    def resized(self, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """Height and width after resizing, before the crop, as whole numbers."""
        rows, columns = (torch.scalar_tensor(length, dtype=torch.int64) for length in self.scaled)
        if self.mode == "squash":
            return rows, columns
        if self.mode == "center" and self.scaled[0] == self.scaled[1]:  # torchvision's, which rounds down
            shorter = torch.minimum(height, width)
            return floor_of(rows * height, shorter), floor_of(rows * width, shorter)
        tall = height * columns > width * rows
        by_height = tall if self.mode == "border" else ~tall
        new_height = torch.where(by_height, rows, nearest_of(columns * height, width).clamp(min=1))
        return new_height, torch.where(by_height, nearest_of(rows * width, height).clamp(min=1), columns)

    def weights(self, length: Tensor, new: Tensor, pixels: int, wanted: int) -> tuple[Tensor, Tensor]:
        """The share that each pixel of a line has in each pixel of the crop.

        Args:
            length: Pixels of the line, as a tensor.
            new: Pixels of the line after resizing.
            pixels: Of the line.
            wanted: Pixels of the crop.

        Returns:
            Weights [wanted, pixels], and which pixels of the crop lie on the resized line [wanted].
        """
        places = torch.arange(wanted) + first_of(new, wanted)
        scale = length.float() / new.float()
        centres = (places.clamp(min=0).minimum((new - 1).float()) + 0.5) * scale
        around = torch.arange(pixels) + 0.5
        shares = self.filter((around[None] - centres[:, None]) / scale.clamp(min=1.0))
        inside = (places >= 0) & (places < new.float())
        return shares / shares.sum(1, keepdim=True), inside


def first_of(new: Tensor, wanted: int) -> Tensor:
    """First pixel of the middle `wanted` pixels of `new`; negative if there are fewer and a border is added."""
    # as Python's round(), to the even one of two: int(round((new - wanted) / 2))
    return torch.where(new >= wanted, torch.round((new - wanted) / 2), -torch.floor((wanted - new) / 2.0))


def floor_of(whole: Tensor, by: Tensor) -> Tensor:
    """Divides whole numbers from 0 on and rounds down, exactly: OpenVINO takes 10 / 5 for 1.9999999, which is 1."""
    found = torch.div(whole, by, rounding_mode="trunc")
    rest = whole - found * by
    return found + (rest >= by).long() - (rest < 0).long()


def nearest_of(whole: Tensor, by: Tensor) -> Tensor:
    """Divides whole numbers and rounds to the nearest, of two to the even one, as Python's round()."""
    above = floor_of(2 * whole + by, 2 * by)
    between = above * 2 * by == 2 * whole + by
    return above - (between & (above % 2 == 1)).long()


@functools.cache
def pillow_may_go_down_first() -> bool:
    """Says whether this Pillow goes down before it goes across where the height shrinks by far more than the width.

    Version 13 began to: by more than twice as many pixels. What it rounds in between differs by the order.
    """
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 8), dtype=np.uint8))
    down_first = noise.resize((8, 4), Image.Resampling.BICUBIC).resize((16, 4), Image.Resampling.BICUBIC)
    return noise.resize((16, 4), Image.Resampling.BICUBIC).tobytes() == down_first.tobytes()


def rounded(x: Tensor) -> Tensor:
    """Rounds to whole numbers from 0 to 255, halves up, as Pillow does."""
    return torch.floor(x + 0.5).clamp(0, 255)
