"""Makes sources of WebDataset shards: tar files with KEY.jpg and KEY.cls for each image."""

import json
from collections.abc import Sequence
from pathlib import Path

import braceexpand
import numpy as np

from .archives import tar_members
from .decode import IMAGE_ENDINGS
from .listing import counted, is_image_name, list_folder
from .readers import TarMember, TarReader
from .sources import DataError, Files, Stored, class_name, split_of

SHARD_ENDINGS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst")
LABELS = (".cls", ".json")


def open_shards(spec: str) -> Stored:
    """Opens WebDataset shards.

    The shards are indexed once, so that any image can be read at any time.

    Args:
        spec: A tar file, a pattern like PATH-{000..010}.tar, or a folder of tar files. A word of their names, or of
            their folders', says their split (see layout.split_of); without any such word all are for training.

    Raises:
        DataError: A shard is missing or cannot be read, an image has no label or an unknown one, or the split of a
            shard is not known.
    """
    path = Path(spec)
    try:
        shards = _in_folder(path) if path.is_dir() else [Path(name) for name in braceexpand.braceexpand(spec)]
    except ValueError as error:
        raise DataError(f"wds/{spec}: {error}") from None
    missing = [shard for shard in shards if not shard.exists()]
    if missing or not shards:
        raise DataError(f"wds/{spec}: no such shard: {missing[0] if missing else path / '*.tar'}")
    classes = _listed_classes([path, shards[0].parent] if path.is_dir() else [shards[0].parent])
    stored = Stored({})
    for split, files in _by_split(spec, path if path.is_dir() else None, shards).items():
        stored.splits[split] = Shards(files, classes, stored.left_out)
    return stored


class Shards(Files):
    """The images of some shards.

    Args:
        shards: The paths of the tar files.
        classes: The names of the classes, if classes.txt gives them; otherwise the labels are the names.
        left_out: A list to which lines on what is left out are added.
    """

    def __init__(self, shards: Sequence[Path], classes: list[str] | None, left_out: list[str]) -> None:
        members: list[TarMember] = []
        labels: list[str] = []
        without: list[str] = []
        for shard in shards:
            for key, files in _samples(shard, left_out).items():
                image = next((m for end, m in files.items() if end in IMAGE_ENDINGS and is_image_name(m.name)), None)
                if image is None:
                    without.append(f"{shard}/{key}")
                    continue
                labels.append(_label(shard, key, files))
                members.append(image)
        if without:
            left_out.append(counted("sample without an image", without))
        names, numbers = _numbered(labels, classes, [f"{m.archive}/{m.name}" for m in members])
        super().__init__(TarReader(members), names, np.array(numbers, dtype=np.int64))


def _in_folder(folder: Path) -> list[Path]:
    """The shards in a folder and the folders below it."""
    return [folder / file for file in list_folder(folder).files if file.lower().endswith(SHARD_ENDINGS)]


def _by_split(spec: str, root: Path | None, shards: Sequence[Path]) -> dict[str, list[Path]]:
    """Groups shards by their splits, which their names say, or the names of their folders.

    Raises:
        DataError: Some shards say theirs and others do not.
    """
    groups: dict[str | None, list[Path]] = {}
    for shard in shards:
        below = shard.relative_to(root).parts if root is not None else (shard.name,)
        said = {split for part in below if (split := split_of(part))}
        groups.setdefault(said.pop() if len(said) == 1 else None, []).append(shard)
    unknown = groups.pop(None, [])
    if unknown and groups:
        known = ", ".join(sorted(split for split in groups if split))
        raise DataError(
            f"wds/{spec}: {unknown[0].name} does not say its split, and others do ({known}): put train, val or test "
            "into its name, or move it elsewhere"
        )
    return {split: files for split, files in groups.items() if split} or {"train": unknown}


def _listed_classes(folders: Sequence[Path]) -> list[str] | None:
    """The names of the classes in classes.txt, if there is one."""
    listed = next((folder / "classes.txt" for folder in folders if (folder / "classes.txt").exists()), None)
    if listed is None:
        return None
    try:
        lines = listed.read_text("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{listed}: a list of classes that cannot be read: not in UTF-8 ({error.reason})") from None
    return [class_name(line.strip()) for line in lines if line.strip()]


def _samples(shard: Path, left_out: list[str]) -> dict[str, dict[str, TarMember]]:
    """The files of each sample of a shard, by their endings."""

    def wanted(name: str) -> bool:
        return is_image_name(name) or name.lower().endswith(LABELS)

    found = tar_members(shard, wanted)
    left_out += found.left_out
    samples: dict[str, dict[str, TarMember]] = {}
    # in the order in which they lie in the file: it is read so, and an older version gave them so
    for name, member in sorted(found.files.items(), key=lambda item: item[1].offset):
        folder, _, file = name.rpartition("/")
        key, _, ending = file.partition(".")
        if ending:
            samples.setdefault(f"{folder}/{key}" if folder else key, {})["." + ending.lower()] = member
    return samples


def _label(shard: Path, key: str, files: dict[str, TarMember]) -> str:
    """Reads the label of a sample from its .cls or .json.

    Raises:
        DataError: There is none, or it is neither a word nor a whole number.
    """
    found: object = None
    ending = next((ending for ending in LABELS if ending in files), "")
    try:
        text = TarReader([files[ending]]).read(0).decode() if ending else ""
        found = text.strip()
        if ending == ".json":
            content = json.loads(text)
            if not isinstance(content, dict):
                raise DataError(f"{shard}: {key}.json holds no object with a label, but a {type(content).__name__}")
            found = content.get("label", content.get("cls"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{shard}: {key}{ending} cannot be read as a label ({str(error).splitlines()[0]})") from None
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if found is None or found == "":
        raise DataError(f"{shard}: {key} has no .cls (and no .json with a label)")
    if isinstance(found, bool) or not isinstance(found, (str, int)):
        raise DataError(f"{shard}: the label of {key} is a {type(found).__name__}: expected a word or a whole number")
    return class_name(str(found).strip())


def _numbered(labels: list[str], classes: list[str] | None, names: Sequence[str]) -> tuple[list[str], list[int]]:
    """Returns the classes in order, and the number of each label."""
    numbers = all(label.isdigit() for label in labels)
    if classes is None:
        classes = sorted(set(labels), key=lambda s: (int(s), s) if numbers else (0, s))
    elif numbers:
        labels = [classes[int(label)] if int(label) < len(classes) else label for label in labels]
    number = {name: k for k, name in enumerate(classes)}
    unknown = next((i for i, label in enumerate(labels) if label not in number), None)
    if unknown is not None:
        raise DataError(
            f"{names[unknown]}: class {labels[unknown]} is not in classes.txt, which has {len(classes)} classes"
        )
    return classes, [number[label] for label in labels]
