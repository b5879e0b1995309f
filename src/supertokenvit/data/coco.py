"""Reads the boxes of COCO: a JSON file for each split, which names its images and their boxes."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from .boxes import Annotations
from .decode import printable
from .listing import has_image_ending
from .sources import DataError, class_name, split_of

ANNOTATIONS, INSTANCES = "annotations", "instances"
KEYS = ("images", "annotations", "categories")


def find_box_tables(files: Sequence[str], read: Callable[[str], bytes]) -> dict[str, tuple[str, dict[str, Any]]]:
    """Finds the JSON files of a COCO data set and reads them.

    They lie in the folder itself, in annotations, or in the folders of the splits; a word in the name of the file, or
    of its folder, says of which split they are, and one that says none is of the training images. Where some are called
    instances_..., the others (captions, key points) are left alone.

    Args:
        files: The paths of all files, with / between folders and names.
        read: Gives the content of a file.

    Returns:
        The path and the content by the name of the split; nothing if there is no such file.

    Raises:
        DataError: Two files are of the same split.
    """
    candidates = [file for file in files if file.lower().endswith(".json") and _may_hold_tables(file)]
    instances = [file for file in candidates if file.rpartition("/")[2].lower().startswith(INSTANCES)]
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for file in instances or candidates:
        content = _parsed(read(file), file)
        if content is None:
            continue
        folder, _, name = file.rpartition("/")
        split = split_of(name.rpartition(".")[0]) or split_of(folder.rpartition("/")[2]) or "train"
        if split in found:
            raise DataError(f"two files of boxes for the {split} split: {found[split][0]} and {file}; remove one")
        found[split] = file, content
    return found


def _may_hold_tables(file: str) -> bool:
    """Whether a file lies where those of COCO data sets do."""
    folders = file.split("/")[:-1]
    return len(folders) <= 2 and all(folder.lower() == ANNOTATIONS or split_of(folder) for folder in folders[-1:])


def _parsed(content: bytes, name: str) -> dict[str, Any] | None:
    """The content of a COCO file; None if it is another one."""
    if not all(f'"{key}"'.encode() in content for key in KEYS):
        return None
    try:
        parsed = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{printable(name)}: damaged JSON ({str(error).splitlines()[0]}); mend or remove it") from None
    lists = isinstance(parsed, dict) and all(isinstance(parsed.get(key), list) for key in KEYS)
    return parsed if lists else None


def read_coco(
    files: Sequence[str], tables: dict[str, tuple[str, dict[str, Any]]]
) -> tuple[dict[str, Annotations], dict[str, list[str]]]:
    """Reads the boxes of each split.

    Args:
        files: The paths of all files.
        tables: From find_box_tables.

    Returns:
        The splits, and what else is not used: kinds with names.

    Raises:
        DataError: An entry for an image or a class is damaged.
    """
    images = {file for file in files if has_image_ending(file.rpartition("/")[2])}
    found, named, classes = dict[str, Annotations](), set[str](), dict[str, bool]()
    for split, (table, content) in tables.items():
        try:
            found[split] = _read_split(table, content, split, images)
        except (KeyError, TypeError, ValueError) as error:
            reason = f"{type(error).__name__}: {error}"
            raise DataError(f"{printable(table)}: an image or a class in it is damaged ({reason}); mend it") from None
        named |= set(found[split].files)
        used = set(found[split].names)
        for entry in content["categories"]:
            name = _name(entry)
            classes[name] = classes.get(name, False) or name in used
    faults = {
        "class without a box": [name for name, used in classes.items() if not used],
        "image that no annotation names": sorted(images - named),
    }
    return found, {kind: names for kind, names in faults.items() if names}


def _read_split(table: str, content: dict[str, Any], split: str, images: set[str]) -> Annotations:
    """The boxes of one file."""
    found = Annotations()
    names = {entry["id"]: _name(entry) for entry in content["categories"]}
    place: dict[Any, int | None] = {}
    folders = _folders(table, split, images)
    for entry in content["images"]:
        file = str(entry["file_name"]).replace("\\", "/").removeprefix("./")
        path = next((p for folder in folders if (p := f"{folder}/{file}".lstrip("/")) in images), None)
        if path is None:
            found.fault("image that is annotated and not there", printable(file))
            place[entry["id"]] = None
        elif entry["id"] in place:
            found.fault("image with the id of another one", printable(file))
        else:
            place[entry["id"]] = len(found.files)
            found.files.append(path)
            found.sizes.append((int(entry.get("width") or 0), int(entry.get("height") or 0)))
    for entry in content["annotations"]:
        _add_box(found, entry, place, names, table)
    return found


def _name(category: dict[str, Any]) -> str:
    """The name of a class."""
    return class_name(str(category["name"]).strip())


def _add_box(found: Annotations, entry: Any, place: dict[Any, int | None], names: dict[Any, str], table: str) -> None:
    """Adds a box, or says why not."""
    try:
        number = place[entry["image_id"]]
    except (KeyError, TypeError):
        found.fault("box of an image that is not listed", f"{printable(table)}: {_short(entry)}")
        return
    if number is None:
        return  # the image is not there, which is said once
    try:
        left, top, width, height = map(float, entry["bbox"])
        name = names[entry["category_id"]]
    except (KeyError, TypeError, ValueError):
        known = isinstance(entry.get("category_id"), (int, str)) and entry["category_id"] in names
        kind = "annotation without a box" if known else "box of an unknown class"
        found.fault(kind, f"{printable(found.files[number])}: {_short(entry)}")
        return
    found.image.append(number)
    found.boxes.append((left, top, left + width, top + height))
    found.names.append(name)
    found.crowd.append(bool(entry.get("iscrowd")))


def _short(entry: Any) -> str:
    """An annotation in a few words."""
    return f"annotation {entry.get('id', 'without an id')}" if isinstance(entry, dict) else "an odd annotation"


def _folders(table: str, split: str, images: set[str]) -> list[str]:
    """The folders in which a file's images may lie, the likeliest first."""
    folders = {image.rpartition("/")[0] for image in images}
    above = {"/".join(folder.split("/")[:n]) for folder in folders for n in range(len(folder.split("/")))}
    own = table.rpartition("/")[0]
    called = sorted(f for f in folders | above if split_of(f.rpartition("/")[2]) == split)
    return list(dict.fromkeys([own, *called, *(f"{f}/images" for f in called), "images", ""]))
