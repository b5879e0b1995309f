"""The formats in which labelled images come: folder, archive, WebDataset shards, Hugging Face, torchvision, digits."""

import csv
import io
import json
import os
import re
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import braceexpand
import numpy as np
from PIL import Image

from .decode import IMAGE_ENDINGS, to_rgb
from .readers import FolderReader, MemoryReader, TarReader, ZipReader
from .sources import DataError, Source, Subset, stratified_split

SPLIT_NAMES = {name: name for name in ("train", "val", "test")}
SPLIT_NAMES |= {"training": "train", "valid": "val", "validation": "val", "testing": "test"}
ELSEWHERE = "elsewhere"  # images that are in no part or no class folder
TAR_ERRORS = (tarfile.TarError, EOFError, zlib.error)
LAYOUT = "expected CLASS/IMAGE, or train/CLASS/IMAGE with val and test beside train"


def open_parts(spec: str) -> dict[str, Source]:
    """The parts of a data set by name: train, val, test, as many as there are; ELSEWHERE what belongs to none of them.

    Args:
        spec: As in sources.open_splits.

    Raises:
        DataError: It is not there or not of a known format.
    """
    if spec == "digits":
        return open_digits()
    for prefix, opener in (("wds/", open_shards), ("hfds/", open_hf), ("torch/", open_torchvision)):
        if spec.startswith(prefix):
            return opener(spec.removeprefix(prefix))
    path = Path(spec)
    if not path.exists():
        raise DataError(f"{spec}: not there; {LAYOUT}, or one of wds/SHARDS, hfds/NAME, torch/NAME, digits")
    if path.is_dir():
        files = list_files(path)
        tables = {Path(f).parent.as_posix(): path / f for f in files if Path(f).name == "labels.csv"}
        tables = {where: p for where, p in tables.items() if where == "." or where.lower() in SPLIT_NAMES}
        if tables:
            return _labelled_parts(path, tables)
        return _parts_of_paths(spec, files, lambda kept: FolderReader(path, kept))
    if path.name.endswith(".zip"):
        try:
            with zipfile.ZipFile(path) as archive:
                members = [info.filename for info in archive.infolist() if not info.is_dir()]
        except zipfile.BadZipFile as error:
            raise DataError(f"{spec}: not a readable zip file ({error})") from None
        return _parts_of_paths(spec, sorted(members), lambda kept: ZipReader(path, kept))
    if path.name.endswith((".tar", ".tar.gz", ".tgz")):
        return _parts_of_paths(spec, *_tar_index(path))
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
        return self.reader.name(i)

    def read(self, i: int) -> bytes:
        return self.reader.read(i)


def list_files(root: Path) -> list[str]:
    """Paths below a folder, in order; folders that are links are entered, unless they lead back up."""
    files: list[Path] = []
    for top, folders, names in os.walk(root, followlinks=True):
        here = Path(top)
        folders[:] = [f for f in folders if not here.resolve().is_relative_to((here / f).resolve())]
        files += [here / name for name in names]
    return [str(p.relative_to(root)) for p in sorted(files) if p.is_file()]


def split_paths(files: list[str]) -> dict[str, list[tuple[int, str]]]:
    """Sorts paths by part: (index, class) of each image file, for layouts with and without parts.

    Folders above the layout, as archives often have one, are skipped. Files that are no images by their ending, and
    hidden ones, are left out.
    """
    images: list[tuple[int, tuple[str, ...]]] = []
    for i, file in enumerate(files):
        pieces = Path(file).parts
        if Path(file).suffix.lower() in IMAGE_ENDINGS and not any(p.startswith((".", "__MACOSX")) for p in pieces):
            images.append((i, pieces))
    while images and all(len(p) > 2 for _, p in images) and len({p[0] for _, p in images}) == 1:
        if SPLIT_NAMES.get(images[0][1][0].lower()):
            break
        images = [(i, p[1:]) for i, p in images]
    parts: dict[str, list[tuple[int, str]]] = {}
    elsewhere: list[tuple[int, str]] = []
    deep = {SPLIT_NAMES.get(p[0].lower()) for _, p in images if len(p) > 2}
    # folders that are all called val and test are parts, not classes, though train is not among them
    with_parts = "train" in deep or bool(deep) and None not in {SPLIT_NAMES.get(p[0].lower()) for _, p in images}
    for i, pieces in images:
        part = SPLIT_NAMES.get(pieces[0].lower()) if with_parts else "train"
        below = pieces[1:] if with_parts else pieces
        if part is not None and len(below) > 1:
            parts.setdefault(part, []).append((i, below[0]))
        elif part == "val":
            parts.setdefault(part, [])  # so that it is missed, instead of being cut from train
        else:
            elsewhere.append((i, ""))
    return parts | ({ELSEWHERE: elsewhere} if parts and elsewhere else {})


