"""Makes sources of the files in which labelled images come: folders, archives, tables of labels, WebDataset shards."""

import csv
import io
import json
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import braceexpand
import numpy as np

from .decode import IMAGE_ENDINGS, printable
from .listing import is_image_name, is_image_path, list_files, pieces
from .readers import FolderReader, MemoryReader, TarReader, ZipReader
from .sources import SPLIT_NAMES, DataError, Source

ELSEWHERE = "elsewhere"  # the key of images that are in no split or no class folder
TAR_ERRORS = (tarfile.TarError, EOFError, zlib.error)
LAYOUT = "expected CLASS/IMAGE, or train/CLASS/IMAGE with val and test beside train"


def open_path(spec: str) -> dict[str, Source]:
    """Opens a folder or an archive.

    Args:
        spec: The path of a folder, or of a .tar, .tar.gz, .tgz or .zip file.

    Returns:
        The splits by name, and under ELSEWHERE the images that belong to none of them.

    Raises:
        DataError: It cannot be read, is of no known format, or has no images in class folders.
    """
    path = Path(spec)
    if path.is_dir():
        files = list_files(path)
        paths = [tuple(file.split(os.sep)) for file in files]
        tables = find_tables(path, paths)
        if tables:
            return _labelled_splits(tables)
        return _splits_of_files(spec, paths, files, lambda kept: FolderReader(path, kept))
    if path.name.endswith(".zip"):
        try:
            with zipfile.ZipFile(path) as archive:
                members = sorted(info.filename for info in archive.infolist() if not info.is_dir())
        except zipfile.BadZipFile as error:
            raise DataError(f"{spec}: not a readable zip file ({error})") from None
        return _splits_of_files(spec, list(map(pieces, members)), members, lambda kept: ZipReader(path, kept))
    if path.name.endswith((".tar", ".tar.gz", ".tgz")):
        return _splits_of_files(spec, *_tar_index(path))
    raise DataError(f"{spec}: a file, but no .tar, .tar.gz or .zip; {LAYOUT}")


class Files(Source):
    """Image files with their labels.

    Args:
        reader: Gives the name and the content of each file.
        classes: The names of the classes.
        targets: The class number, or the labels, of each file.
    """

    def __init__(self, reader: Any, classes: list[str], targets: np.ndarray) -> None:
        self.reader, self.classes, self.targets = reader, classes, targets

    def name(self, i: int) -> str:
        return printable(self.reader.name(i))

    def read(self, i: int) -> bytes:
        return self.reader.read(i)


def sort_into_splits(paths: Sequence[tuple[str, ...]]) -> dict[str, list[tuple[int, str]]]:
    """Sorts image files into splits by their paths, for layouts with and without folders for the splits.

    Folders above the layout, as archives often have one, are skipped. Files that are no images are left out.

    Args:
        paths: The folders and the name of each file.

    Returns:
        For each split, and for ELSEWHERE, the index in `paths` and the class of each image.
    """
    images = [(i, path) for i, path in enumerate(paths) if is_image_path(path)]
    while images and all(len(path) > 2 for _, path in images) and len({path[0] for _, path in images}) == 1:
        if _split_name(images[0][1][0]):
            break
        images = [(i, path[1:]) for i, path in images]
    above = {_split_name(path[0]) for _, path in images if len(path) > 2}
    # Folders that are all called val and test are splits, not classes, even without one called train.
    only_splits = bool(above) and all(_split_name(path[0]) for _, path in images)
    with_splits = "train" in above or only_splits
    splits: dict[str, list[tuple[int, str]]] = {}
    elsewhere: list[tuple[int, str]] = []
    for i, path in images:
        split = _split_name(path[0]) if with_splits else "train"
        below = path[1:] if with_splits else path
        if split is not None and len(below) > 1:
            splits.setdefault(split, []).append((i, below[0]))
        elif split == "val":
            # An empty val is an error later; without it, one would be cut from train in its stead.
            splits.setdefault(split, [])
        else:
            elsewhere.append((i, ""))
    return splits | ({ELSEWHERE: elsewhere} if splits and elsewhere else {})


