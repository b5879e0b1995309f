"""From a photograph to what the network sees: a square of pixels, the box that it shows, and its views."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from timm.data import create_transform
from timm.data.transforms import str_to_interp_mode, str_to_pil_interp
from torch import Tensor
from torchvision.transforms.v2 import functional as V

FINER = 3  # from here on resizing is indistinguishable from that of the whole image (Pillow on `reducing_gap`)
LONG = 8  # times that an image is longer than it is wide, from which on only what is shown of it is resized
VIEWS = {"none": 1, "flip": 2, "shift": 6}
LONGEST = 4  # times that the longer side of an image that keeps its shape may be the size: more would cost too much
WASTE = 0.25  # padding that a batch of images of different shapes may have, as a fraction of their own pixels


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels of a photograph, from its left and upper edge; it may reach beyond the photograph.

    Args:
        left: Of the rectangle's left edge.
        top: Of its upper edge.
        right: Of its right edge.
        bottom: Of its lower edge.
    """

    left: float
    top: float
    right: float
    bottom: float


class Preprocess:
    """Turns an image into the square of pixels that the network sees: timm's evaluation transform, kept as uint8.

    With the crop_mode "keep", which timm does not know, the image keeps its shape and nothing is cut off: its shorter
    side becomes what it is before a centre crop, so that things are as large as a model that was trained on centre
    crops knows them. An image more than LONGEST times as long as wide gets smaller as a whole.

    Args:
        config: A timm data config: input_size, interpolation, crop_pct, crop_mode, mean.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        names = ("input_size", "interpolation", "crop_pct", "crop_mode", "mean")  # the mean is the colour of a border
        self.mode = config["crop_mode"]
        timms = {name: config[name] for name in names} | ({"crop_mode": "center"} if self.mode == "keep" else {})
        self.transform = create_transform(is_training=False, normalize=False, **timms)
        self.interpolation = str_to_interp_mode(config["interpolation"])
        self.filter = Image.Resampling(str_to_pil_interp(config["interpolation"]))
        self.side: tuple[int, int] = tuple(config["input_size"][-2:])  # height and width
        self.scaled = [math.floor(side / config["crop_pct"]) for side in self.side]

    def __call__(self, image: Image.Image) -> Tensor:
        """Turns an RGB image of any size into uint8 [3, S, S], or [3, h, w] if it keeps its shape."""
        if self.mode == "keep":
            shape = self._resized(image.height, image.width)
            return V.pil_to_tensor(V.resize(image, list(shape), self.interpolation))
        if max(image.size) > LONG * min(image.size):
            return self._of_long(image)
        return self.transform(image)

    def _of_long(self, image: Image.Image) -> Tensor:
        """Resizes a very long image without making it gigabytes large, or less than a pixel wide."""
        new_height, new_width = self._resized(image.height, image.width)
        if self.mode == "border" and min(new_height, new_width) < 1:
            image = image.resize((max(1, new_width), max(1, new_height)))
        inside = new_height >= self.side[0] and new_width >= self.side[1]
        if self.mode in ("border", "squash") or not inside:
            return self.transform(image)
        box = self.box(image.size)  # Pillow looks at the pixels around it, too
        size, part = (self.side[1], self.side[0]), (box.left, box.top, box.right, box.bottom)
        return V.pil_to_tensor(image.resize(size, self.filter, box=part))

    @property
    def enough(self) -> int:
        """Pixels of a JPEG's shorter side to which it may be decoded: finer detail is averaged away by the resizing."""
        return FINER * max(self.scaled)

    def box(self, size: tuple[int, int]) -> Box:
        """Returns the box of an image that the square shows.

        Args:
            size: Width and height of the image, upright, in pixels.
        """
        width, height = size
        if self.mode == "keep":
            return Box(0, 0, width, height)
        new_height, new_width = self._resized(height, width)
        top, left = _centred(new_height, self.side[0]), _centred(new_width, self.side[1])
        x, y = width / new_width, height / new_height
        return Box(left * x, top * y, (left + self.side[1]) * x, (top + self.side[0]) * y)

    def _resized(self, height: int, width: int) -> tuple[int, int]:
        """Height and width after timm's resizing, which is by the shorter side, by the longer one ("border"), or of
        each side by itself ("squash"); or, with "keep", after ours."""
        if self.mode == "keep":
            ratio = max(min(height, width) / max(self.scaled), max(height, width) / (LONGEST * max(self.scaled)))
            return max(1, round(height / ratio)), max(1, round(width / ratio))
        if self.mode == "squash":
            return self.scaled[0], self.scaled[1]
        if self.mode != "border" and self.scaled[0] == self.scaled[1]:  # torchvision's, which rounds down
            side, shorter = self.scaled[0], min(height, width)
            return int(side * height / shorter), int(side * width / shorter)
        ratios = height / self.scaled[0], width / self.scaled[1]
        ratio = max(ratios) if self.mode == "border" else min(ratios)
        return round(height / ratio), round(width / ratio)


