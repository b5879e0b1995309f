"""Reads the boxes of Pascal VOC: an XML file for each image, and lists of names for the splits."""

import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Sequence
from typing import NoReturn
from xml.parsers import expat

from .boxes import Annotations
from .decode import printable
from .listing import has_image_ending
from .sources import DataError, class_name, split_of

ANNOTATIONS, LISTS = "annotations", "imagesets/main/"
IMAGE_FOLDERS = ("jpegimages", "images")
EDGES = ("xmin", "ymin", "xmax", "ymax")


def find_annotations(files: Sequence[str]) -> dict[str, str]:
    """Finds the XML files that belong to images, in Annotations beside JPEGImages (or images), or beside the images.

    Args:
        files: The paths of all files, with / between folders and names.

    Returns:
        The path of the XML file of each image.
    """
    if not any(file.lower().endswith(".xml") for file in files):
        return {}
    images = {_stem(file).lower(): file for file in files if has_image_ending(file.rpartition("/")[2])}
    found = {}
    for file in files:
        if not file.lower().endswith(".xml"):
            continue
        folder, _, name = _stem(file).lower().rpartition("/")
        above, _, last = folder.rpartition("/")
        folders = [folder]
        if last == ANNOTATIONS:
            folders += [f"{above}/{beside}".lstrip("/") for beside in IMAGE_FOLDERS]
        image = next((images[path] for f in folders if (path := f"{f}/{name}".lstrip("/")) in images), None)
        if image is not None:
            found[image] = file
    return found


def read_voc(
    files: Sequence[str], annotations: dict[str, str], read: Callable[[str], bytes]
) -> tuple[dict[str, Annotations], dict[str, list[str]]]:
    """Reads the boxes of each split.

    The splits are those of ImageSets/Main/{train,val,test}.txt; without these lists, those that folders are called
    after; without both, all images are for training. The edges of boxes are taken as they are written.

    Args:
        files: The paths of all files.
        annotations: From find_annotations.
        read: Gives the content of a file.

    Returns:
        The splits, and what else is not used: kinds with names.

    Raises:
        DataError: An XML file is damaged, or declares entities.
    """
    found: dict[str, Annotations] = {}
    splits, faults = _splits(files, annotations, read)
    for image, file in annotations.items():
        for split in splits.get(image, ()):
            _add(found.setdefault(split, Annotations()), image, parse_xml(read(file), file))
    bare = [f for f in files if has_image_ending(f.rpartition("/")[2]) and f not in annotations]
    if bare:
        faults["image without an annotation"] = bare
    paired = set(annotations.values())
    lone = [file for file in files if file.lower().endswith(".xml") and file not in paired]
    if lone:
        faults["annotation without an image"] = lone
    return found, faults


def _stem(file: str) -> str:
    """A path without the ending of the name."""
    return file.rpartition(".")[0]


def _splits(
    files: Sequence[str], annotations: dict[str, str], read: Callable[[str], bytes]
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """The splits that each image belongs to, and where lists and files disagree."""
    lists = {}
    for file in files:
        _, found, name = file.lower().rpartition(LISTS)
        if found and name in ("train.txt", "val.txt", "test.txt"):
            lists[_stem(name)] = file
    if not lists:
        return {image: [_split_of_folders(image)] for image in annotations}, {}
    named: dict[str, list[str]] = {}
    for split, file in lists.items():
        for line in read(file).decode("utf-8", "replace").splitlines():
            if line.strip():
                named.setdefault(line.split()[0], []).append(split)
    stems = {image: _stem(image).rpartition("/")[2] for image in annotations}
    faults = {}
    unlisted = [image for image, stem in stems.items() if stem not in named]
    if unlisted:
        faults["image that no list of ImageSets/Main names"] = unlisted
    missing = sorted(set(named) - set(stems.values()))
    if missing:
        faults["name of ImageSets/Main without image or annotation"] = missing
    return {image: named.get(stem, []) for image, stem in stems.items()}, faults


def _split_of_folders(file: str) -> str:
    """The split that a folder of the path is called after; train if none is."""
    return next((split for folder in file.split("/")[:-1] if (split := split_of(folder))), "train")


def _add(found: Annotations, image: str, root: ElementTree.Element) -> None:
    """Adds the boxes of an image."""
    found.files.append(image)
    found.sizes.append((_number(root, "size/width"), _number(root, "size/height")))
    for thing in root.findall("object"):
        name = class_name((thing.findtext("name") or "").strip())
        texts = [thing.findtext(f"bndbox/{edge}") for edge in EDGES]
        try:
            box = [float(text or "") for text in texts]
        except ValueError:
            box = []
        if not name or not box:
            what = "box without a class" if not name else "object without a box"
            found.fault(what, f"{printable(image)}: {name or 'object'}")
            continue
        found.image.append(len(found.files) - 1)
        found.boxes.append(box)
        found.names.append(name)
        found.crowd.append((thing.findtext("difficult") or "0").strip() == "1")


def _number(root: ElementTree.Element, path: str) -> int:
    """A whole number of pixels, or 0 if there is none."""
    try:
        return max(0, round(float(root.findtext(path) or 0)))
    except (ValueError, OverflowError):
        return 0


def parse_xml(content: bytes, name: str) -> ElementTree.Element:
    """Parses XML that declares no entities, which could name other files or grow without end.

    Args:
        content: Of the file.
        name: For messages.

    Raises:
        DataError: It is damaged, or declares an entity.
    """
    builder, parser = ElementTree.TreeBuilder(), expat.ParserCreate()

    def refuse(*_: object) -> NoReturn:
        raise DataError(f"{printable(name)}: declares an XML entity, which is not read; remove the declaration")

    parser.EntityDeclHandler = refuse
    parser.StartElementHandler, parser.EndElementHandler = builder.start, builder.end
    parser.CharacterDataHandler = builder.data
    try:
        parser.Parse(content, True)
    except expat.ExpatError as error:
        raise DataError(f"{printable(name)}: damaged XML ({error}); mend or remove it") from None
    return builder.close()
