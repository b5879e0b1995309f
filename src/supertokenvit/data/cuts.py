"""Cuts a validation split off the training images, in a way that does not move when images are added."""

import hashlib
from collections.abc import Sequence, Set

import numpy as np

from .sources import Source


def stratified_split(source: Source, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts off a fraction of the images of each class.

    The images of a class are put in the order of a hash of the seed, the name of the class and their own names, and the
    first of them are cut off. So a further image or class changes nothing for the others, but for one image at the
    border in some classes. `fraction` of each class is cut off, rounded: at least one of a class with two or more
    images, and never a whole class. If images may have several labels, this is done label after label, from the rarest
    on, and then with the images without labels.

    Args:
        source: The images.
        fraction: The fraction to cut off.
        seed: The seed of the order.

    Returns:
        The indices of the images that stay and of those cut off, both ascending.
    """
    cut = np.zeros(len(source), dtype=bool)
    for group, name in _groups(source):
        rank = [rank_of(f"{name}/{source.key(i)}", seed) for i in group]
        order = group[np.argsort(np.array(rank, dtype=np.uint64), kind="stable")]
        wanted = number_cut(len(group), fraction) - int(cut[group].sum())
        cut[order[~cut[order]][: max(0, wanted)]] = True
    return np.flatnonzero(~cut), np.flatnonzero(cut)


def number_cut(count: int, fraction: float) -> int:
    """Returns how many of a class's images are cut off."""
    return min(count - 1, max(1, round(fraction * count))) if fraction > 0 else 0


def rank_of(name: str, seed: int) -> int:
    """Returns a number of 64 bits that depends on a name and a seed alone."""
    text = f"{seed}\0{name}".encode(errors="surrogateescape")
    return int.from_bytes(hashlib.blake2b(text, digest_size=8).digest(), "big")


def _groups(source: Source) -> list[tuple[np.ndarray, str]]:
    """The images of each class, with its name; of labels from the rarest on, and last those without a label."""
    targets = source.targets
    if not source.multi_label:
        order = np.argsort(targets, kind="stable")
        numbers, starts = np.unique(targets[order], return_index=True)
        return [(g, source.classes[c]) for c, g in zip(numbers, np.split(order, starts[1:]), strict=True)]
    counts = targets.sum(0)
    groups = [(np.flatnonzero(targets[:, c] > 0), "") for c in np.argsort(counts, kind="stable") if counts[c]]
    bare = np.flatnonzero(~targets.any(1))
    return groups + ([(bare, "")] if len(bare) else [])


def split_by_names(source: Source, kept: Set[str]) -> tuple[np.ndarray, np.ndarray]:
    """Cuts off the images whose keys are among those that another training kept for validation.

    Args:
        source: The images.
        kept: Keys (Source.key).

    Returns:
        The indices of the images that stay and of those cut off, both ascending.
    """
    cut = np.array([source.key(i) in kept for i in range(len(source))], dtype=bool)
    return np.flatnonzero(~cut), np.flatnonzero(cut)


def split_by_position(targets: np.ndarray, fraction: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Cuts as version 0.1.0 did, in an order that depends on the places of the images in their class.

    Runs and models of that version, and the test images of the digits, were cut so.

    Args:
        targets: [N] or [N, K].
        fraction: The fraction to cut off.
        seed: The seed of the order.

    Returns:
        The indices of the images that stay and of those cut off, both ascending.
    """
    groups: Sequence[np.ndarray] = (
        [np.arange(len(targets))] if targets.ndim == 2 else [np.flatnonzero(targets == c) for c in np.unique(targets)]
    )
    rest, cut = [], []
    for number, group in enumerate(groups):
        order = np.random.default_rng([seed, number]).permutation(group)
        count = number_cut(len(group), fraction)
        cut.append(order[:count])
        rest.append(order[count:])
    return np.sort(np.concatenate(rest)), np.sort(np.concatenate(cut))