class Whole:
    """Leaves an image as it is, for graphs that resize it themselves.

    Args:
        enough: Pixels of a JPEG's shorter side to which it may be decoded.
    """

    def __init__(self, enough: int) -> None:
        self.enough = enough

    def __call__(self, image: Image.Image) -> Tensor:
        """Turns an RGB image into uint8 [3, H, W]."""
        return V.pil_to_tensor(image)


def _centred(length: int, wanted: int) -> int:
    """First pixel of the middle `wanted` pixels of `length`; negative if there are fewer and a border is added."""
    return -((wanted - length) // 2) if wanted > length else int(round((length - wanted) / 2))


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Turns uint8 [N, 3, H, W] into float32 with mean and standard deviation taken out, in channels-last memory."""
    images = images.contiguous(memory_format=torch.channels_last).float().div_(255)
    return V.normalize(images, list(mean), list(std), inplace=True)


def together(images: Sequence[Tensor]) -> "Tensor | list[Tensor]":
    """Makes one tensor of images [3, h, w] if they are of one shape."""
    return torch.stack(list(images)) if len({image.shape for image in images}) == 1 else list(images)


def padded(images: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Pads images [3, h, w] on the right and at the bottom; returns the batch [N, 3, H, W] and their sizes [N, 2]."""
    sizes = torch.tensor([image.shape[-2:] for image in images])
    H, W = sizes.amax(0).tolist()
    batch = [F.pad(image, (0, W - image.shape[-1], 0, H - image.shape[-2])) for image in images]
    return torch.stack(batch).contiguous(memory_format=torch.channels_last), sizes


def alike(shapes: Sequence[tuple[int, int]], waste: float) -> list[list[int]]:
    """Groups images of similar shapes, so that padding a group to one size adds little.

    Args:
        shapes: Height and width of each.
        waste: Padding that a group may have, as a fraction of its images' own pixels; with 0 its shapes are equal.

    Returns:
        The places of the images of each group.
    """
    groups: list[list[int]] = []
    for place in sorted(range(len(shapes)), key=lambda place: shapes[place]):
        grown = [shapes[other] for other in (*(groups[-1] if groups else ()), place)]
        area = len(grown) * max(h for h, _ in grown) * max(w for _, w in grown)
        if groups and area <= (1 + waste) * sum(h * w for h, w in grown):
            groups[-1].append(place)
        else:
            groups.append([place])
    return groups


def views(images: Tensor, tta: str) -> list[tuple[float, Tensor]]:
    """Makes the views of images [N, 3, H, W] that a network is to look at, with their weights in the answer.

    The set is that of Keller Jordan's airbench (arXiv 2404.00498, section 3.5).

    Args:
        images: Normalised.
        tta: "none", "flip" (mirror images too) or "shift" (also moved by a 32nd of the shorter side, to two corners).
    """
    if tta == "none":
        return [(1.0, images)]
    moved = [(1.0, images)]
    if tta == "shift":
        shorter = min(images.shape[-2:])
        by = max(1, shorter // 32)
        around = F.pad(images, [by] * 4, mode="reflect" if shorter > by else "replicate")  # a line mirrors nothing
        moved = [(0.5, images), (0.25, around[..., 2 * by :, 2 * by :]), (0.25, around[..., : -2 * by, : -2 * by])]
    return [(weight / 2, view) for weight, image in moved for view in (image, image.flip(3))]
