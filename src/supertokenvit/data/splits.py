"""Opens a data set and cuts it into the splits train, val and test.

`read_splits` gives the splits as they are stored. `open_splits` makes them ready for training: class numbers agree, and
a validation split is cut off if there is none. `open_split` gives one split to measure a trained model on.
"""

import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from .cuts import split_by_names, split_by_position, stratified_split
from .formats import AS_IT_LOOKS, open_path
from .layout import LAYOUT
from .libraries import open_digits, open_hf, open_torchvision
from .masks import Reading
from .shards import open_shards
from .sources import DataError, Source, Stored, Subset, class_name, renamed, unlabelled_images

PREFIXES = {"wds/": open_shards, "hfds/": open_hf, "torch/": open_torchvision}
DIGITS_TEST_FRACTION = 0.2


@dataclass
class Splits:
    """The splits of a data set, ready for training.

    Args:
        train: The images to learn from.
        val: The images to choose by.
        test: The images to measure once, at the end.
        rule: How the validation split came about, in words for the run folder.
        val_is_own: Whether the data came with the validation split; otherwise it was cut from the training split.
        left_out: What of the data is not read, and what else a person should know of it; a line for each.
    """

    train: Source
    val: Source | None
    test: Source | None
    rule: str
    val_is_own: bool = False
    left_out: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class TrainedOn:
    """What a model remembers of the data that it was trained on.

    Args:
        fingerprint: The fingerprint of its training images.
        val_fraction: The fraction that was cut off for validation.
        seed: The seed of the cut.
        kept: Keys (Source.key) of the images that were cut off for validation, if they are known.
    """

    fingerprint: str
    val_fraction: float = 0.1
    seed: int = 0
    kept: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Inherited:
    """What is known of the images that a starting model was trained on.

    Args:
        name: Of the starting model, for messages.
        classes: Its classes.
        trained_on: What it remembers of its data.
    """

    name: str
    classes: Sequence[str]
    trained_on: TrainedOn


def read_splits(spec: str, reading: Reading = AS_IT_LOOKS) -> Stored:
    """Reads the splits of a data set as they are stored: train, val and test, as many as there are.

    Args:
        spec: One of these: a folder of class folders, with or without train, val and test above them; the same as
            .tar, .tar.gz or .zip; `wds/SHARDS`; `hfds/NAME`; `torch/NAME`; `digits`; a folder of images with masks or
            boxes.
        reading: What the data does not say itself.

    Raises:
        DataError: The data is not there, cannot be read, or is not in a known format.
    """
    if spec == "digits":
        digits = open_digits()
        train, test = split_by_position(digits.targets, DIGITS_TEST_FRACTION, seed=0)
        return Stored({"train": Subset(digits, train), "test": Subset(digits, test)})
    for prefix, opener in PREFIXES.items():
        if spec.startswith(prefix):
            return opener(spec.removeprefix(prefix))
    if not is_there(spec):
        raise DataError(f"{spec}: not there; {LAYOUT}, or one of wds/SHARDS, hfds/NAME, torch/NAME, digits")
    return open_path(spec, reading)


def is_there(spec: str) -> bool:
    """Says whether there is a file or folder of that name; of what libraries open, they will say so themselves."""
    return spec == "digits" or spec.startswith(tuple(PREFIXES)) or Path(spec).exists()


def open_splits(
    spec: str,
    *,
    val_fraction: float = 0.1,
    seed: int = 0,
    inherited: Inherited | None = None,
    reading: Reading = AS_IT_LOOKS,
) -> Splits:
    """Opens a data set for training.

    Without a validation split, one is cut from the training split. A test split is never used for it.

    Args:
        spec: The data, as in read_splits.
        val_fraction: The fraction of the training images to cut off.
        seed: The seed of the cut.
        inherited: What the starting model was trained on, if there is one: what it kept for validation is kept again,
            so that no image that it has learned is used to choose by.
        reading: As in read_splits.

    Raises:
        DataError: The data is not there, is empty, has one class only, or its splits disagree.
    """
    splits = _for_training(spec, read_splits(spec, reading))
    if splits.val_is_own:
        return splits
    cut, rule = None, None
    if inherited is not None and val_fraction > 0:
        cut, rule = _cut_as_before(splits.train, inherited, val_fraction, seed)
    if cut is None:
        cut = stratified_split(splits.train, val_fraction, seed)[1]
        said = f"{val_fraction:g} of each class, ranked by a hash of seed {seed}, class and file name"
        rule = f"{len(cut)} images cut from the {len(splits.train)} training images: {said}" + (rule or "")
    return _cut(splits, cut, rule or "")


