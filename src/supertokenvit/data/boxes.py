"""Images with boxes: what detection learns from, wherever the boxes were written down."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from PIL import Image

from .decode import BadImage, decode, printable
from .listing import counted
from .sources import Files, Reader, Source, Stored, Subset


class Boxes(NamedTuple):
    """The boxes of one image.

    Args:
        boxes: Left, upper, right and lower edge in pixels of the upright image, float32 [n, 4].
        labels: Class numbers, int64 [n].
        crowd: Whether a box is neither learned nor counted (COCO's iscrowd, Pascal VOC's difficult), bool [n].
    """

    boxes: np.ndarray
    labels: np.ndarray
    crowd: np.ndarray


@dataclass
class Annotations:
    """The boxes of one split as a reader collects them.

    Args:
        files: Path of each image.
        sizes: Width and height of each image as it was annotated; 0 where that is not said.
        image: Number of the image of each box.
        boxes: Left, upper, right and lower edge of each box.
        names: Class of each box.
        crowd: Whether each box is neither learned nor counted.
        faults: What cannot be used, and why: a kind such as "box without area", and the names.
    """

    files: list[str] = field(default_factory=list)
    sizes: list[tuple[int, int]] = field(default_factory=list)
    image: list[int] = field(default_factory=list)
    boxes: list[Sequence[float]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    crowd: list[bool] = field(default_factory=list)
    faults: dict[str, list[str]] = field(default_factory=dict)

    def fault(self, kind: str, name: str) -> None:
        """Notes what cannot be used."""
        self.faults.setdefault(kind, []).append(name)


class BoxFiles(Files):
    """Image files with their boxes; `targets` says which classes are on an image, float32 [N, K].

    Args:
        reader: Gives the name and the content of each file.
        classes: The names of the classes.
        found: The boxes.

    Attributes:
        faults: What of all annotations of the data set is not used: kinds with names.
    """

    def __init__(self, reader: Reader, classes: list[str], found: Annotations) -> None:
        self.sizes = np.array(found.sizes, dtype=np.int64).reshape(-1, 2)
        image, boxes = np.array(found.image, dtype=np.int64), np.array(found.boxes, dtype=np.float32).reshape(-1, 4)
        number = {name: k for k, name in enumerate(classes)}
        labels = np.array([number[name] for name in found.names], dtype=np.int64)
        crowd = np.array(found.crowd, dtype=bool)
        self.faults = {kind: list(names) for kind, names in found.faults.items()}
        whole = ((boxes[:, 2:] > boxes[:, :2]) & np.isfinite(boxes[:, :2]) & np.isfinite(boxes[:, 2:])).all(1)
        for b in np.flatnonzero(~whole):
            text = ", ".join(f"{edge:g}" for edge in found.boxes[b])
            place = f"{printable(found.files[image[b]])}: {found.names[b]} ({text})"
            self.faults.setdefault("box without area", []).append(place)
        order = np.flatnonzero(whole)[np.argsort(image[whole], kind="stable")]
        self.boxes, self.labels, self.crowd = boxes[order], labels[order], crowd[order]
        self.starts = np.searchsorted(image[order], np.arange(len(found.files) + 1))
        targets = np.zeros((len(found.files), len(classes)), dtype=np.float32)
        targets[image[order], self.labels] = 1
        super().__init__(reader, classes, targets)

    @property
    def task(self) -> str:
        """What the labels ask of a model."""
        return "detection"

    def target(self, i: int) -> Boxes:
        """Returns the boxes of an image."""
        part = slice(self.starts[i], self.starts[i + 1])
        return Boxes(self.boxes[part], self.labels[part], self.crowd[part])

    def label_bytes(self, i: int) -> bytes:
        return b"".join(np.ascontiguousarray(part).tobytes() for part in self.target(i))

    def image(self, i: int, enough: int | None = None) -> Image.Image:
        """Decodes an image to 8-bit RGB, always wholly: the boxes are in its pixels.

        Raises:
            BadImage: It cannot be decoded, or has another size than its annotation says.
        """
        image = decode(self.read(i), self.name(i))
        width, height = self.sizes[i]
        if width and height and image.size != (width, height):
            has = f"{image.size[0]} x {image.size[1]}"
            raise BadImage(self.name(i), f"annotated at {width} x {height} pixels, and has {has}")
        return image


def stored_boxes(
    found: dict[str, Annotations], make: Callable[[list[str]], Reader], faults: dict[str, list[str]]
) -> Stored:
    """Makes a source of each split; all splits have the same classes, those that have a box somewhere.

    Args:
        found: The boxes of each split.
        make: Makes a reader of a list of files.
        faults: What else is not used: kinds with names.
    """
    classes = sorted({name for split in found.values() for name in split.names})
    splits = {name: BoxFiles(make(split.files), classes, split) for name, split in found.items()}
    together: dict[str, list[str]] = {}
    for each in (*(source.faults for source in splits.values()), faults):
        for kind, names in each.items():
            together.setdefault(kind, []).extend(names)
    for source in splits.values():
        source.faults = together
    return Stored(dict(splits), [counted(kind, names) for kind, names in together.items()])


def box_files(source: Source) -> BoxFiles:
    """Returns the files that a source of images with boxes, or a part of one, comes from."""
    return _original(source, 0)[0]


def known_size(source: Source, i: int) -> tuple[int, int] | None:
    """Returns width and height of an image as its annotation says them, if it does."""
    files, i = _original(source, i)
    width, height = map(int, files.sizes[i])
    return (width, height) if width and height else None


def size_of(source: Source, i: int) -> tuple[int, int]:
    """Returns width and height of an image, for which it is decoded if its annotation does not say them."""
    return known_size(source, i) or source.image(i).size


def _original(source: Source, i: int) -> tuple[BoxFiles, int]:
    """The files that a part of them comes from, and the place of an image there."""
    while isinstance(source, Subset):
        i = int(source.indices[i]) if len(source) else i
        source = source.source
    assert isinstance(source, BoxFiles)
    return source, i
