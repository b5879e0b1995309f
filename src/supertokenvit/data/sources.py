"""Defines what labelled images are, wherever they come from: a source gives any of them by its index."""

import os
import re
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from PIL import Image

from ..errors import UserError
from .decode import decode, printable

# The splits of a data set, by the words that folders, shards and libraries have for them.
SPLIT_NAMES = {name: name for name in ("train", "val", "test")}
SPLIT_NAMES |= {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
SPLIT_WORDS = SPLIT_NAMES | {"trainset": "train", "valset": "val", "dev": "val", "eval": "val", "evaluation": "val"}
SPLIT_WORDS |= {"testset": "test", "devset": "val", "evalset": "val"}


class DataError(UserError):
    """Data that cannot be used; one line says what is wrong, why, and what to do."""


def class_name(text: str) -> str:
    """Returns the name of a class in Unicode's composed form (NFC), so that names that look the same are the same.

    macOS writes the names of folders in the decomposed form: "é" there is an e and an accent.
    """
    return unicodedata.normalize("NFC", text)


def split_of(name: str) -> str | None:
    """Returns the split that a folder, shard or part of this name holds: train, val, test, or None.

    A word of the name says so, wherever it stands: `training_set`, `seg_train`, `imagenet1k-validation-0001`. A name
    with the words of two splits holds neither.

    Args:
        name: Of the folder or the file.
    """
    words = re.findall(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])", name)
    found = {SPLIT_WORDS[word.lower()] for word in words if word.lower() in SPLIT_WORDS}
    return found.pop() if len(found) == 1 else None


class Source(ABC):
    """Labelled images by index.

    Attributes:
        classes: Names in the order of the class numbers.
        targets: Class numbers, int64 [N]; if an image may have several labels, 0 or 1 for each class, float32 [N, K].
    """

    classes: list[str]
    targets: np.ndarray

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes."""
        return self.targets.ndim == 2

    @property
    def task(self) -> str:
        """What the labels ask of a model: "classification", "multi-label", "segmentation" or
        "detection"."""
        return "multi-label" if self.multi_label else "classification"

    def target(self, i: int) -> Any:
        """Returns what is to be learned of an image."""
        return self.targets[i]

    def label_bytes(self, i: int) -> bytes:
        """Returns what else than `targets` is known of an image's labels, for the fingerprint."""
        return b""

    def __len__(self) -> int:
        return len(self.targets)

    @abstractmethod
    def name(self, i: int) -> str:
        """Returns the path or key of an image, to show to a person."""

    def key(self, i: int) -> str:
        """Returns the last folder and the name of an image, which stay the same when the data set is moved."""
        name = self.name(i)
        return "/".join((name if os.sep == "/" else name.replace(os.sep, "/")).rsplit("/", 2)[-2:])

    @abstractmethod
    def read(self, i: int) -> bytes:
        """Returns the content of an image file.

        Raises:
            BadImage: It cannot be unpacked, or is too large.
            OSError: The disk or the network fails, which is no fault of the image.
        """

    def image(self, i: int, enough: int | None = None) -> Image.Image:
        """Decodes an image to 8-bit RGB.

        Args:
            i: Its index.
            enough: Pixels of the shorter side that are enough (see decode.decode); None for all of them.

        Raises:
            BadImage: The image cannot be unpacked or decoded.
            OSError: The disk or the network fails, which is no fault of the image.
        """
        return decode(self.read(i), self.name(i), enough=enough)


class Reader(Protocol):
    """Gives files by their numbers (data.readers)."""

    def name(self, i: int) -> str:
        """Returns the path of a file."""

    def read(self, i: int) -> bytes:
        """Returns the content of a file."""


class Files(Source):
    """Image files with their labels, wherever they lie.

    Args:
        reader: Gives the name and the content of each file.
        classes: The names of the classes.
        targets: The class number, or the labels, of each file.
    """

    def __init__(self, reader: Reader, classes: list[str], targets: np.ndarray) -> None:
        self.reader, self.classes, self.targets = reader, classes, targets

    def name(self, i: int) -> str:
        return printable(self.reader.name(i))

    def read(self, i: int) -> bytes:
        return self.reader.read(i)


@dataclass
class Stored:
    """A data set as it is stored.

    Args:
        splits: Its splits by name: train, val and test, as many as there are.
        left_out: What of it is not read, and what else a person should know of it; a line for each.
    """

    splits: dict[str, Source]
    left_out: list[str] = field(default_factory=list)


class Subset(Source):
    """Some images of another source.

    Args:
        source: The other source.
        indices: The indices of the images to take, in order.
    """

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self.source = source
        self.indices = np.asarray(indices, dtype=np.int64)
        self.classes = source.classes
        self.targets = source.targets[self.indices]

    @property
    def task(self) -> str:
        return self.source.task

    def target(self, i: int) -> Any:
        return self.source.target(int(self.indices[i]))

    def label_bytes(self, i: int) -> bytes:
        return self.source.label_bytes(int(self.indices[i]))

    def name(self, i: int) -> str:
        return self.source.name(int(self.indices[i]))

    def read(self, i: int) -> bytes:
        return self.source.read(int(self.indices[i]))

    def image(self, i: int, enough: int | None = None) -> Image.Image:
        return self.source.image(int(self.indices[i]), enough)


class ProcessShare(Subset):
    """The images that one of several processes takes.

    All processes take equally many, so some images may be taken by two of them.

    Args:
        source: The images of all processes.
        rank: The number of this process, from 0.
        count: The number of processes.
    """

    def __init__(self, source: Source, rank: int, count: int) -> None:
        each = -(-len(source) // count)
        super().__init__(source, np.arange(rank, rank + each * count, count) % len(source))


def targets_by_name(source: Source, classes: list[str]) -> np.ndarray:
    """Returns a source's targets as numbers of another list of classes, which must have all of the source's."""
    number = {class_name(name): k for k, name in enumerate(classes)}
    order = np.array([number[class_name(name)] for name in source.classes], dtype=np.int64)  # also without classes
    if not source.multi_label:
        return order[source.targets]
    if source.task == "segmentation":  # what is on an image is in its mask
        return source.targets
    targets = np.zeros((len(source), len(classes)), dtype=np.float32)
    targets[:, order] = source.targets
    return targets


def renamed(source: Source, classes: list[str], what: str) -> Source:
    """Returns the same images with the class numbers of another list of classes, matched by name.

    Args:
        source: The images.
        classes: The list to use.
        what: What the message calls the images.

    Raises:
        DataError: The source has a class that is not in the list.
    """
    unknown = sorted(unknown_classes(source, classes))
    if unknown:
        raise DataError(
            f"{what} has classes that the training images lack: {', '.join(unknown[:5])}; "
            f"training knows {', '.join(classes[:10])}. Add training images of them or leave them out"
        )
    same = Subset(source, np.arange(len(source)))
    same.classes, same.targets = classes, targets_by_name(source, classes)
    return same


def unknown_classes(source: Source, classes: Sequence[str]) -> list[str]:
    """Returns the classes of a source that are not in a list of classes."""
    known = set(map(class_name, classes))
    return [name for name in source.classes if class_name(name) not in known]


def unlabelled_images(source: Source) -> int:
    """Counts the images of label -1, with which Hugging Face and others mark labels that are kept secret."""
    return 0 if source.multi_label else int((source.targets < 0).sum())
