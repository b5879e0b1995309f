"""What labelled images are: sources with random access, subsets of them, and their classes by name."""

import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
from PIL import Image

from ..errors import UserError
from .decode import BadImage, decode

# what folders, archives and libraries call the splits
SPLIT_NAMES = {name: name for name in ("train", "val", "test")}
SPLIT_NAMES |= {"training": "train", "valid": "val", "validation": "val", "testing": "test"}


class DataError(UserError):
    """Data that cannot be used."""


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
        """Returns the file as it is."""

    def image(self, i: int, enough: int | None = None) -> Image.Image:
        """Decodes an image to 8-bit RGB.

        Args:
            i: Its index.
            enough: Pixels of the shorter side that are enough (see decode.decode); None for all.

        Raises:
            BadImage: It cannot be unpacked or decoded.
        """
        try:
            data = self.read(i)
        # a disk that fails is an OSError and stays one: it is no fault of the image
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
            raise BadImage(self.name(i), f"cannot be unpacked ({error})") from None
        return decode(data, self.name(i), enough=enough)


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

    def image(self, i: int, enough: int | None = None) -> Image.Image:
        return self.source.image(int(self.indices[i]), enough)


class ProcessShare(Subset):
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
    """Returns a source's targets as numbers of another list of classes, which has all of the source's."""
    order = np.array([classes.index(name) for name in source.classes], dtype=np.int64)  # there may be none
    if not source.multi_label:
        return order[source.targets]
    targets = np.zeros((len(source), len(classes)), dtype=np.float32)
    targets[:, order] = source.targets
    return targets


def renamed(source: Source, classes: list[str], what: str) -> Source:
    """Returns the same images with targets that are numbers of another list of classes, matched by name.

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


def stratified_split(targets: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts off images so that each class gives its fraction: indices of the rest and of the cut, both ascending.

    The images of each class are put in an order that depends on the seed and the class number alone; the first
    `fraction` of them, rounded, are cut off: at least one of a class with two or more, and never a whole class. With
    several labels per image all images are put in one order.

    Args:
        targets: [N] or [N, K].
        fraction: From 0 to 1, what to cut off.
        seed: Random seed of the order.
    """
    groups = (
        [np.arange(len(targets))] if targets.ndim == 2 else [np.flatnonzero(targets == c) for c in np.unique(targets)]
    )
    rest, cut = [], []
    for number, group in enumerate(groups):
        order = np.random.default_rng([seed, number]).permutation(group)
        count = min(len(group) - 1, max(1, round(fraction * len(group)))) if fraction > 0 else 0
        cut.append(order[:count])
        rest.append(order[count:])
    return np.sort(np.concatenate(rest)), np.sort(np.concatenate(cut))


def unlabelled_images(source: Source) -> int:
    """Counts the images with the label -1, by which Hugging Face and others mean that it is kept secret."""
    return 0 if source.multi_label else int((source.targets < 0).sum())