def _split_name(folder: str) -> str | None:
    """The split that a folder of this name holds, if it is a name of one."""
    return SPLIT_NAMES.get(folder.lower())


def _splits_of_files(
    spec: str, paths: list[tuple[str, ...]], files: list[Any], make: Callable[[list[Any]], Any]
) -> dict[str, Source]:
    """Makes a source of each split.

    Args:
        spec: What messages call the data.
        paths: The folders and the name of each file.
        files: What a reader needs to know of each file.
        make: Makes a reader of some of `files`.
    """
    splits: dict[str, Source] = {}
    for split, entries in sort_into_splits(paths).items():
        if not entries:
            raise DataError(f"{spec}: the {split} split has images, but not in class folders; {LAYOUT}")
        classes = sorted({name for _, name in entries})
        number = {name: k for k, name in enumerate(classes)}
        targets = np.array([number[name] for _, name in entries], dtype=np.int64)
        splits[split] = Files(make([files[i] for i, _ in entries]), classes, targets)
    if not splits:
        found = f"{len(paths)} files, but no images in class folders" if paths else "it is empty"
        raise DataError(f"{spec}: {found}; {LAYOUT}")
    return splits


def tarfile_is_compressed(path: Path) -> bool:
    """Whether a tar file is packed by gzip, bzip2 or xz."""
    with open(path, "rb") as file:
        return file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"))


def _tar_index(path: Path) -> tuple[list[tuple[str, ...]], list[Any], Callable[[list[Any]], Any]]:
    """Lists the members of a tar file: their paths, what a reader needs to know of them, and what makes the reader."""
    try:
        with tarfile.open(path) as archive:
            members = sorted((m for m in archive if m.isfile()), key=lambda m: m.name)
            paths = [pieces(m.name) for m in members]
            names = [m.name.replace("\\", "/") for m in members]
            # A file called .tar may still be compressed; then its members have no place in it from which to read.
            if not tarfile_is_compressed(path):
                return (
                    paths,
                    [(str(path), n, m.offset_data, m.size) for n, m in zip(names, members, strict=True)],
                    TarReader,
                )
            contents = [archive.extractfile(m).read() for m in members]  # type: ignore[union-attr]
    except TAR_ERRORS as error:
        raise DataError(f"{path}: not a readable tar file ({str(error).splitlines()[0]})") from None
    whole = [(f"{path}/{name}", content) for name, content in zip(names, contents, strict=True)]
    return paths, whole, lambda kept: MemoryReader([n for n, _ in kept], [c for _, c in kept])


def find_tables(root: Path, paths: list[tuple[str, ...]]) -> dict[str, Path]:
    """Finds the tables of labels of a folder: labels.csv in it, or in the folder of each split.

    Args:
        root: The folder.
        paths: The folders and the name of each file below it.

    Returns:
        The tables by the name of their split.
    """
    tables: dict[str, Path] = {}
    for path in sorted((path for path in paths if path[-1] == "labels.csv"), key=len):
        split = "train" if len(path) == 1 else _split_name(path[0])
        if split is not None and len(path) <= 2:
            tables[split] = root.joinpath(*path)
    return tables


def _labelled_splits(tables: dict[str, Path]) -> dict[str, Source]:
    """Makes a source of each split from its table of labels."""
    splits: dict[str, Source] = {}
    for split, table in tables.items():
        entries, folder = _read_labels(table), table.parent
        classes = sorted({label for _, labels in entries for label in labels})
        targets = np.zeros((len(entries), len(classes)), dtype=np.float32)
        for i, (_, labels) in enumerate(entries):
            targets[i, [classes.index(label) for label in labels]] = 1
        missing = [name for name, _ in entries if not (folder / name).is_file()]
        if missing:
            raise DataError(f"{table}: names a file that is not there: {missing[0]}")
        splits[split] = Files(FolderReader(folder, [name for name, _ in entries]), classes, targets)
    return splits


