"""Opens a data set and cuts it into the splits train, val and test.

`read_splits` gives the splits as they are stored. `open_splits` makes them ready for training: class numbers agree, and
a validation split is cut off if there is none. `open_split` gives one split to measure a trained model on.
"""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .formats import ELSEWHERE, LAYOUT, open_path, open_shards
from .libraries import open_digits, open_hf, open_torchvision
from .sources import DataError, Source, Subset, renamed, unlabelled_images

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
    """

    train: Source
    val: Source | None
    test: Source | None
    rule: str
    val_is_own: bool = False


@dataclass(frozen=True)
class TrainedOn:
    """What a model remembers of the data that it was trained on.

    Args:
        fingerprint: The fingerprint of its training images.
        val_fraction: The fraction that was cut off for validation.
        seed: The seed of the cut.
    """

    fingerprint: str
    val_fraction: float
    seed: int


def read_splits(spec: str) -> dict[str, Source]:
    """Reads the splits of a data set as they are stored: train, val and test, as many as there are.

    Images that belong to no split are under the key ELSEWHERE.

    Args:
        spec: One of these: a folder of class folders, with or without train, val and test above them; the same as
            .tar, .tar.gz or .zip; `wds/SHARDS`; `hfds/NAME`; `torch/NAME`; `digits`.

    Raises:
        DataError: The data is not there, cannot be read, or is not in a known format.
    """
    if spec == "digits":
        digits = open_digits()
        train, test = stratified_split(digits.targets, DIGITS_TEST_FRACTION, seed=0)
        return {"train": Subset(digits, train), "test": Subset(digits, test)}
    for prefix, opener in PREFIXES.items():
        if spec.startswith(prefix):
            return opener(spec.removeprefix(prefix))
    if not Path(spec).exists():
        raise DataError(f"{spec}: not there; {LAYOUT}, or one of wds/SHARDS, hfds/NAME, torch/NAME, digits")
    return open_path(spec)


def open_splits(spec: str, *, val_fraction: float = 0.1, seed: int = 0) -> Splits:
    """Opens a data set for training.

    Without a validation split, one is cut from the training split. A test split is never used for it.

    Args:
        spec: The data, as in read_splits.
        val_fraction: The fraction of the training images to cut off.
        seed: The seed of the cut.

    Raises:
        DataError: The data is not there, is empty, has one class only, or its splits disagree.
    """
    return _for_training(spec, read_splits(spec), val_fraction, seed)


def open_split(
    spec: str, split: str | None, *, trained_on: TrainedOn | None, must_be_known: bool = False
) -> tuple[Source, str]:
    """Opens one split of a data set, to measure a model on it.

    Data without splits is cut as it was for training if it is what the model was trained on. Otherwise all of its
    images are given, under the name "all".

    Args:
        spec: The data, as in read_splits.
        split: "train", "val" or "test"; None for test if there is one, else val, else all that is there.
        trained_on: What the model was trained on, if that is known.
        must_be_known: Refuse data without splits unless the model was trained on it.

    Returns:
        The images, and the name of what they are: "train", "val", "test" or "all".

    Raises:
        DataError: The data cannot be read, there is no such split, or the data must be known and is not.
    """
    stored = read_splits(spec)
    labelled = {name: source for name, source in stored.items() if name != ELSEWHERE and not unlabelled_images(source)}
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
    splits = _as_trained(spec, stored, trained_on)
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


def stratified_split(targets: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts off a fraction of the images of each class.

    The images of each class are put in an order that depends on the seed and the class number alone. The first
    `fraction` of them, rounded, are cut off: at least one of a class with two or more, and never a whole class. If
    images may have several labels, all of them are put in one order.

    Args:
        targets: [N] or [N, K].
        fraction: The fraction to cut off.
        seed: The seed of the order.

    Returns:
        The indices of the images that stay and of those cut off, both ascending.
    """
    groups = (
        [np.arange(len(targets))] if targets.ndim == 2 else [np.flatnonzero(targets == c) for c in np.unique(targets)]
    )
    rest, cut = [], []
    for number, group in enumerate(groups):
        order = np.random.default_rng([seed, number]).permutation(group)
        count = min(len(group) - 1, max(1, round(fraction * len(group)))) if fraction > 0 else 0
        cut.append(order[:count])
        rest.append(order[count:])
    return np.sort(np.concatenate(rest)), np.sort(np.concatenate(cut))


def fingerprint(source: Source) -> str:
    """Returns 16 hexadecimal digits that change with the file names, labels or classes of a source.

    Neither the pixels nor the place where the data lies count, so a data set may be moved.
    """
    digest = hashlib.sha256("\n".join(source.classes).encode())
    for i in range(len(source)):
        digest.update(b"\0" + "/".join(Path(source.name(i)).parts[-2:]).encode())
    digest.update(np.ascontiguousarray(source.targets).tobytes())
    return digest.hexdigest()[:16]


def _as_trained(spec: str, stored: dict[str, Source], trained_on: TrainedOn | None) -> Splits | None:
    """The splits as a model's training had them, or None if it was not trained on this data."""
    if trained_on is None:
        return None
    try:
        splits = _for_training(spec, stored, trained_on.val_fraction, trained_on.seed)
    except DataError:  # data of one class, for example, can be measured, but not trained on
        return None
    return splits if fingerprint(splits.train) == trained_on.fingerprint else None


def _for_training(spec: str, stored: dict[str, Source], val_fraction: float, seed: int) -> Splits:
    """Checks stored splits, matches their classes by name, and cuts off a validation split if there is none."""
    elsewhere = stored.get(ELSEWHERE)
    stored = {name: source for name, source in stored.items() if name != ELSEWHERE}
    if "train" not in stored:
        raise DataError(f"{spec}: no training images: expected train/CLASS/IMAGE, or CLASS/IMAGE without splits")
    train = stored["train"]
    unlabelled = {name: unlabelled_images(source) for name, source in stored.items()}
    for name in ("train", "val"):
        if unlabelled.get(name):
            raise DataError(
                f"{spec}: {unlabelled[name]} images of the {name} split have no label; label or remove them"
            )
    _check_training_images(spec, train)
    others = {
        name: renamed(stored[name], train.classes, f"{spec}: the {name} split")
        for name in ("val", "test")
        if name in stored and not unlabelled[name]
    }
    val: Source | None = others.get("val")
    val_is_own = val is not None
    if val is not None:
        missing = sorted(set(train.classes) - set(stored["val"].classes))
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
    return Splits(train, val, others.get("test"), rule, val_is_own)


def _check_training_images(spec: str, train: Source) -> None:
    """Refuses training images that are none, or of one class, or whose classes have names that cannot be written."""
    if len(train) == 0:
        raise DataError(f"{spec}: no images in it: expected CLASS/IMAGE with a folder for each class")
    # Python writes bytes that are no text as letters from \ud800 to \udfff.
    odd = next((name for name in train.classes if any("\ud800" <= letter <= "\udfff" for letter in name)), None)
    if odd is not None:
        raise DataError(f"{spec}: the name of class {ascii(odd)} is not in UTF-8: rename its folder")
    present = train.classes if train.multi_label else [train.classes[c] for c in np.unique(train.targets)]
    if len(present) < 2:
        raise DataError(
            f"{spec}: one class only ({', '.join(present)}): expected CLASS/IMAGE with a folder for each of two or "
            "more classes"
        )
