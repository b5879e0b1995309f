"""Makes sources of folders and archives of images."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..run_folder import is_output
from .archives import is_zip, tar_members, zip_members
from .boxes import stored_boxes
from .coco import find_box_tables, read_coco
from .layout import LAYOUT, sort_into_splits
from .listing import counted, is_image_name, list_folder
from .masks import Reading, open_masks
from .pascal_voc import find_annotations, read_voc
from .readers import FolderReader, TarReader, ZipReader
from .sources import DataError, Files, Stored, class_name
from .tables import find_tables, open_tables

AS_IT_LOOKS = Reading()
EXPECTED = {
    "segmentation": "images/NAME.jpg with masks/NAME.png, or both of them in each of train, val and test",
    "detection": "images with annotations of COCO (.json) or Pascal VOC (.xml)",
}


def open_path(spec: str, reading: Reading = AS_IT_LOOKS) -> Stored:
    """Opens a folder or an archive.

    Args:
        spec: The path of a folder, or of a zip or tar file, which may be compressed.
        reading: What the data does not say itself.

    Raises:
        DataError: It cannot be read, is of no known format, or has no images in class folders.
    """
    path = Path(spec)
    if path.is_dir():
        listing = list_folder(path)
        files, folders = listing.files, listing.folders
        if os.sep != "/":
            files, folders = ([name.replace(os.sep, "/") for name in names] for names in (files, folders))
        tables = find_tables(path, files)
        stored = open_tables(tables, files, path) if tables else _open_dense(path, files, reading)
        if stored is None:
            stored = _open_files(spec, files, folders, lambda kept: FolderReader(path, [files[i] for i in kept]))
        stored.left_out = listing.left_out + stored.left_out
        return stored
    is_packed_by_zip = is_zip(path)
    members = zip_members(path) if is_packed_by_zip else tar_members(path, is_image_name)
    names, outputs = _without_outputs(list(members.files))

    def reader(kept: Sequence[int]) -> Any:
        pairs = [(names[i], members.files[names[i]]) for i in kept]
        return ZipReader(path, pairs) if is_packed_by_zip else TarReader([m._replace(name=n) for n, m in pairs])

    stored = _open_files(spec, names, members.folders, reader)
    stored.left_out = members.left_out + outputs + stored.left_out
    return stored


def _open_dense(root: Path, files: Sequence[str], reading: Reading) -> Stored | None:
    """Makes a source of each split of a folder with masks or boxes; None if there are none, or none are wanted."""

    def read(name: str) -> bytes:
        return (root / name).read_bytes()

    def make(kept: list[str]) -> FolderReader:
        return FolderReader(root, kept)

    stored = None
    if reading.task in (None, "segmentation"):
        stored = open_masks(files, make, read, reading)
    if stored is None and reading.task in (None, "detection"):
        stored = _open_boxes(files, make, read)
    if stored is None and reading.task in EXPECTED:
        raise DataError(f"{root}: no data for {reading.task} there; expected {EXPECTED[str(reading.task)]}")
    return stored


def _open_boxes(
    files: Sequence[str], make: Callable[[list[str]], FolderReader], read: Callable[[str], bytes]
) -> Stored | None:
    """Makes a source of each split of a folder with boxes; None if nobody wrote any down there."""
    voc = find_annotations(files)
    coco = {} if voc else find_box_tables(files, read)
    if not voc and not coco:
        return None
    found, faults = read_voc(files, voc, read) if voc else read_coco(files, coco)
    return stored_boxes(found, make, faults)


def _open_files(
    spec: str, files: Sequence[str], folders: Sequence[str], make: Callable[[Sequence[int]], Any]
) -> Stored:
    """Makes a source of each split.

    Args:
        spec: What messages call the data.
        files: The paths of the files, with / between folders and names.
        folders: Further folders, which may be empty.
        make: Makes a reader of the files with these numbers.
    """
    layout = sort_into_splits(files, folders)
    stored = Stored({}, layout.left_out)
    for split, held in layout.splits.items():
        if not held:
            left = f" (left out: {'; '.join(layout.left_out)})" if layout.left_out else ""
            raise DataError(f"{spec}: the {split} split has no images in class folders{left}; {LAYOUT}")
        classes = sorted({class_name(name) for name in held})
        number = {name: k for k, name in enumerate(classes)}
        images = np.concatenate([np.array(indices) for indices in held.values()])
        targets = np.repeat([number[class_name(name)] for name in held], [len(indices) for indices in held.values()])
        order = np.argsort(images)  # that of the paths
        stored.splits[split] = Files(make(images[order].tolist()), classes, targets[order])
    if not stored.splits:
        found = f"{len(files)} files, but no images in class folders" if files else "it is empty"
        raise DataError(f"{spec}: {found}; {LAYOUT}")
    return stored


def _without_outputs(names: list[str]) -> tuple[list[str], list[str]]:
    """Takes out the files of folders that a training or an evaluation wrote, and says so."""
    inside: dict[str, set[str]] = {}
    for name in names:
        folders = name.split("/")
        for n in range(1, len(folders)):
            inside.setdefault("/".join(folders[:n]), set()).add(folders[n])
    outputs = {folder for folder, held in inside.items() if is_output(held)}
    if not outputs:
        return names, []
    kept = [n for n in names if not any(n.startswith(f"{folder}/") for folder in outputs)]
    return kept, [counted("output of supertokenvit", sorted(outputs))]
