"""Resizing and cropping as Pillow does it, in operations that every engine computes alike.

ONNX has a Resize of its own, but engines do not agree on its antialiasing, and some leave it out in silence. Two products
with matrices of weights are the same everywhere.
"""

import math
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..preprocessing import Preprocess


class ExportError(UserError):
    """A model that cannot be exported."""


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
        x = rounded(x @ across.T)  # [B, 3, H, S]: Pillow goes across first, and rounds in between
        x = rounded(down @ x)
        inside = inside_height[:, None] & inside_width[None]
        return torch.where(inside, x, self.colour)

    def resized(self, height: Tensor, width: Tensor) -> tuple[Tensor, Tensor]:
        """Height and width after resizing, before the crop, as whole numbers."""
        rows, columns = (torch.scalar_tensor(length, dtype=torch.int64) for length in self.scaled)
        if self.mode == "squash":
            return rows, columns
        if self.mode == "center" and self.scaled[0] == self.scaled[1]:  # torchvision's, which rounds down
            shorter = torch.minimum(height, width)
            return tuple(torch.div(rows * length, shorter, rounding_mode="trunc") for length in (height, width))  # type: ignore[return-value]
        ratios = height.double() / rows, width.double() / columns
        ratio = torch.maximum(*ratios) if self.mode == "border" else torch.minimum(*ratios)
        return tuple(torch.round(length / ratio).long().clamp(min=1) for length in (height, width))  # type: ignore[return-value]

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
        # as Python's round(), to the even one of two: int(round((new - wanted) / 2))
        first = torch.where(new >= wanted, torch.round((new - wanted) / 2), -torch.floor((wanted - new) / 2.0))
        places = torch.arange(wanted) + first
        scale = length.float() / new.float()
        centres = (places.clamp(min=0).minimum((new - 1).float()) + 0.5) * scale
        around = torch.arange(pixels) + 0.5
        shares = self.filter((around[None] - centres[:, None]) / scale.clamp(min=1.0))
        inside = (places >= 0) & (places < new.float())
        return shares / shares.sum(1, keepdim=True), inside


def rounded(x: Tensor) -> Tensor:
    """Rounds to whole numbers from 0 to 255, halves up, as Pillow does."""
    return torch.floor(x + 0.5).clamp(0, 255)
