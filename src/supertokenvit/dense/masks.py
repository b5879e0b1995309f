"""Moves images and their masks together, and shows masks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data.transforms import str_to_pil_interp
from torch import Tensor
from torchvision.transforms.v2 import functional as V

from ..data.decode import BadImage
from ..data.masks import IGNORED
from ..data.sources import Source
from ..preprocessing import normalize

MULTIPLE = 32  # pixels: the coarsest map of a backbone has one place for so many
NEAREST = V.InterpolationMode.NEAREST_EXACT


class KeepPair:
    """Loads images with their masks, their shorter side shrunk to `side` pixels if it is longer.

    Args:
        source: Of segmentation.
        side: In pixels.
    """

    def __init__(self, source: Source, side: int) -> None:
        self.source, self.side = source, side

    def __call__(self, i: int) -> tuple[Tensor, Tensor]:
        """Returns uint8 [3, H, W] and uint8 [H, W].

        Raises:
            BadImage: Image or mask cannot be used.
        """
        image, mask = self.source.image(i), torch.from_numpy(self.source.target(i))
        check_size(self.source, i, image.size, mask.shape)
        if min(image.size) > self.side:
            image = V.resize(image, [self.side], antialias=True)
            mask = V.resize(mask[None], list(image.size[::-1]), NEAREST)[0]
        return V.pil_to_tensor(image), mask


def check_size(source: Source, i: int, size: tuple[int, int], shape: Sequence[int]) -> None:
    """Refuses a mask of another size than its image.

    Raises:
        BadImage: It has one.
    """
    if size != tuple(shape)[::-1]:
        has = f"{shape[1]} x {shape[0]}"
        raise BadImage(source.name(i), f"{size[0]} x {size[1]} pixels, and its mask has {has}")


@dataclass(frozen=True)
class PairCrop:
    """Random square part of an image and its mask, or of their mirror images, resized to `size` x `size` pixels.

    Args:
        kind: "resized" (a part whose side is that of the image's shorter one or less), "shift" or "none" (a part of the
            shorter side, at a random place or in the middle).
        size: Side of the result.
        scale: Smallest share of the largest square's area that a "resized" part takes.
    """

    kind: str
    size: int
    scale: float

    def __call__(self, image: Tensor, mask: Tensor, rng: np.random.Generator, flip: bool) -> tuple[Tensor, Tensor]:
        """uint8 [3, H, W] and uint8 [H, W] -> uint8 [3, S, S] and int64 [S, S]"""
        height, width = mask.shape
        share = rng.uniform(self.scale, 1.0) if self.kind == "resized" else 1.0
        side = max(1, round(min(height, width) * math.sqrt(share)))
        top, left = (
            int(rng.integers(0, free + 1)) if self.kind != "none" else free // 2
            for free in (height - side, width - side)
        )
        box = (top, left, side, side, [self.size, self.size])
        image = V.resized_crop(image, *box, antialias=True)
        mask = V.resized_crop(mask[None], *box, interpolation=NEAREST)[0].long()
        return (image.flip(2), mask.flip(1)) if flip else (image, mask)


class Normalized:
    """Normalises a batch of images and leaves their targets as they are."""

    def __init__(self, data_config: dict[str, Any]) -> None:
        self.mean, self.std = data_config["mean"], data_config["std"]

    def __call__(self, images: Tensor, targets: Any, seed: int, step: int, first: int) -> tuple[Tensor, Any]:
        """uint8 [N, 3, S, S] -> float32 in channels-last memory; see data.augmentation.BatchAugmentation."""
        return normalize(images, self.mean, self.std).contiguous(memory_format=torch.channels_last), targets


class Fit:
    """Turns a whole photograph into what the network sees: its shorter side becomes S pixels, its shape stays.

    Both sides are rounded to multiples of 32 pixels.

    Args:
        config: A timm data config: input_size, interpolation.
    """

    def __init__(self, config: dict[str, Any]) -> None:
        self.side: int = min(config["input_size"][-2:])
        self.interpolation = str_to_pil_interp(config["interpolation"])

    @property
    def enough(self) -> int | None:
        """All pixels are to be decoded, as answers are in the photograph's own size."""
        return None

    def size_of(self, size: tuple[int, int]) -> tuple[int, int]:
        """Width and height of what the network sees of a photograph of that width and height."""
        width, height = (MULTIPLE * max(1, round(n * self.side / min(size) / MULTIPLE)) for n in size)
        return width, height

    def __call__(self, image: Image.Image) -> Tensor:
        """Turns an RGB image of any size into uint8 [3, H, W]."""
        return V.pil_to_tensor(image.resize(self.size_of(image.size), self.interpolation))


def enlarged(logits: Tensor, size: Sequence[int]) -> Tensor:
    """[K, h, w] -> [K, H, W]"""
    return F.interpolate(logits[None], list(size), mode="bilinear")[0]


def confusion_of(truth: Tensor, answer: Tensor, num_classes: int) -> Tensor:
    """Counts pixels by true class (rows) and answered class (columns), int64 [K, K]; ignored ones are not counted."""
    counted = truth != IGNORED
    pairs = truth[counted].long() * num_classes + answer[counted]
    return pairs.bincount(minlength=num_classes**2).reshape(num_classes, num_classes)


def colours(num_classes: int) -> np.ndarray:
    """Returns colours that are easy to tell apart, uint8 [256, 3]; ignored pixels are white."""
    table = np.full((256, 3), 255, dtype=np.uint8)
    for k in range(num_classes):  # as in Pascal VOC: three bits of the number make one bit of each colour
        colour, rest, bit = [0, 0, 0], k + 1, 7
        while rest:
            for c in range(3):
                colour[c] |= (rest >> c & 1) << bit
            rest, bit = rest >> 3, bit - 1
        table[k] = colour
    return table


def palette_image(mask: np.ndarray, num_classes: int) -> Image.Image:
    """Makes a palette picture whose values are the class numbers, of a mask uint8 [H, W]."""
    image = Image.fromarray(mask)
    image.putpalette(colours(num_classes).tobytes())
    return image


def overlay(image: np.ndarray, mask: np.ndarray, num_classes: int, share: float = 0.5) -> np.ndarray:
    """Paints a mask [H, W] over a photograph uint8 [H, W, 3]; ignored pixels stay as they are."""
    painted = (1 - share) * image + share * colours(num_classes)[mask]
    return np.where((mask == IGNORED)[..., None], image, painted).astype(np.uint8)
