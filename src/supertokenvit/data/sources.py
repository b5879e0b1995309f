"""Labelled images from wherever they are, all with random access: how they are split, and what they are called."""

import hashlib
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import UserError
from .decode import BadImage, decode

SPLIT_NAMES = {name: name for name in ("train", "val", "test")}
SPLIT_NAMES |= {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


class DataError(UserError):
    """Data that cannot be used; one line that says what, why and what to do."""


class Source(ABC):
    """Labelled images by index.

    Attributes:
        classes: Names in the order of the class numbers.
        targets: Class numbers, int64 [N], or for several labels 0 or 1 for each, float32 [N, K].
    """

    classes: list[str]
    targets: np.ndarray

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes."""
        return self.targets.ndim == 2

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def name(self, i: int) -> str:
        """Path or key of an image, to show to a person."""

    @abstractmethod
    def read(self, i: int) -> bytes:
        """The file as it is."""

    def image(self, i: int) -> Image.Image:
        """The decoded image, 8-bit RGB.

        Raises:
            BadImage: It cannot be unpacked or decoded.
        """
        try:
            data = self.read(i)
        # a disk that fails is an OSError and stays one: it is no fault of the image
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise BadImage(self.name(i), f"cannot be unpacked ({error})") from None
        return decode(data, self.name(i))


class Subset(Source):
    """Some images of another source.

    Args:
        source: The other one.
        indices: Of its images, in order.
    """

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self.source = source
        self.indices = np.asarray(indices, dtype=np.int64)
        self.classes = source.classes
        self.targets = source.targets[self.indices]

    def name(self, i: int) -> str:
        return self.source.name(int(self.indices[i]))

    def read(self, i: int) -> bytes:
        return self.source.read(int(self.indices[i]))

    def image(self, i: int) -> Image.Image:
        return self.source.image(int(self.indices[i]))


class Part(Subset):
    """The images that one of several processes takes: as many for each, so that some may be taken twice.

    Args:
        source: All images.
        rank: Of the process, from 0.
        count: Processes.
    """

    def __init__(self, source: Source, rank: int, count: int) -> None:
        each = -(-len(source) // count)
        super().__init__(source, np.arange(rank, rank + each * count, count) % len(source))


def targets_by_name(source: Source, classes: list[str]) -> np.ndarray:
    """The source's targets as numbers of another list of classes, which has all of the source's."""
    order = np.array([classes.index(name) for name in source.classes], dtype=np.int64)  # there may be none
    if not source.multi_label:
        return order[source.targets]
    targets = np.zeros((len(source), len(classes)), dtype=np.float32)
    targets[:, order] = source.targets
    return targets


def renamed(source: Source, classes: list[str], what: str) -> Source:
    """The same images with targets that are numbers of another list of classes, matched by name.

    Args:
        source: The images.
        classes: The list to use.
        what: For the message.

    Raises:
        DataError: The source has a class that is not in the list.
    """
    unknown = sorted(set(source.classes) - set(classes))
    if unknown:
        raise DataError(
            f"{what} has classes that the training images lack: {', '.join(unknown[:5])}; "
            f"training knows {', '.join(classes[:10])}. Add training images of them or leave them out"
        )
    same = Subset(source, np.arange(len(source)))
    same.classes, same.targets = classes, targets_by_name(source, classes)
    return same


@dataclass
class Splits:
    """The parts of a data set.

    Args:
        train: To learn from.
        val: To choose by.
        test: To report once.
        rule: How the validation part came about, for the run folder.
    """

    train: Source
    val: Source | None
    test: Source | None
    rule: str


def stratified_split(targets: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts off a part in which each class has its share: indices of the rest and of the part, both ascending.

    The images of each class are put in an order that depends on the seed and the class number alone; the first
    `fraction` of them, rounded, are cut off: at least one of a class with two or more, and never a whole class. With
    several labels per image all images are put in one order.

    Args:
        targets: [N] or [N, K].
        fraction: Share to cut off.
        seed: Of the order.
    """
    groups = (
        [np.arange(len(targets))] if targets.ndim == 2 else [np.flatnonzero(targets == c) for c in np.unique(targets)]
    )
    rest, part = [], []
    for number, group in enumerate(groups):
        order = np.random.default_rng([seed, number]).permutation(group)
        count = min(len(group) - 1, max(1, round(fraction * len(group)))) if fraction > 0 else 0
        part.append(order[:count])
        rest.append(order[count:])
    return np.sort(np.concatenate(rest)), np.sort(np.concatenate(part))


def unlabelled_images(source: Source) -> int:
    """How many images have the label -1, by which Hugging Face and others mean: kept secret."""
    return 0 if source.multi_label else int((source.targets < 0).sum())


def fingerprint(source: Source) -> str:
    """16 hexadecimal digits that change with the file names, labels or classes of a source.

    Neither pixels nor the place where the data lies count: a data set may be moved.
    """
    digest = hashlib.sha256("\n".join(source.classes).encode())
    for i in range(len(source)):
        digest.update(b"\0" + "/".join(Path(source.name(i)).parts[-2:]).encode())
    digest.update(np.ascontiguousarray(source.targets).tobytes())
    return digest.hexdigest()[:16]


def open_splits(spec: str, *, val_fraction: float = 0.1, seed: int = 0) -> Splits:
    """Opens a data set. Without a validation part, one is cut from the training part; a test part is never used for it.

    Args:
        spec: Folder of class folders, with or without train, val and test above them; the same as .tar, .tar.gz or
            .zip; `wds/SHARDS`; `hfds/NAME`; `torch/NAME`; `digits`.
        val_fraction: Share to cut off.
        seed: Of the cut.

    Raises:
        DataError: It is not there, is empty, has one class only, or its parts disagree.
    """
    from .formats import ELSEWHERE, open_parts

    parts = open_parts(spec)
    elsewhere = parts.pop(ELSEWHERE, None)
    if "train" not in parts:
        raise DataError(f"{spec}: no training images: expected train/CLASS/IMAGE, or CLASS/IMAGE without parts")
    train = parts["train"]
    if len(train) == 0:
        raise DataError(f"{spec}: no images in it: expected CLASS/IMAGE with a folder for each class")
    odd = next((name for name in train.classes if any("\ud800" <= letter <= "\udfff" for letter in name)), None)
    if odd is not None:  # Python's letters for bytes that are no text
        raise DataError(f"{spec}: the name of class {ascii(odd)} is not in UTF-8: rename its folder")
    unlabelled = {name: unlabelled_images(part) for name, part in parts.items()}
    for name in ("train", "val"):
        if unlabelled.get(name):
            raise DataError(f"{spec}: {unlabelled[name]} images of the {name} part have no label; label or remove them")
    present = train.classes if train.multi_label else [train.classes[c] for c in np.unique(train.targets)]
    if len(present) < 2:
        raise DataError(
            f"{spec}: one class only ({', '.join(present)}): expected CLASS/IMAGE with a folder for each of two or "
            "more classes"
        )
    others = {
        name: renamed(parts[name], train.classes, f"{spec}: the {name} part")
        for name in ("val", "test")
        if name in parts and not unlabelled[name]
    }
    val: Source | None = others.get("val")
    if val is not None:
        missing = sorted(set(train.classes) - set(parts["val"].classes))
        rule = f"the data's own validation part of {len(val)} images"
        rule += f"; it has no images of {', '.join(missing)}" if missing else ""
    else:
        rest, part = stratified_split(train.targets, val_fraction, seed)
        if len(part):
            val = Subset(train, part)
            train = Subset(train, rest)
        rule = (
            f"{len(part)} images cut from the {len(part) + len(rest)} training images: {val_fraction:g} of each class, "
            f"in the order of seed {seed}"
        )
    if unlabelled.get("test"):
        rule += f"; the test part is left out: {unlabelled['test']} of its images have no label"
    if elsewhere is not None:
        rule += f"; left out: {len(elsewhere)} images in no part or no class folder, such as {elsewhere.name(0)}"
    return Splits(train, val, others.get("test"), rule)
