"""Makes sources of folders and archives of images."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..run_folder import is_output
from .archives import is_zip, tar_members, zip_members
from .layout import LAYOUT, sort_into_splits
from .listing import counted, is_image_name, list_folder, pieces
from .readers import FolderReader, TarReader, ZipReader
from .sources import DataError, Files, Stored, class_name
from .tables import find_tables, open_tables


def open_path(spec: str) -> Stored:
    """Opens a folder or an archive.

    Args:
        spec: The path of a folder, or of a zip or tar file, which may be compressed.

    Raises:
        DataError: It cannot be read, is of no known format, or has no images in class folders.
    """
    path = Path(spec)
    if path.is_dir():
        listing = list_folder(path)
        paths = [tuple(file.split(os.sep)) for file in listing.files]
        tables = find_tables(path, paths)
        if tables:
            stored = open_tables(tables, listing.files, path)
        else:
            folders = [tuple(folder.split(os.sep)) for folder in listing.folders]
            stored = _open_files(
                spec, paths, folders, lambda kept: FolderReader(path, [listing.files[i] for i in kept])
            )
        stored.left_out = listing.left_out + stored.left_out
        return stored
    members = zip_members(path) if is_zip(path) else tar_members(path, is_image_name)
    names, outputs = _without_outputs(list(members.files))
    make: Callable[[list[int]], Any] = lambda kept: TarReader(  # noqa: E731
        [members.files[names[i]]._replace(name=names[i]) for i in kept]
    )
    if is_zip(path):
        make = lambda kept: ZipReader(path, [(names[i], members.files[names[i]]) for i in kept])  # noqa: E731
    stored = _open_files(spec, list(map(pieces, names)), list(map(pieces, members.folders)), make)
    stored.left_out = members.left_out + outputs + stored.left_out
    return stored


def _open_files(
    spec: str,
    paths: Sequence[tuple[str, ...]],
    folders: Sequence[tuple[str, ...]],
    make: Callable[[list[int]], Any],
) -> Stored:
    """Makes a source of each split.

    Args:
        spec: What messages call the data.
        paths: The folders and the name of each file.
        folders: Further folders, which may be empty.
        make: Makes a reader of the files with these numbers.
    """
    layout = sort_into_splits(paths, folders)
    stored = Stored({}, layout.left_out)
    for split, entries in layout.splits.items():
        if not entries:
            left = f" (left out: {'; '.join(layout.left_out)})" if layout.left_out else ""
            raise DataError(f"{spec}: the {split} split has no images in class folders{left}; {LAYOUT}")
        classes = sorted({class_name(name) for _, name in entries})
        number = {name: k for k, name in enumerate(classes)}
        targets = np.array([number[class_name(name)] for _, name in entries], dtype=np.int64)
        stored.splits[split] = Files(make([i for i, _ in entries]), classes, targets)
    if not stored.splits:
        found = f"{len(paths)} files, but no images in class folders" if paths else "it is empty"
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
