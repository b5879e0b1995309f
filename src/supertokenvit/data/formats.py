"""The formats of files in which labelled images come: folder, archive, table of labels, WebDataset shards."""

import csv
import io
import json
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Any

import braceexpand
import numpy as np

from .decode import IMAGE_ENDINGS, printable
from .listing import is_image_name, list_files
from .readers import FolderReader, MemoryReader, TarReader, ZipReader
from .sources import SPLIT_NAMES, DataError, Source

ELSEWHERE = "elsewhere"  # images that are in no split or no class folder
TAR_ERRORS = (tarfile.TarError, EOFError, zlib.error)
LAYOUT = "expected CLASS/IMAGE, or train/CLASS/IMAGE with val and test beside train"


def open_path(spec: str) -> dict[str, Source]:
    """Opens the splits of a folder or an archive; images that are in none of them are under ELSEWHERE.

    Args:
        spec: Path of a folder of class folders, or of a .tar, .tar.gz or .zip of one.

    Raises:
        DataError: It is not there or not of a known format.
    """
    path = Path(spec)
    if not path.exists():
        raise DataError(f"{spec}: not there; {LAYOUT}, or one of wds/SHARDS, hfds/NAME, torch/NAME, digits")
    if path.is_dir():
        files = list_files(path)
        tables = {Path(f).parent.as_posix(): path / f for f in files if Path(f).name == "labels.csv"}
        tables = {where: p for where, p in tables.items() if where == "." or where.lower() in SPLIT_NAMES}
        if tables:
            return _labelled_splits(tables)
        return _splits_of_paths(spec, files, lambda kept: FolderReader(path, kept))
    if path.name.endswith(".zip"):
        try:
            with zipfile.ZipFile(path) as archive:
                members = sorted(info.filename for info in archive.infolist() if not info.is_dir())
        except zipfile.BadZipFile as error:
            raise DataError(f"{spec}: not a readable zip file ({error})") from None
        return _splits_of_paths(spec, members, lambda kept: ZipReader(path, kept))
    if path.name.endswith((".tar", ".tar.gz", ".tgz")):
        return _splits_of_paths(spec, *_tar_index(path))
    raise DataError(f"{spec}: a file, but no .tar, .tar.gz or .zip; {LAYOUT}")


class Files(Source):
    """Image files with their labels.

    Args:
        reader: Gives name and content of each.
        classes: Names.
        targets: Of each file.
    """

    def __init__(self, reader: Any, classes: list[str], targets: np.ndarray) -> None:
        self.reader, self.classes, self.targets = reader, classes, targets

    def name(self, i: int) -> str:
        return printable(self.reader.name(i))

    def read(self, i: int) -> bytes:
        return self.reader.read(i)


def split_paths(files: list[str]) -> dict[str, list[tuple[int, str]]]:
    """Sorts paths by split: (index, class) of each image file, for layouts with and without splits.

    Folders above the layout, as archives often have one, are skipped. What is no image by its name is left out.

    Args:
        files: Paths below the data folder; in archives some write backslashes between folders.
    """
    images: list[tuple[int, tuple[str, ...]]] = []
    for i, file in enumerate(files):
        if is_image_name(file):
            images.append((i, PurePosixPath(file.replace("\\", "/")).parts))
    while images and all(len(p) > 2 for _, p in images) and len({p[0] for _, p in images}) == 1:
        if SPLIT_NAMES.get(images[0][1][0].lower()):
            break
        images = [(i, p[1:]) for i, p in images]
    splits: dict[str, list[tuple[int, str]]] = {}
    elsewhere: list[tuple[int, str]] = []
    deep = {SPLIT_NAMES.get(p[0].lower()) for _, p in images if len(p) > 2}
    # folders that are all called val and test are splits, not classes, though train is not among them
    with_splits = "train" in deep or bool(deep) and None not in {SPLIT_NAMES.get(p[0].lower()) for _, p in images}
    for i, pieces in images:
        split = SPLIT_NAMES.get(pieces[0].lower()) if with_splits else "train"
        below = pieces[1:] if with_splits else pieces
        if split is not None and len(below) > 1:
            splits.setdefault(split, []).append((i, below[0]))
        elif split == "val":
            splits.setdefault(split, [])  # so that it is missed, instead of being cut from train
        else:
            elsewhere.append((i, ""))
    return splits | ({ELSEWHERE: elsewhere} if splits and elsewhere else {})


