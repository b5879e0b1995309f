"""From a source to batches: decoded once into memory if they fit, else by workers, with the same result."""

import itertools
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as V

from ..console import watched
from ..machine import cores
from ..preprocessing import Preprocess
from .augmentation import Crop, sample_generator
from .decode import BadImage, in_threads
from .sources import Source

LONGEST_TEMPORARY = 70  # letters of the path of the folder for temporary files: a socket in it may have 107
SIZES_STREAM = 2  # keeps the sizes' random numbers apart from those of the epochs' orders
Batch = tuple[Tensor, Tensor, list[int], list[str]]  # images, targets, indices, names of what could not be decoded


class Key(NamedTuple):
    """Names a cropped image: what is random in it is a function of the seed and of these.

    Args:
        epoch: Or, with weights, a number that no other draw has.
        sample: Number of the image in its source.
        size: Side of the batch's images in pixels.
    """

    epoch: int
    sample: int
    size: int


class Keep:
    """A PIL image for random crops: its shorter side shrunk to `side` pixels if it is longer.

    Args:
        side: In pixels.
    """

    def __init__(self, side: int) -> None:
        self.side = side

    def __call__(self, image) -> Tensor:
        """PIL RGB -> uint8 [3, H, W]"""
        if min(image.size) > self.side:
            image = V.resize(image, [self.side], antialias=True)
        return V.pil_to_tensor(image)


class KeepSquare:
    """The square of a PIL image that evaluation shows, for crops of several sizes: shrunk to `side` pixels, if more.

    Args:
        config: As in Preprocess.
        side: In pixels.
    """

    def __init__(self, config: dict[str, Any], side: int) -> None:
        self.config, self.side = config, side
        self.of_side: dict[int, Preprocess] = {}

    def __call__(self, image) -> Tensor:
        """PIL RGB -> uint8 [3, S, S]"""
        longer = max(image.size) if self.config["crop_mode"] != "center" else min(image.size)
        side = max(1, min(int(longer * self.config["crop_pct"]), self.side))
        if side not in self.of_side:
            self.of_side[side] = Preprocess(self.config | {"input_size": (3, side, side)})
        return self.of_side[side](image)


class TrainImages(Dataset):
    """Cropped training images by (epoch, index): a pure function of seed, epoch and index.

    Args:
        source: Of the images.
        prepare: PIL -> uint8 tensor, the same in each epoch.
        crop: Differs by epoch.
        hflip: Probability of a mirror image, or "alternating": one half of the images in this epoch, the other in the
            next (arXiv 2404.00498, section 3.6).
        seed: Of the crops and mirror images.
        memory: Decode everything now and keep it.
    """

    def __init__(
        self,
        source: Source,
        prepare: Preprocess | KeepSquare | Keep,
        crop: Crop,
        *,
        hflip: float | Literal["alternating"],
        seed: int,
        memory: bool,
    ) -> None:
        self.source, self.prepare, self.crop, self.hflip, self.seed = source, prepare, crop, hflip, seed
        # a stream of its own: that of the seed alone is also that of the first epoch's order
        stream = np.random.SeedSequence(seed, spawn_key=(1,))
        self.half = np.random.default_rng(stream).permutation(len(source)) % 2
        self.targets = torch.as_tensor(source.targets)
        self.damaged: list[BadImage] = []
        self.images: list[Tensor | None] | Tensor | None = self.decode_all() if memory else None

    def decode_all(self) -> "list[Tensor | None] | Tensor":
        """All images, as one tensor if they are of one size; None in the place of a damaged one."""

        def look(i: int) -> "Tensor | BadImage":
            try:
                return self.prepare(self.source.image(i))
            except BadImage as error:
                return error

        found = in_threads(look, len(self.source), cores())
        looked = list(watched(found, "Decoding training images", len(self.source)))
        self.damaged = [error for error in looked if isinstance(error, BadImage)]
        images = [None if isinstance(image, BadImage) else image for image in looked]
        whole = [image for image in images if image is not None]
        if len(whole) == len(images) and len({image.shape for image in whole}) == 1:
            return torch.stack(whole)
        return images

    def __getitems__(self, keys: Sequence[Key]) -> Batch:
        rngs = [sample_generator(self.seed, epoch, i) for epoch, i, _ in keys]
        indices, size = [key.sample for key in keys], keys[0].size
        flips = [self.mirrors(key, rng) for key, rng in zip(keys, rngs, strict=True)]
        if isinstance(self.images, Tensor):
            return self.crop.batch(self.images[indices], size, rngs, flips), self.targets[indices], indices, []
        images, kept, damaged = [], [], []
        for i, rng, flip in zip(indices, rngs, flips, strict=True):
            try:
                image = self.images[i] if self.images is not None else None
                if image is None:
                    image = self.prepare(self.source.image(i))
                images.append(self.crop.one(image, size, rng, flip))
                kept.append(i)
            except BadImage as error:
                damaged.append(str(error))
        stacked = torch.stack(images) if images else torch.empty(0, 3, size, size, dtype=torch.uint8)
        return stacked, self.targets[kept], kept, damaged

    def mirrors(self, key: Key, rng: np.random.Generator) -> bool:
        """Whether an image is mirrored in an epoch."""
        if self.hflip == "alternating":
            return bool((key.epoch + self.half[key.sample]) % 2)
        return rng.random() < self.hflip

    def __len__(self) -> int:
        return len(self.source)


def epoch_order(count: int, weights: "np.ndarray | None", seed: int, epoch: int) -> np.ndarray:
    """The samples of an epoch in their order, or drawn with replacement by weight."""
    rng = np.random.default_rng([seed, epoch])
    return rng.permutation(count) if weights is None else rng.choice(count, count, p=weights / weights.sum())


