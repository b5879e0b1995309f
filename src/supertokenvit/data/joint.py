"""Training images that are changed together with what is marked on them: masks or boxes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ..console import watched
from ..machine import cores
from .augmentation import sample_generator
from .decode import BadImage, in_threads
from .loading import Key
from .sources import Source

Sample = tuple[Tensor, Any]  # an image uint8 [3, H, W], and what is marked on it


class JointImages(Dataset):
    """Changed training images with their targets by (epoch, index): a pure function of seed, epoch and index.

    Args:
        source: Of images and targets.
        load: Gives the sample of an index, the same in each epoch; raises BadImage.
        change: Changes a sample at random: (image, target, generator, whether to mirror it) -> image [3, S, S], target.
        join: Makes one thing of the targets of a batch.
        hflip: Probability of a mirror image.
        seed: Of the changes.
        memory: Decode everything now and keep it.
    """

    def __init__(
        self,
        source: Source,
        load: Callable[[int], Sample],
        change: Callable[[Tensor, Any, np.random.Generator, bool], Sample],
        join: Callable[[list], Any],
        *,
        hflip: float,
        seed: int,
        memory: bool,
    ) -> None:
        self.source, self.load, self.change, self.join = source, load, change, join
        self.hflip, self.seed = hflip, seed
        self.images: list[Sample | None] | None = None
        self.damaged: list[BadImage] = []
        if memory:
            found = list(watched(in_threads(self.look, len(source), cores()), "Decoding training images", len(source)))
            self.damaged = [sample for sample in found if isinstance(sample, BadImage)]
            self.images = [None if isinstance(sample, BadImage) else sample for sample in found]

    def look(self, i: int) -> Sample | BadImage:
        """Returns the sample of an index, or what is wrong with it."""
        try:
            return self.load(i)
        except BadImage as error:
            return error

    def __getitems__(self, keys: Sequence[Key]) -> tuple[Tensor, Any, list[int], list[str]]:
        images, targets, kept, damaged = [], [], [], []
        for epoch, i, _ in keys:
            rng = sample_generator(self.seed, epoch, i)
            flip = rng.random() < self.hflip
            sample = (self.images[i] if self.images is not None else None) or self.look(i)
            if isinstance(sample, BadImage):
                damaged.append(str(sample))
                continue
            image, target = self.change(*sample, rng, flip)
            images.append(image)
            targets.append(target)
            kept.append(i)
        stacked = torch.stack(images) if images else torch.empty(0, 3, 1, 1, dtype=torch.uint8)
        return stacked, self.join(targets), kept, damaged

    def __len__(self) -> int:
        return len(self.source)
