"""Opening a data set: the splits as they are stored, the splits ready for training, and one split to measure on."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .formats import ELSEWHERE, open_path, open_shards
from .libraries import open_digits, open_hf, open_torchvision
from .sources import DataError, Source, Subset, renamed, stratified_split, unlabelled_images

OPENERS: dict[str, Callable[[str], dict[str, Source]]] = {
    "wds/": open_shards,
    "hfds/": open_hf,
    "torch/": open_torchvision,
}


@dataclass
class Splits:
    """The splits of a data set, ready for training.

    Args:
        train: Images to learn from.
        val: Images to choose by.
        test: Images to report on once.
        rule: How the validation split came about, in words, for the run folder.
        own_val: Whether the data came with a validation split; else it was cut from the training images.
    """

    train: Source
    val: Source | None
    test: Source | None
    rule: str
    own_val: bool = False


@dataclass(frozen=True)
class TrainedOn:
    """What is known of the images that a model was trained on.

    Args:
        fingerprint: Of the training images.
        val_fraction: Fraction of them that was cut off for validation.
        seed: Of that cut.
    """

    fingerprint: str
    val_fraction: float
    seed: int


def read_splits(spec: str) -> dict[str, Source]:
    """Opens the splits of a data set as they are stored: train, val, test, as many as there are.

    Images that belong to none of them are under formats.ELSEWHERE.

    Args:
        spec: As in open_splits.

    Raises:
        DataError: It is not there or not of a known format.
    """
    if spec == "digits":
        return open_digits()
    for prefix, opener in OPENERS.items():
        if spec.startswith(prefix):
            return opener(spec.removeprefix(prefix))
    return open_path(spec)


def open_splits(spec: str, *, val_fraction: float = 0.1, seed: int = 0) -> Splits:
    """Opens a data set for training. Without a validation split, one is cut from the training images, never from test.

    Args:
        spec: Folder of class folders, with or without train, val and test above them; the same as .tar, .tar.gz or
            .zip; `wds/SHARDS`; `hfds/NAME`; `torch/NAME`; `digits`.
        val_fraction: Fraction of the training images to cut off.
        seed: Random seed of the cut.

    Raises:
        DataError: It is not there, is empty, has one class only, or its splits disagree.
    """
    splits = read_splits(spec)
    elsewhere = splits.pop(ELSEWHERE, None)
    if "train" not in splits:
        raise DataError(f"{spec}: no training images: expected train/CLASS/IMAGE, or CLASS/IMAGE without splits")
    train = splits["train"]
    if len(train) == 0:
        raise DataError(f"{spec}: no images in it: expected CLASS/IMAGE with a folder for each class")
    odd = next((name for name in train.classes if any("\ud800" <= letter <= "\udfff" for letter in name)), None)
    if odd is not None:  # Python's letters for bytes that are no text
        raise DataError(f"{spec}: the name of class {ascii(odd)} is not in UTF-8: rename its folder")
    unlabelled = {name: unlabelled_images(split) for name, split in splits.items()}
    for name in ("train", "val"):
        if unlabelled.get(name):
            raise DataError(
                f"{spec}: {unlabelled[name]} images of the {name} split have no label; label or remove them"
            )
    present = train.classes if train.multi_label else [train.classes[c] for c in np.unique(train.targets)]
    if len(present) < 2:
        raise DataError(
            f"{spec}: one class only ({', '.join(present)}): expected CLASS/IMAGE with a folder for each of two or "
            "more classes"
        )
    others = {
        name: renamed(splits[name], train.classes, f"{spec}: the {name} split")
        for name in ("val", "test")
        if name in splits and not unlabelled[name]
    }
    val: Source | None = others.get("val")
    if val is not None:
        missing = sorted(set(train.classes) - set(splits["val"].classes))
        rule = f"the data's own validation split of {len(val)} images"
        rule += f"; it has no images of {', '.join(missing)}" if missing else ""
    else:
        rest, cut = stratified_split(train.targets, val_fraction, seed)
        if len(cut):
            val = Subset(train, cut)
            train = Subset(train, rest)
        rule = (
            f"{len(cut)} images cut from the {len(cut) + len(rest)} training images: {val_fraction:g} of each class, "
            f"in the order of seed {seed}"
        )
    if unlabelled.get("test"):
        rule += f"; the test split is left out: {unlabelled['test']} of its images have no label"
    if elsewhere is not None:
        rule += f"; left out: {len(elsewhere)} images in no split or no class folder, such as {elsewhere.name(0)}"
    return Splits(train, val, others.get("test"), rule, own_val="val" in others)


def open_split(
    spec: str, split: str | None, *, trained_on: TrainedOn | None = None, own_data: bool = False
) -> tuple[Source, str]:
    """Opens the labelled images to measure a trained model on, and says which split they are.

    Args:
        spec: As in open_splits.
        split: Which one; by default test, else the validation images, else all that is there ("all").
        trained_on: What is known of the model's training images.
        own_data: The images are to be those that the model was trained on.

    Raises:
        DataError: The data cannot be read or has no such split, or it has changed, so that the validation images of
            the training are not known any more.
    """
    splits = {name: source for name, source in read_splits(spec).items() if not unlabelled_images(source)}
    splits.pop(ELSEWHERE, None)
    split = split or next((name for name in ("test", "val") if name in splits), None)
    if split in splits and (split != "train" or "val" in splits):
        return splits[split], split
    if split == "test" or "train" not in splits:
        raise DataError(f"{spec}: there is no {split} split")
    cut = _as_trained(spec, trained_on)
    if cut is not None and cut.val is not None:
        return (cut.train, "train") if split == "train" else (cut.val, "val")
    if own_data:
        raise DataError(
            f"{spec}: no longer the images that the model was trained on (files or labels differ), so it is not known "
            "which were for validation; name others with --data"
        )
    if split == "val":
        raise DataError(f"{spec}: there is no val split; without --split all images are measured")
    return splits["train"], "all"


def _as_trained(spec: str, trained_on: TrainedOn | None) -> Splits | None:
    """Opens the splits as a model's training had them, if it was trained on this data."""
    if trained_on is None:
        return None
    try:
        splits = open_splits(spec, val_fraction=trained_on.val_fraction, seed=trained_on.seed)
    except DataError:  # such as one class only, which can be measured, but not trained on
        return None
    return splits if fingerprint(splits.train) == trained_on.fingerprint else None


def fingerprint(source: Source) -> str:
    """Returns 16 hexadecimal digits that change with the file names, labels or classes of a source.

    Neither pixels nor the place where the data lies count: a data set may be moved.
    """
    digest = hashlib.sha256("\n".join(source.classes).encode())
    for i in range(len(source)):
        digest.update(b"\0" + "/".join(Path(source.name(i)).parts[-2:]).encode())
    digest.update(np.ascontiguousarray(source.targets).tobytes())
    return digest.hexdigest()[:16]