def _read_labels(table: Path) -> list[tuple[str, list[str]]]:
    """Reads files and their labels from a table with the columns file and labels; | separates several labels."""
    try:
        text = table.read_bytes().decode("utf-8-sig")  # Excel begins its files with a mark
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: not in UTF-8 ({error.reason} at byte {error.start}); save it so") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if not set(reader.fieldnames or ()) >= {"file", "labels"}:
        raise DataError(f"{table}: the first line must be: file,labels")
    # A line without a comma has no labels.
    return [(row["file"] or "", [s for s in (row["labels"] or "").split("|") if s]) for row in reader]


def open_shards(spec: str) -> dict[str, Source]:
    """Opens WebDataset shards: tar files with KEY.jpg and KEY.cls for each image.

    The shards are indexed once, so that any image can be read at any time.

    Args:
        spec: A tar file, a pattern like PATH-{000..010}.tar, or a folder of tar files. The names of the files may begin
            with train, val or test.

    Raises:
        DataError: A shard is missing or cannot be read, or an image has no label or an unknown one.
    """
    path = Path(spec)
    try:
        shards = [str(p) for p in sorted(path.glob("*.tar"))] if path.is_dir() else list(braceexpand.braceexpand(spec))
    except ValueError as error:
        raise DataError(f"wds/{spec}: {error}") from None
    missing = [shard for shard in shards if not Path(shard).exists()]
    if missing or not shards:
        raise DataError(f"wds/{spec}: no such shard: {missing[0] if missing else path / '*.tar'}")
    listed = Path(shards[0]).parent / "classes.txt"
    groups: dict[str, list[str]] = {}
    for shard in shards:
        word = re.match(r"[a-z]*", Path(shard).name.lower())
        groups.setdefault(SPLIT_NAMES.get(word.group() if word else "", "train"), []).append(shard)
    try:
        classes = [c for c in listed.read_text("utf-8-sig").split("\n") if c] if listed.exists() else None
        return {split: _shard_source(files, classes) for split, files in groups.items()}
    except (*TAR_ERRORS, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(
            f"wds/{spec}: a shard or its classes.txt cannot be read ({str(error).splitlines()[0]})"
        ) from None


def _shard_source(shards: list[str], classes: list[str] | None) -> Source:
    """Makes one source of shards.

    Args:
        shards: The paths of the tar files.
        classes: The names of the classes, if classes.txt gives them; otherwise the labels are the names.
    """
    members, labels = [], []
    for shard in shards:
        samples: dict[str, dict[str, tarfile.TarInfo]] = {}
        with tarfile.open(shard) as archive:
            for member in archive:
                folder, _, file = member.name.rpartition("/")
                key, _, ending = file.partition(".")
                if member.isfile() and ending:
                    samples.setdefault(f"{folder}/{key}", {})["." + ending.lower()] = member
            for key, files in samples.items():
                image = next((m for end, m in files.items() if end in IMAGE_ENDINGS and is_image_name(m.name)), None)
                if image is None:
                    continue
                label = _shard_label(archive, files)
                if not label:
                    raise DataError(f"{shard}: {key} has no .cls (and no .json with a label)")
                members.append((shard, image.name, image.offset_data, image.size))
                labels.append(label)
    numbers = all(label.isdigit() for label in labels)
    if classes is None:
        classes = sorted(set(labels), key=lambda s: (int(s), s) if numbers else (0, s))
    elif numbers:
        labels = [classes[int(label)] if int(label) < len(classes) else label for label in labels]
    number = {name: k for k, name in enumerate(classes)}
    unknown = next((i for i, label in enumerate(labels) if label not in number), None)
    if unknown is not None:
        where = "/".join(members[unknown][:2])
        raise DataError(f"{where}: class {labels[unknown]} is not in classes.txt, which has {len(classes)} classes")
    return Files(TarReader(members), classes, np.array([number[label] for label in labels], dtype=np.int64))


def _shard_label(archive: tarfile.TarFile, files: dict[str, tarfile.TarInfo]) -> str:
    """Reads the label of a sample from its .cls or .json; it is empty if there is none."""
    if ".cls" in files:
        return archive.extractfile(files[".cls"]).read().decode().strip()  # type: ignore[union-attr]
    if ".json" in files:
        content = json.loads(archive.extractfile(files[".json"]).read())  # type: ignore[union-attr]
        return str(content.get("label", content.get("cls", "")))
    return ""
