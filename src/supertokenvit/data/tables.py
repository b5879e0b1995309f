"""Reads tables of labels: labels.csv beside the images, with one label for each image or several."""

import csv
import io
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from .listing import counted, has_image_ending
from .readers import FolderReader
from .sources import DataError, Files, Stored, class_name, split_of

TABLE = "labels.csv"
HEADER = "the first line must be file,label (one label for each image) or file,labels (several, with | between them)"


def find_tables(root: Path, files: Sequence[str]) -> dict[str, Path]:
    """Finds the tables of labels of a folder: labels.csv in it, or in the folder of each split.

    Args:
        root: The folder.
        files: The paths of the files below it, with / between folders and names.

    Returns:
        The tables by the name of their split.

    Raises:
        DataError: There are two tables for a split.
    """
    tables: dict[str, Path] = {}
    paths = [file.split("/") for file in files if file.endswith(TABLE)]
    for path in sorted((path for path in paths if path[-1] == TABLE), key=len):
        split = "train" if len(path) == 1 else split_of(path[0])
        if split is not None and len(path) <= 2:
            if split in tables:
                raise DataError(f"{root}: two tables of the {split} split: {tables[split]} and {root.joinpath(*path)}")
            tables[split] = root.joinpath(*path)
    return tables


def open_tables(tables: dict[str, Path], files: Sequence[str], root: Path) -> Stored:
    """Makes a source of each split from its table of labels.

    Args:
        tables: From find_tables.
        files: The paths below the root of all files.
        root: The folder.

    Raises:
        DataError: A table cannot be read, or names a file that is not there; or one of them gives one label for each
            image, and another one several.
    """
    stored = Stored({})
    named = set[str]()
    for split, table in tables.items():
        labels, several = read_labels(table)
        folder = table.parent
        missing = [name for name in labels if not (folder / name).is_file()]
        if missing:
            raise DataError(f"{table}: names a file that is not there: {missing[0]}")
        stored.splits[split] = Table(folder, labels, several)
        named |= {os.path.normpath(os.path.join(folder, name)) for name in labels}
    if len({source.multi_label for source in stored.splits.values()}) > 1:
        raise DataError(f"{root}: its tables have one label for each image in one split and several in another")
    unnamed = [f for f in files if has_image_ending(f) and os.path.normpath(os.path.join(root, f)) not in named]
    if unnamed:
        stored.left_out.append(counted(f"image that no {TABLE} names", unnamed))
    return stored


class Table(Files):
    """Image files with labels from a table.

    Args:
        folder: Of the table.
        labels: The labels of each file, by its path below the folder.
        several: Whether an image may have several labels.
    """

    def __init__(self, folder: Path, labels: dict[str, list[str]], several: bool) -> None:
        classes = sorted({label for found in labels.values() for label in found})
        number = {label: k for k, label in enumerate(classes)}
        if several:
            targets = np.zeros((len(labels), len(classes)), dtype=np.float32)
            for i, found in enumerate(labels.values()):
                targets[i, [number[label] for label in found]] = 1
        else:
            targets = np.array([number[found[0]] for found in labels.values()], dtype=np.int64)
        super().__init__(FolderReader(folder, list(labels)), classes, targets)


def read_labels(table: Path) -> tuple[dict[str, list[str]], bool]:
    """Reads the labels of each file; also says whether a file may have several.

    Spaces around names and labels are taken off. A file that is named again gets the labels of both lines, if it may
    have several.

    Args:
        table: Path of a table with the columns file and label, or file and labels. Commas, semicolons or tabs separate
            the columns.

    Raises:
        DataError: It is no such table, or a file has no label, or two, where each has one.
    """
    try:
        text = table.read_bytes().decode("utf-8-sig")  # Excel begins its files with a mark
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: not in UTF-8 ({error.reason} at byte {error.start}); save it so") from None
    first = text.partition("\n")[0]
    separator = max(",;\t", key=first.count)
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=separator))
    except csv.Error as error:
        raise DataError(f"{table}: not readable as a table ({error})") from None
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    column = next((name for name in ("labels", "label") if name in header), None)
    if "file" not in header or column is None:
        raise DataError(f"{table}: {HEADER}; if class folders hold the labels, rename the table")
    labels: dict[str, list[str]] = {}
    for number, row in enumerate(rows[1:], 2):
        cells = dict(zip(header, (cell.strip() for cell in row), strict=False))
        file, text = cells.get("file", ""), cells.get(column, "")  # a line without a comma has no labels
        if not file and not text:
            continue
        if not file:
            raise DataError(f"{table}: line {number} names no file")
        found = [class_name(label) for part in (text.split("|") if column == "labels" else [text])
                 if (label := part.strip())]  # fmt: skip
        before = labels.get(file)
        if column == "label" and (not found or before not in (None, found)):
            said = "has no label" if not found else f"has the label {found[0]} and, above, {before[0]}"  # type: ignore[index]
            raise DataError(f"{table}: line {number}: {file} {said}; several labels need a column labels (cat|big)")
        labels[file] = list(dict.fromkeys([*(before or []), *found]))
    if not labels:
        raise DataError(f"{table}: no file in it")
    return labels, column == "labels"
