"""Images with masks: what segmentation learns from. The value of a mask's pixel is the number of its class."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from ..console import watched
from ..machine import cores
from .decode import MAX_PIXELS, BadImage, in_threads, printable
from .listing import counted, has_image_ending, is_image_name
from .sources import DataError, Files, Reader, Source, Stored, class_name, split_of

IMAGE_FOLDERS = {"images", "image", "imgs", "img_dir"}
MASK_FOLDERS = {"masks", "mask", "ann_dir", "annotations"}
MASK_ENDINGS = (".png", ".bmp", ".tif", ".tiff")  # without loss: a JPEG changes the numbers
CLASSES = "classes.txt"
IGNORED = 255
"""The value of pixels that are neither learned nor counted, as in Pascal VOC, mmsegmentation and torchvision."""
Path = tuple[str, ...]


@dataclass(frozen=True)
class Reading:
    """How data is to be read, where it does not say so itself.

    Args:
        task: "classification", "segmentation" or "detection"; None for what the data looks like.
        classes: Names of the classes of masks in the order of their values; None for those in classes.txt, or else the
            values themselves.
        ignore: A further value of masks, besides 255, whose pixels are neither learned nor counted.
    """

    task: str | None = None
    classes: tuple[str, ...] | None = None
    ignore: int | None = None


class MaskFiles(Files):
    """Image files with a mask each; `targets` is empty, float32 [N, 0], as masks are read one by one.

    Args:
        reader: Gives the name and the content of each image.
        masks: Gives the name and the content of the mask of each image.
        classes: The names of the classes.
        ignore: See Reading.
        count: N.
    """

    def __init__(self, reader: Reader, masks: Reader, classes: list[str], ignore: int | None, count: int) -> None:
        super().__init__(reader, classes, np.zeros((count, 0), dtype=np.float32))
        self.masks, self.ignore = masks, ignore

    @property
    def task(self) -> str:
        return "segmentation"

    def target(self, i: int) -> np.ndarray:
        """Returns the mask of an image: class numbers and IGNORED, uint8 [H, W].

        Raises:
            BadImage: The mask cannot be decoded, or has a value that is no class.
        """
        mask = decode_mask(self.masks.read(i), printable(self.masks.name(i)))
        if self.ignore is not None:
            mask = np.where(mask == self.ignore, IGNORED, mask)
        odd = np.setdiff1d(np.unique(mask), [*range(len(self.classes)), IGNORED])
        if len(odd):
            known = f"there are {len(self.classes)} classes, from 0"
            raise BadImage(printable(self.masks.name(i)), f"it has the value {odd[0]}, and {known}")
        return mask.astype(np.uint8)

    def label_bytes(self, i: int) -> bytes:
        return self.masks.read(i)


def decode_mask(content: bytes, name: str) -> np.ndarray:
    """Returns the numbers in a mask, [H, W].

    Args:
        content: Of the file.
        name: For messages.

    Raises:
        BadImage: It is damaged, too large or a picture in colours.
    """
    try:
        with Image.open(io.BytesIO(content), formats=("PNG", "BMP", "TIFF")) as image:
            if image.size[0] * image.size[1] > MAX_PIXELS:
                raise BadImage(name, f"over the limit of {MAX_PIXELS / 1e6:g} megapixels")
            if image.mode not in ("1", "L", "P", "I", "I;16"):
                raise BadImage(
                    name, f"a mask of mode {image.mode}: expected a grey or palette picture of class numbers"
                )
            return np.asarray(image).astype(np.int64)
    except BadImage:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        raise BadImage(
            name, f"damaged mask ({str(error).splitlines()[0] if str(error) else type(error).__name__})"
        ) from None


def check_size(source: Source, i: int, size: tuple[int, int], shape: Sequence[int]) -> None:
    """Refuses a mask of another size than its image.

    Raises:
        BadImage: It has one.
    """
    if size != tuple(shape)[::-1]:
        has = f"{shape[1]} x {shape[0]}"
        raise BadImage(source.name(i), f"{size[0]} x {size[1]} pixels, and its mask has {has}")


def open_masks(
    files: Sequence[str], make: Callable[[list[str]], Reader], read: Callable[[str], bytes], reading: Reading
) -> Stored | None:
    """Makes a source of each split of a folder of images and masks; None if there are no masks.

    A mask has the path of its image but for the ending, and for the folder: masks instead of images (or img_dir and
    ann_dir). Folders of splits may be above or below.

    Args:
        files: The paths of all files, with / between folders and names.
        make: Makes a reader of a list of files.
        read: Gives the content of a file.
        reading: Classes and ignored value.

    Raises:
        DataError: A class of masks without names cannot be counted, as a mask is damaged.
    """
    images, masks = _by_place(files, IMAGE_FOLDERS), _by_place(files, MASK_FOLDERS)
    masks = {place: file for place, file in masks.items() if file.lower().endswith(MASK_ENDINGS)}
    paired = [place for place in images if place in masks]
    if not paired:
        return None
    lone = {
        "image without a mask": [file for place, file in images.items() if place not in masks],
        "mask without an image": [file for place, file in masks.items() if place not in images],
        "image beside images and masks": [
            f for f in files if is_image_name(f) and f not in {*images.values(), *masks.values()}
        ],
    }
    names = _class_names(files, [masks[place] for place in paired], make, read, reading)
    splits: dict[str, list[Path]] = {}
    for place in paired:
        splits.setdefault(next(filter(None, map(split_of, place[:-1])), "train"), []).append(place)
    found = {}
    for split, places in splits.items():
        of_images, of_masks = (make([file[place] for place in places]) for file in (images, masks))
        found[split] = MaskFiles(of_images, of_masks, names, reading.ignore, len(places))
    return Stored(dict(found), [counted(what, sorted(some)) for what, some in lone.items() if some])


def _by_place(files: Sequence[str], folders: set[str]) -> dict[Path, str]:
    """The images in folders of such names, by their paths without that folder and without the ending."""
    found = {}
    for file in files:
        *above, name = file.split("/")
        if has_image_ending(name) and is_image_name(file):
            at = next((n for n, folder in enumerate(above) if folder.lower() in folders), None)
            if at is not None:
                found[(*above[:at], *above[at + 1 :], name.rpartition(".")[0])] = file
    return found


def _class_names(
    files: Sequence[str],
    masks: list[str],
    make: Callable[[list[str]], Reader],
    read: Callable[[str], bytes],
    reading: Reading,
) -> list[str]:
    """Names of the classes: those asked for, those of classes.txt, or the values of the masks."""
    if reading.classes is not None:
        return [class_name(name) for name in reading.classes]
    lists = [file for file in files if file.rpartition("/")[2].lower() == CLASSES]
    if lists:
        lines = read(min(lists, key=len)).decode("utf-8-sig", "replace").splitlines()
        return [class_name(line.strip()) for line in lines if line.strip()]
    reader = make(masks)

    def largest(i: int) -> int:
        values = np.unique(decode_mask(reader.read(i), printable(reader.name(i))))
        return int(np.setdiff1d(values, [IGNORED, -1 if reading.ignore is None else reading.ignore]).max(initial=-1))

    try:
        top = max(watched(in_threads(largest, len(masks), cores()), "Reading masks", len(masks)))
    except BadImage as error:
        raise DataError(f"{error}; mend or remove it, or say the classes in {CLASSES}, one name a line") from None
    if top >= IGNORED:
        raise DataError(f"a mask has the value {top}: classes are numbered from 0 to at most {IGNORED - 1}")
    return [str(value) for value in range(top + 1)]