def _parts_of_paths(
    spec: str, files: list[str], make: Callable[[list[Any]], Any], kept: Any = None
) -> dict[str, Source]:
    kept = files if kept is None else kept
    parts: dict[str, Source] = {}
    for part, entries in split_paths(files).items():
        if not entries:
            raise DataError(f"{spec}: the {part} part has images, but not in class folders; {LAYOUT}")
        classes = sorted({name for _, name in entries})
        number = {name: k for k, name in enumerate(classes)}
        targets = np.array([number[name] for _, name in entries], dtype=np.int64)
        parts[part] = Files(make([kept[i] for i, _ in entries]), classes, targets)
    if not parts:
        found = f"{len(files)} files, but no images in class folders" if files else "it is empty"
        raise DataError(f"{spec}: {found}; {LAYOUT}")
    return parts


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


def _labelled_parts(root: Path, tables: dict[str, Path]) -> dict[str, Source]:
    """Parts with a labels.csv (columns file, labels; several labels are separated by |)."""
    parts: dict[str, Source] = {}
    rows: dict[str, list[tuple[str, list[str]]]] = {}
    for where, table in tables.items():
        part = "train" if where == "." else SPLIT_NAMES.get(where.lower(), "")
        if not part:
            continue
        with open(table, newline="") as file:
            reader = csv.DictReader(file)
            if not set(reader.fieldnames or ()) >= {"file", "labels"}:
                raise DataError(f"{table}: the first line must be: file,labels")
            # a line without a comma has no labels
            rows[part] = [(row["file"], [s for s in (row["labels"] or "").split("|") if s]) for row in reader]
    for part, entries in rows.items():
        classes = sorted({label for _, labels in entries for label in labels})
        targets = np.zeros((len(entries), len(classes)), dtype=np.float32)
        for i, (_, labels) in enumerate(entries):
            targets[i, [classes.index(label) for label in labels]] = 1
        folder = next(
            t.parent for w, t in tables.items() if ("train" if w == "." else SPLIT_NAMES.get(w.lower())) == part
        )
        missing = [name for name, _ in entries if not (folder / name).exists()]
        if missing:
            raise DataError(f"{folder / 'labels.csv'}: names a file that is not there: {missing[0]}")
        parts[part] = Files(FolderReader(folder, [name for name, _ in entries]), classes, targets)
    return parts


def open_shards(spec: str) -> dict[str, Source]:
    """WebDataset shards: tar files of KEY.jpg with KEY.cls; indexed once, so that access is random.

    Args:
        spec: A tar file, a pattern like PATH-{000..010}.tar, or a folder of tar files; the names of files in a folder
            may begin with train, val or test.
    """
    path = Path(spec)
    shards = [str(p) for p in sorted(path.glob("*.tar"))] if path.is_dir() else list(braceexpand.braceexpand(spec))
    missing = [shard for shard in shards if not Path(shard).exists()]
    if missing or not shards:
        raise DataError(f"wds/{spec}: no such shard: {missing[0] if missing else path / '*.tar'}")
    listed = Path(shards[0]).parent / "classes.txt"
    classes = [c for c in listed.read_text().split("\n") if c] if listed.exists() else None
    groups: dict[str, list[str]] = {}
    for shard in shards:
        word = re.match(r"[a-z]*", Path(shard).name.lower())
        groups.setdefault(SPLIT_NAMES.get(word.group() if word else "", "train"), []).append(shard)
    try:
        return {part: _shard_source(files, classes) for part, files in groups.items()}
    except (*TAR_ERRORS, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"wds/{spec}: a shard cannot be read ({str(error).splitlines()[0]})") from None


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


class HfSource(Source):
    """A split of a Hugging Face dataset.

    Args:
        table: The split.
        what: For messages.
    """

    def __init__(self, table: Any, what: str) -> None:
        import datasets

        features = table.features
        image = next((n for n, f in features.items() if isinstance(f, datasets.Image)), None)
        label = next((n for n in ("label", "labels", "fine_label", "class", "target") if n in features), None)
        if image is None or label is None:
            raise DataError(f"{what}: no column of images and labels; there are {', '.join(features)}")
        self.table, self.what, self.column = table.cast_column(image, datasets.Image(decode=False)), what, image
        self.rows = self.table.with_format("arrow")
        kind, values = features[label], list(table[label])
        empty = next((i for i, value in enumerate(values) if value is None), None)
        if not values or empty is not None:
            raise DataError(f"{what}: " + (f"row {empty} has no {label}" if values else "no images in it"))
        names = getattr(kind, "names", None) or getattr(getattr(kind, "feature", None), "names", None)
        if isinstance(values[0], (list, tuple)):
            self.classes = list(names or sorted({str(v) for row in values for v in row}))
            self.targets = np.zeros((len(values), len(self.classes)), dtype=np.float32)
            for i, row in enumerate(values):
                self.targets[i, [v if names else self.classes.index(str(v)) for v in row]] = 1
        else:
            self.classes = list(names or sorted({str(v) for v in values}))
            numbers = values if names else [self.classes.index(str(v)) for v in values]
            self.targets = np.array(numbers, dtype=np.int64)

    def name(self, i: int) -> str:
        # Arrow's row is a view: the image in it is not read
        return self.rows[i].column(self.column)[0]["path"].as_py() or f"{self.what}/{i}"

    def read(self, i: int) -> bytes:
        cell = self.table[i][self.column]
        return cell["bytes"] if cell["bytes"] is not None else Path(cell["path"]).read_bytes()