def open_as_trained(spec: str, trained_on: TrainedOn, reading: Reading = AS_IT_LOOKS) -> Splits | None:
    """Opens a data set with the cut that a training made, or returns None if it is not the data of that training.

    Args:
        spec: The data, as in read_splits.
        trained_on: What the training remembers.
        reading: As in read_splits.

    Raises:
        DataError: The data cannot be read.
    """
    return _as_trained(spec, read_splits(spec, reading), trained_on)


def data_found(spec: str, home: str | None) -> str:
    """Returns where data lies that was named by a path relative to another folder.

    Args:
        spec: The data as it was named, as in read_splits.
        home: The folder in which it was named so, if that is known.

    Returns:
        The name that leads there from here: the same one if there is nothing at the other place.
    """
    prefix = next((prefix for prefix in PREFIXES if spec.startswith(prefix)), "")
    path = spec.removeprefix(prefix)
    if home is None or spec == "digits" or os.path.isabs(path):
        return spec
    there = os.path.join(home, path)
    folder = os.path.dirname(there) if "{" in path else there  # a pattern of shards
    return prefix + there if os.path.exists(folder) else spec


def open_split(
    spec: str,
    split: str | None,
    *,
    trained_on: TrainedOn | None,
    must_be_known: bool = False,
    reading: Reading = AS_IT_LOOKS,
) -> tuple[Source, str, list[str]]:
    """Opens one split of a data set, to measure a model on it.

    Data without splits is cut as it was for training if it is what the model was trained on. Otherwise all of its
    images are given, under the name "all".

    Args:
        spec: The data, as in read_splits.
        split: "train", "val" or "test"; None for test if there is one, else val, else all that is there.
        trained_on: What the model was trained on, if that is known.
        must_be_known: Refuse data without splits unless the model was trained on it.
        reading: As in read_splits.

    Returns:
        The images; the name of what they are: "train", "val", "test" or "all"; and what is left out, in lines.

    Raises:
        DataError: The data cannot be read, there is no such split, or the data must be known and is not.
    """
    stored = read_splits(spec, reading)
    labelled = {name: source for name, source in stored.splits.items() if not unlabelled_images(source)}
    source, name = _chosen(spec, split, stored, labelled, trained_on, must_be_known)
    return source, name, stored.left_out


def _chosen(
    spec: str,
    split: str | None,
    stored: Stored,
    labelled: dict[str, Source],
    trained_on: TrainedOn | None,
    must_be_known: bool,
) -> tuple[Source, str]:
    """Chooses the split to measure on; see open_split."""
    wanted = split or next((name for name in ("test", "val") if name in labelled), None)
    if wanted in labelled and (wanted != "train" or "val" in labelled):
        return labelled[wanted], wanted
    if not labelled:
        raise DataError(f"{spec}: no labelled images in it; name other data with --data")
    if wanted == "test" or "train" not in labelled:
        raise DataError(
            f"{spec}: there is no {wanted} split, only {', '.join(labelled)}; choose with --split, or name other data "
            "with --data"
        )
    splits = None if trained_on is None else _as_trained(spec, stored, trained_on)
    if splits is not None and splits.val is not None:
        return (splits.train, "train") if wanted == "train" else (splits.val, "val")
    if must_be_known:
        raise DataError(
            f"{spec}: no longer the images that the model was trained on (files or labels differ), so it is not known "
            "which were for validation; name others with --data"
        )
    if wanted == "val":
        raise DataError(f"{spec}: there is no val split; without --split all images are measured")
    return labelled["train"], "all"


def fingerprint(source: Source) -> str:
    """Returns 16 hexadecimal digits that change with the file names, labels or classes of a source.

    Neither the pixels nor the place where the data lies count, so a data set may be moved.
    """
    digest = hashlib.sha256("\n".join(source.classes).encode())
    for i in range(len(source)):
        digest.update(b"\0" + source.key(i).encode())
    digest.update(np.ascontiguousarray(source.targets).tobytes())
    for i in range(len(source)):
        digest.update(source.label_bytes(i))
    return digest.hexdigest()[:16]


def _cut(splits: Splits, cut: np.ndarray, rule: str) -> Splits:
    """Takes some training images for validation."""
    if not len(cut):
        return replace(splits, rule=rule)
    rest = np.setdiff1d(np.arange(len(splits.train)), cut)
    return replace(splits, train=Subset(splits.train, rest), val=Subset(splits.train, cut), rule=rule)