def _splits_of_paths(
    spec: str, files: list[str], make: Callable[[list[Any]], Any], kept: Any = None
) -> dict[str, Source]:
    kept = files if kept is None else kept
    splits: dict[str, Source] = {}
    for split, entries in split_paths(files).items():
        if not entries:
            raise DataError(f"{spec}: the {split} split has images, but not in class folders; {LAYOUT}")
        classes = sorted({name for _, name in entries})
        number = {name: k for k, name in enumerate(classes)}
        targets = np.array([number[name] for _, name in entries], dtype=np.int64)
        splits[split] = Files(make([kept[i] for i, _ in entries]), classes, targets)
    if not splits:
        found = f"{len(files)} files, but no images in class folders" if files else "it is empty"
        raise DataError(f"{spec}: {found}; {LAYOUT}")
    return splits


def tarfile_is_compressed(path: Path) -> bool:
    """Whether a tar file is packed by gzip, bzip2 or xz."""
    with open(path, "rb") as file:
        return file.read(6).startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0"))


def _tar_index(path: Path) -> tuple[list[str], Callable[[list[Any]], Any], list[Any]]:
    """Names of the members, what makes a reader of some of them, and what to give to it."""
    try:
        with tarfile.open(path) as archive:
            members = sorted((m for m in archive if m.isfile()), key=lambda m: m.name)
            names = [m.name for m in members]
            # a file called .tar may still be compressed, and its members then have no place in it
            if not tarfile_is_compressed(path):
                return names, TarReader, [(str(path), m.name, m.offset_data, m.size) for m in members]
            contents = [(f"{path}/{m.name}", archive.extractfile(m).read()) for m in members]  # type: ignore[union-attr]
    except TAR_ERRORS as error:
        raise DataError(f"{path}: not a readable tar file ({str(error).splitlines()[0]})") from None
    return names, lambda kept: MemoryReader([n for n, _ in kept], [c for _, c in kept]), contents


def _labelled_splits(tables: dict[str, Path]) -> dict[str, Source]:
    """Opens splits with a labels.csv in each."""
    splits: dict[str, Source] = {}
    for where, table in tables.items():
        split = "train" if where == "." else SPLIT_NAMES[where.lower()]
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
    """Files and their labels, from a table with the columns file and labels (several labels are separated by |)."""
    try:
        text = table.read_bytes().decode("utf-8-sig")  # Excel begins its files with a mark
    except UnicodeDecodeError as error:
        raise DataError(f"{table}: not in UTF-8 ({error.reason} at byte {error.start}); save it so") from None
    reader = csv.DictReader(io.StringIO(text, newline=""))
    if not set(reader.fieldnames or ()) >= {"file", "labels"}:
        raise DataError(f"{table}: the first line must be: file,labels")
    # a line without a comma has no labels
    return [(row["file"] or "", [s for s in (row["labels"] or "").split("|") if s]) for row in reader]


def open_shards(spec: str) -> dict[str, Source]:
    """WebDataset shards: tar files of KEY.jpg with KEY.cls; indexed once, so that access is random.

    Args:
        spec: A tar file, a pattern like PATH-{000..010}.tar, or a folder of tar files; the names of files in a folder
            may begin with train, val or test.
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
                image = next((m for ending, m in files.items() if ending in IMAGE_ENDINGS), None)
                if image is None:
                    continue
                if ".cls" in files:
                    label = archive.extractfile(files[".cls"]).read().decode().strip()  # type: ignore[union-attr]
                elif ".json" in files:
                    content = json.loads(archive.extractfile(files[".json"]).read())  # type: ignore[union-attr]
                    label = str(content.get("label", content.get("cls", "")))
                else:
                    label = ""
                if not label:
                    raise DataError(f"{shard}: {key} has no .cls (and no .json with a label)")
                members.append((shard, image.name, image.offset_data, image.size))
                labels.append(label)
    numbers = all(label.isdigit() for label in labels)
    if classes is None:
        found = sorted(set(labels), key=lambda s: (int(s), s) if numbers else (0, s))
        classes = found
    elif numbers:
        labels = [classes[int(label)] if int(label) < len(classes) else label for label in labels]
    number = {name: k for k, name in enumerate(classes)}
    unknown = next((i for i, label in enumerate(labels) if label not in number), None)
    if unknown is not None:
        where = "/".join(members[unknown][:2])
        raise DataError(f"{where}: class {labels[unknown]} is not in classes.txt, which has {len(classes)} classes")
    return Files(TarReader(members), classes, np.array([number[label] for label in labels], dtype=np.int64))