def size_of_step(sizes: Sequence[int], seed: int, step: int) -> int:
    """The side of the images of a step: in every len(sizes) steps each size has its turn, in a random order.

    The first round goes from the largest to the smallest, so that a size that needs too much memory is found at once.
    ultralytics' multi_scale and timm's NaFlex loader draw each batch's size independently instead; there, too,
    evaluation has one size of its own.
    """
    turn, place = divmod(step, len(sizes))
    if turn == 0:
        return sorted(sizes, reverse=True)[place]
    stream = np.random.SeedSequence([seed, turn], spawn_key=(SIZES_STREAM,))
    return int(np.random.default_rng(stream).permutation(np.sort(sizes))[place])


class StepBatches:
    """The endless batches of a run from a step on: lists of keys, without an incomplete last one of an epoch.

    Args:
        count: Samples there are.
        batch_size: Samples per step.
        sizes: Sides of the images in pixels, one of them for each step (size_of_step).
        seed: Of the order.
        first: Step to begin with.
        weights: Of the samples, for drawing with replacement.
        share: What this process takes of each batch.
    """

    def __init__(
        self,
        count: int,
        batch_size: int,
        *,
        sizes: Sequence[int],
        seed: int,
        first: int,
        weights: "np.ndarray | None" = None,
        share: slice = slice(None),
    ) -> None:
        self.count, self.batch_size, self.seed, self.weights = count, batch_size, seed, weights
        self.sizes, self.first, self.share = sizes, first, share
        self.per_epoch = max(1, count // batch_size)

    def __iter__(self) -> Iterator[list[Key]]:
        epoch, order = -1, np.empty(0)
        for step in itertools.count(self.first):
            if step // self.per_epoch != epoch:
                epoch = step // self.per_epoch
                order = epoch_order(self.count, self.weights, self.seed, epoch)
            start = step % self.per_epoch * self.batch_size
            places = range(start, min(start + self.batch_size, self.count))[self.share]
            # a sample that is drawn several times in an epoch is cropped and mirrored anew each time
            once = self.weights is None
            size = size_of_step(self.sizes, self.seed, step)
            yield [Key(epoch if once else epoch * self.count + place, int(order[place]), size) for place in places]


def train_loader(images: TrainImages, batches: StepBatches, workers: int) -> DataLoader:
    """Batches of `images` in the order of `batches`; no workers are needed for what is in memory."""
    workers = usable_workers(workers) if images.images is None else 0
    return DataLoader(
        images,
        batch_sampler=batches,
        num_workers=workers,
        collate_fn=_as_it_is,
        persistent_workers=workers > 0,
        worker_init_fn=_leave_group,
    )


class EvalImages(Dataset):
    """Preprocessed images in order; a damaged one is a BadImage in its place.

    Args:
        source: Of the images.
        preprocess: PIL -> uint8 [3, S, S].
    """

    def __init__(self, source: Source, preprocess: Any) -> None:
        self.source, self.preprocess = source, preprocess

    def __getitem__(self, i: int) -> "Tensor | BadImage":
        try:
            return self.preprocess(self.source.image(i, self.preprocess.enough))
        except BadImage as error:
            return error

    def __len__(self) -> int:
        return len(self.source)


def _as_it_is(batch):
    return batch


def _stacked(batch: list["Tensor | BadImage"]) -> tuple[Tensor, list[tuple], list[int], list[BadImage], int]:
    """All pixels of what is whole, with the shapes, the places, what is not whole, and how many they are.

    Images of several sizes stay apart. Others must not be sent one by one: each takes a file descriptor.
    """
    places = [i for i, image in enumerate(batch) if isinstance(image, Tensor)]
    whole = [image for image in batch if isinstance(image, Tensor)]
    pixels = torch.cat([image.flatten() for image in whole]) if whole else torch.empty(0, dtype=torch.uint8)
    shapes = [tuple(image.shape) for image in whole]
    return pixels, shapes, places, [image for image in batch if isinstance(image, BadImage)], len(batch)


def _unstacked(pixels: Tensor, shapes: Sequence[tuple]) -> "Tensor | list[Tensor]":
    """One tensor of images that are of one shape, or a list of them."""
    parts = pixels.split([math.prod(shape) for shape in shapes])
    if len(set(shapes)) == 1:
        return pixels.reshape(-1, *shapes[0])
    return [part.reshape(shape) for part, shape in zip(parts, shapes, strict=True)]


def _leave_group(worker: int) -> None:
    """Ctrl-C and launchers signal the whole process group: workers must live until the main process has saved."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()


def eval_batches(
    source: Source, preprocess: Any, batch_size: int, workers: int
) -> Iterator[tuple["Tensor | list[Tensor]", list[int], list[BadImage]]]:
    """Batches in order: images uint8 [N, 3, H, W], their indices, and those that could not be decoded.

    Images that keep different shapes are a list.
    """
    loader = DataLoader(
        EvalImages(source, preprocess),
        batch_size=batch_size,
        num_workers=usable_workers(workers),
        collate_fn=_stacked,
        worker_init_fn=_leave_group,
    )
    start = 0
    for pixels, shapes, places, bad, count in loader:
        yield _unstacked(pixels, shapes), [start + place for place in places], bad
        start += count


def usable_workers(workers: int) -> int:
    """Returns the number of workers, or 0 where none could send what it decoded: then this process decodes itself.

    They send over sockets in the folder for temporary files, whose path may have only so many letters; a worker whose
    socket has a longer one leaves the process waiting for ever.
    """
    return workers if len(os.fsencode(tempfile.gettempdir())) <= LONGEST_TEMPORARY else 0


def default_workers() -> int:
    """Processes that decode: this process's share of the cores but one, at most 8."""
    return min(8, max(1, cores() - 1))
