"""Random changes of training images: of a sample by (seed, epoch, index), of a group by (seed, step, place)."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from timm.data.random_erasing import RandomErasing
from timm.data.transforms import str_to_interp_mode
from torch import Tensor
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as V

from ..preprocessing import normalize

GROUP = 16  # images that share operations and partners, whoever computes them: a compromise of speed and variety


def sample_generator(seed: int, epoch: int, index: int) -> np.random.Generator:
    """The random numbers of one sample in one epoch, whoever draws them."""
    return np.random.Generator(np.random.Philox(key=[seed * 1_000_003 + epoch, index]))


def seed_step(seed: int, step: int, place: int = 0) -> None:
    """Makes everything random from here on a function of seed, step and place (in the batch, or of the process)."""
    value = int(np.random.SeedSequence([seed, step, place]).generate_state(1)[0])
    random.seed(value)
    np.random.seed(value)
    torch.manual_seed(value)


@dataclass(frozen=True)
class Crop:
    """Random crop of an image, or of its mirror image, to `size` x `size` pixels.

    Args:
        kind: "resized"; or "shift" or "none" of a square image, which is resized to `size` before.
        scale: Smallest share of the area of a "resized" crop.
        interpolation: How a square image is resized: a name that timm's preprocessing knows.
    """

    kind: str
    scale: float
    interpolation: str = "bicubic"

    def pad(self, size: int) -> int:
        """Returns the pixels by which a "shift" may move the image."""
        return size // 8 if self.kind == "shift" else 0

    def one(self, image: Tensor, size: int, rng: np.random.Generator, flip: bool) -> Tensor:
        """uint8 [3, any, any] (a square unless "resized") -> uint8 [3, size, size]"""
        if self.kind == "resized":
            top, left, height, width = self.box(image.shape[1], image.shape[2], rng)
            image = V.resized_crop(image, top, left, height, width, [size, size], antialias=True)
            return image.flip(2) if flip else image
        return self.batch(image[None], size, [rng], [flip])[0]

    def batch(self, images: Tensor, size: int, rngs: Sequence[np.random.Generator], flips: Sequence[bool]) -> Tensor:
        """uint8 [N, 3, any, any] -> uint8 [N, 3, size, size], equal to `one` on each, in one go unless "resized"."""
        if self.kind == "resized":
            each = zip(images, rngs, flips, strict=True)
            return torch.stack([self.one(image, size, rng, flip) for image, rng, flip in each])
        if images.shape[2:] != (size, size):
            images = V.resize(images, [size, size], str_to_interp_mode(self.interpolation), antialias=True)
        pad = self.pad(size)
        offset = torch.as_tensor(np.array([rng.integers(0, 2 * pad + 1, 2) if pad else (0, 0) for rng in rngs]))
        span = torch.arange(size)
        rows, columns = offset[:, :1] + span, offset[:, 1:] + span
        columns = torch.where(torch.as_tensor(flips)[:, None], columns.flip(1), columns)
        images = F.pad(images, [pad] * 4, mode="reflect") if pad else images
        n = torch.arange(len(images))[:, None, None, None]
        return images[n, torch.arange(3)[None, :, None, None], rows[:, None, :, None], columns[:, None, None, :]]

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Top, left, height, width of a random part with an aspect of 3:4 to 4:3; the centre square if none fits."""
        for _ in range(10):
            area = height * width * rng.uniform(self.scale, 1.0)
            aspect = np.exp(rng.uniform(np.log(3 / 4), np.log(4 / 3)))
            w, h = round(float(np.sqrt(area * aspect))), round(float(np.sqrt(area / aspect)))
            if 0 < w <= width and 0 < h <= height:
                return int(rng.integers(0, height - h + 1)), int(rng.integers(0, width - w + 1)), h, w
        side = min(height, width)
        return (height - side) // 2, (width - side) // 2, side, side


class BatchAugmentation:
    """RandAugment, normalisation, erasing, mixup and cutmix, for GROUP images at a time.

    What happens to a group does not depend on how many processes share the batch, if each takes whole groups.

    Args:
        mean: Of each colour, 0 to 1.
        std: Of each colour.
        num_classes: For mixup and cutmix.
        randaugment: Magnitude of two operations; 0 for none.
        erasing: Probability.
        mixup: Alpha; 0 for none.
        cutmix: Alpha; 0 for none.
    """

    def __init__(
        self,
        mean: Sequence[float],
        std: Sequence[float],
        *,
        num_classes: int,
        randaugment: int = 0,
        erasing: float = 0.0,
        mixup: float = 0.0,
        cutmix: float = 0.0,
    ) -> None:
        self.mean, self.std = mean, std
        self.randaugment = v2.RandAugment(num_ops=2, magnitude=randaugment) if randaugment else None
        self.erasing = RandomErasing(erasing, mode="pixel", device="cpu") if erasing else None
        mixes = [v2.MixUp(alpha=mixup, num_classes=num_classes)] if mixup else []
        mixes += [v2.CutMix(alpha=cutmix, num_classes=num_classes)] if cutmix else []
        self.mix = v2.RandomChoice(mixes) if mixes else None

    def __call__(self, images: Tensor, targets: Tensor, seed: int, step: int, first: int) -> tuple[Tensor, Tensor]:
        """Of a part of a batch.

        Args:
            images: uint8 [N, 3, S, S].
            targets: [N] or [N, K].
            seed: Of the run.
            step: Of the run.
            first: Place of the first image in the batch.

        Returns:
            float32 [N, 3, S, S] in channels-last memory, and targets [N] or [N, K].
        """
        groups = []
        for start in range(0, len(images), GROUP):
            seed_step(seed, step, first + start)
            part = slice(start, start + GROUP)
            groups.append(self.group(images[part], targets[part]))
        mixed, soft = zip(*groups, strict=True)
        return torch.cat(mixed).contiguous(memory_format=torch.channels_last), torch.cat(soft)

    def group(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """The same, of images that share operations and partners."""
        if self.randaugment is not None:
            images = self.randaugment(images)
        images = normalize(images, self.mean, self.std)
        if self.erasing is not None:
            images = self.erasing(images)
        return (images, targets) if self.mix is None else self.mix(images, targets)