def _cut_as_before(
    train: Source, inherited: Inherited, val_fraction: float, seed: int
) -> tuple[np.ndarray | None, str]:
    """Cuts off what the starting model kept for validation, and a fraction of the classes that it does not know.

    Returns:
        The indices to cut off, and the rule in words; or None, and words to add to the rule of another cut.
    """
    before = inherited.trained_on
    cut = np.empty(0, dtype=np.int64)
    if before.kept:
        cut = split_by_names(train, before.kept)[1]
        if not len(cut):
            return None, f"; none of the validation images of {inherited.name} is here: taken for other data"
    else:
        for rest, found in _cuts(train, before):
            if fingerprint(Subset(train, rest)) == before.fingerprint:
                cut = found
        if not len(cut):
            return None, (
                f"; which images {inherited.name} was trained on is not known: if some of these are among them, the "
                "validation figures are too good"
            )
    rule = f"{len(cut)} images that {inherited.name} kept for validation too"
    known = set(map(class_name, inherited.classes))
    fresh = [k for k, name in enumerate(train.classes) if class_name(name) not in known]
    of_new = np.flatnonzero(np.isin(train.targets, fresh)) if not train.multi_label else np.empty(0, dtype=np.int64)
    if len(of_new):
        more = of_new[stratified_split(Subset(train, of_new), val_fraction, seed)[1]]
        cut = np.union1d(cut, more)
        rule += f", and {len(more)} of classes that are new to it: {val_fraction:g} of each, by a hash of seed {seed}"
    return cut, rule


def _cuts(train: Source, trained_on: TrainedOn) -> list[tuple[np.ndarray, np.ndarray]]:
    """The cuts that a training may have made: by the names it kept, by hash, and as older versions did."""
    fraction, seed = trained_on.val_fraction, trained_on.seed
    found = [split_by_names(train, trained_on.kept)] if trained_on.kept else []
    return [*found, stratified_split(train, fraction, seed), split_by_position(train.targets, fraction, seed)]


def _as_trained(spec: str, stored: Stored, trained_on: TrainedOn) -> Splits | None:
    """The splits as a model's training had them, or None if it was not trained on this data."""
    try:
        splits = _for_training(spec, stored)
    except DataError:  # data of one class, for example, can be measured, but not trained on
        return None
    if splits.val_is_own:
        return splits if fingerprint(splits.train) == trained_on.fingerprint else None
    for rest, cut in _cuts(splits.train, trained_on):
        if fingerprint(Subset(splits.train, rest)) == trained_on.fingerprint:
            return _cut(splits, cut, f"{len(cut)} images, as the training cut them")
    return None


def _for_training(spec: str, stored: Stored) -> Splits:
    """Checks stored splits and matches their classes by name; a validation split is not cut off yet."""
    left_out = list(stored.left_out)
    if "train" not in stored.splits:
        raise DataError(f"{spec}: no training images: expected train/CLASS/IMAGE, or CLASS/IMAGE without splits")
    train = stored.splits["train"]
    unlabelled = {name: unlabelled_images(source) for name, source in stored.splits.items()}
    for name in ("train", "val"):
        if unlabelled.get(name):
            raise DataError(
                f"{spec}: {unlabelled[name]} images of the {name} split have no label; label or remove them"
            )
    _check_training_images(spec, train)
    others = {
        name: renamed(stored.splits[name], train.classes, f"{spec}: the {name} split")
        for name in ("val", "test")
        if name in stored.splits and not unlabelled[name]
    }
    rule = ""
    if "val" in others:
        missing = sorted(set(train.classes) - set(map(class_name, stored.splits["val"].classes)))
        rule = f"the data's own validation split of {len(others['val'])} images"
        rule += f"; it has no images of {', '.join(missing)}" if missing else ""
    if unlabelled.get("test"):
        left_out.append(f"the test split: {unlabelled['test']} of its images have no label")
    return Splits(train, others.get("val"), others.get("test"), rule, "val" in others, left_out)


def _check_training_images(spec: str, train: Source) -> None:
    """Refuses training images that are none, or of one class, or whose classes have names that cannot be written."""
    if len(train) == 0:
        raise DataError(f"{spec}: no images in it: expected CLASS/IMAGE with a folder for each class")
    # Python writes bytes that are no text as letters from \ud800 to \udfff.
    odd = next((name for name in train.classes if any("\ud800" <= letter <= "\udfff" for letter in name)), None)
    if odd is not None:
        raise DataError(f"{spec}: the name of class {ascii(odd)} is not in UTF-8: rename its folder")
    if train.task in ("segmentation", "detection"):
        if not train.classes:
            what = "no box in its annotations" if train.task == "detection" else "no class in its masks"
            raise DataError(f"{spec}: {what}")
        return
    present = train.classes if train.multi_label else [train.classes[c] for c in np.unique(train.targets)]
    if len(present) < 2:
        raise DataError(
            f"{spec}: one class only ({', '.join(present)}): expected CLASS/IMAGE with a folder for each of two or "
            "more classes"
        )
