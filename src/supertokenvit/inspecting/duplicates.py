"""This module finds the nearest others of images by their embeddings, and says by their pixels which show the same."""

from collections.abc import Callable, Iterator

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from torch import Tensor

from ..data.decode import in_threads
from ..machine import cores

BLOCK = 1024  # images whose similarities to all others are in memory at once
SIDE = 16  # pixels of a thumbnail's sides: compression and resizing change hardly anything there
FLAT = 50.0  # added to variances (of values to 255): an even area differs from another only by its colour
SAME = 0.93  # agreement from which on two images are taken for the same picture


def nearest(embeddings: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Finds the others with the largest cosine similarities, exactly.

    Args:
        embeddings: float32 [N, C].
        count: Others for each, if there are so many.

    Returns:
        Places [N, count] of the others, the nearest first, and their similarities.
    """
    unit = F.normalize(torch.tensor(embeddings), dim=1)
    count = min(count, len(unit) - 1)
    found = [_nearest_of(unit, start, count) for start in range(0, len(unit), BLOCK)]
    return torch.cat([places for _, places in found]).numpy(), torch.cat([values for values, _ in found]).numpy()


def _nearest_of(unit: Tensor, start: int, count: int) -> tuple[Tensor, Tensor]:
    """Similarities and places of the nearest others of one block."""
    similar = unit[start : start + BLOCK] @ unit.T
    itself = torch.arange(len(similar))
    similar[itself, start + itself] = -torch.inf
    return similar.topk(count, dim=1)


def thumbnails(image_of: Callable[[int], Image.Image], count: int) -> Iterator[np.ndarray]:
    """Yields each image as uint8 [SIDE, SIDE, 3], whatever its shape.

    Args:
        image_of: Returns an image by its number.
        count: How many there are.
    """

    def small(number: int) -> np.ndarray:
        image = image_of(number).convert("RGB")
        return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BOX, reducing_gap=3))

    yield from in_threads(small, count, cores())


def agreement(these: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Says how far thumbnails show the same, mirrored or not: 1 for the same, about 0 for pictures of nothing common.

    It is 1 - mean((a - b)^2) / (var(a) + var(b)) over the pixels, which for pictures of the same mean and contrast is
    their correlation.

    Args:
        these: uint8 [n, SIDE, SIDE, 3].
        others: Likewise, one for each.

    Returns:
        float [n].
    """
    a = these.astype(np.float32)
    spread = a.var((1, 2)).mean(-1) + FLAT
    best = np.full(len(a), -np.inf)
    for b in (others.astype(np.float32), others[:, :, ::-1].astype(np.float32)):
        apart = ((a - b) ** 2).mean((1, 2, 3))
        best = np.maximum(best, 1 - apart / (spread + b.var((1, 2)).mean(-1)))
    return best


def agreements(small: np.ndarray, places: np.ndarray) -> np.ndarray:
    """Compares each image with its nearest others.

    Args:
        small: Thumbnails [N, SIDE, SIDE, 3].
        places: From `nearest`, [N, count].

    Returns:
        Agreement [N, count].
    """
    blocks = range(0, len(small), BLOCK)
    columns = [
        np.concatenate([agreement(small[s : s + BLOCK], small[places[s : s + BLOCK, k]]) for s in blocks])
        for k in range(places.shape[1])
    ]
    return np.stack(columns, axis=1)


def groups_of(places: np.ndarray, same: np.ndarray) -> list[list[int]]:
    """Joins images that are the same as one another into groups of two or more, in the order of their first images.

    Args:
        places: From `nearest`, [N, count].
        same: Whether each pair shows the same, [N, count].
    """
    one, which = np.nonzero(same)
    other = places[one, which]
    total = len(places)
    _, number = connected_components(coo_array((np.ones(len(one)), (one, other)), shape=(total, total)), directed=False)
    groups: dict[int, list[int]] = {}
    for place, group in enumerate(number.tolist()):
        groups.setdefault(group, []).append(place)
    return [group for group in groups.values() if len(group) > 1]
