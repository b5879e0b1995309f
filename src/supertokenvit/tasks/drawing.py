"""Pictures of training images."""

from pathlib import Path

import numpy as np
from torch import Tensor


def draw_titled(path: Path, images: Tensor, titles: list[str]) -> None:
    """Draws the first images [N, 3, S, S] of an augmented batch with a title each."""
    from matplotlib.figure import Figure

    n = min(len(images), 24)
    rows = -(-n // 8)
    figure = Figure(figsize=(13, 1.95 * rows), layout="constrained")
    axes = figure.subplots(rows, 8, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images[:n], titles[:n], strict=False):
        axis.imshow(visible(image))
        axis.set_title(title, fontsize=9, parse_math=False)  # a $ in a name is no formula
    figure.savefig(path, dpi=110)


def visible(image: Tensor) -> np.ndarray:
    """Turns a normalised image [3, H, W] into one to look at, [H, W, 3], whose darkest value is 0 and brightest 1."""
    low, high = image.amin(), image.amax()
    return ((image - low) / (high - low).clamp(min=1e-6)).permute(1, 2, 0).numpy()