def open_hf(name: str) -> dict[str, Source]:
    """A Hugging Face dataset: a folder from save_to_disk, or what datasets.load_dataset takes."""
    try:
        import datasets
    except ImportError:
        raise DataError(f"hfds/{name}: needs the extra hf: pip install 'supertoken[hf]'") from None
    try:
        saved = any((Path(name) / file).exists() for file in ("dataset_dict.json", "state.json"))
        found = datasets.load_from_disk(name) if saved else datasets.load_dataset(name)
    except Exception as error:
        raise DataError(f"hfds/{name}: {str(error).splitlines()[0]}") from error
    tables = found if isinstance(found, dict) else {"train": found}
    known = {part: table for part, table in tables.items() if part in SPLIT_NAMES}
    return {SPLIT_NAMES[part]: HfSource(table, f"hfds/{name}/{part}") for part, table in known.items()}


class Arrays(Source):
    """Images that are at hand as PIL images or arrays.

    Args:
        get: Gives the image of an index.
        classes: Names.
        targets: Class numbers.
        what: For names.
    """

    def __init__(self, get: Callable[[int], Image.Image], classes: list[str], targets: np.ndarray, what: str) -> None:
        self.get, self.classes, self.targets, self.what = get, classes, targets, what

    def name(self, i: int) -> str:
        return f"{self.what}/{i}"

    def read(self, i: int) -> bytes:
        file = io.BytesIO()
        self.get(i).save(file, "PNG")
        return file.getvalue()

    def image(self, i: int) -> Image.Image:
        return to_rgb(self.get(i))


def open_torchvision(name: str) -> dict[str, Source]:
    """One of torchvision's named sets by timm's name, such as cifar10; `cifar10:FOLDER` says where it lies."""
    from timm.data import create_dataset

    name, _, root = name.partition(":")
    where = root or str(Path.home() / ".cache" / "supertoken" / name)
    parts: dict[str, Source] = {}
    for part in ("train", "validation"):
        try:
            data = create_dataset(f"torch/{name}", root=where, split=part, download=not Path(where).exists())
        except Exception as error:
            reason = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise DataError(f"torch/{name}: {reason} (looked in {where})") from error
        classes = [str(c) for c in getattr(data, "classes", [])]
        numbers = data.targets if hasattr(data, "targets") else [t for _, t in data]  # MNIST's are a tensor
        targets = np.array([int(t) for t in numbers], dtype=np.int64)
        classes = classes or [str(k) for k in range(targets.max() + 1)]
        # torchvision's sets have train and test; timm calls the latter validation
        parts["train" if part == "train" else "test"] = Arrays(
            PairImage(data), classes, targets, f"torch/{name}/{part}"
        )
    return parts


class PairImage:
    """The image of an (image, label) pair of a dataset.

    Args:
        data: The dataset.
    """

    def __init__(self, data: Any) -> None:
        self.data = data

    def __call__(self, i: int) -> Image.Image:
        return self.data[i][0]


class DigitImage:
    """An image of scikit-learn's digits.

    Args:
        images: [N, 8, 8] with values from 0 to 16.
    """

    def __init__(self, images: np.ndarray) -> None:
        self.images = (images * (255 / 16)).round().astype(np.uint8)

    def __call__(self, i: int) -> Image.Image:
        return Image.fromarray(self.images[i])


def open_digits() -> dict[str, Source]:
    """scikit-learn's 1,797 handwritten digits of 8 x 8 pixels; a fifth of each is the test part, in a fixed order."""
    from sklearn.datasets import load_digits

    data = load_digits()
    whole = Arrays(DigitImage(data.images), [str(k) for k in range(10)], data.target.astype(np.int64), "digits")
    train, test = stratified_split(whole.targets, 0.2, 0)
    return {"train": Subset(whole, train), "test": Subset(whole, test)}
