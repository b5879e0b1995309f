"""Pictures of explanations: the photograph with what spoke for a class, and against it, in colour."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from .explanation import Explanation

FOR, AGAINST = np.array([255, 70, 0]), np.array([0, 90, 255])
STRONGEST = 0.75  # opacity of the largest value
FADED = 0.35  # of the photograph's own colour that is taken out where nothing speaks


def overlay(image: Image.Image, explanation: Explanation, *, windows: bool = False) -> Image.Image:
    """Paints an explanation over its photograph.

    Args:
        image: The upright photograph, RGB.
        explanation: Of it.
        windows: Draw the borders of the windows with the share of each.
    """
    values = explanation.map / max(float(np.abs(explanation.map).max(initial=0)), 1e-12)
    pixels = np.asarray(image, dtype=np.float32)
    grey = pixels.mean(2, keepdims=True)
    faded = pixels + FADED * (grey - pixels)
    opacity = (STRONGEST * np.abs(values) ** 0.8)[..., None]
    colour = np.where(values[..., None] >= 0, FOR, AGAINST)
    painted = Image.fromarray(((1 - opacity) * faded + opacity * colour).round().astype(np.uint8))
    return with_windows(painted, explanation) if windows else painted


def with_windows(image: Image.Image, explanation: Explanation) -> Image.Image:
    """Draws the borders of the windows, each with its share in percent."""
    box, (gh, gw) = explanation.box, explanation.windows.shape
    height, width = (
        share * length
        for share, length in zip(explanation.window, (box.bottom - box.top, box.right - box.left), strict=True)
    )
    draw = ImageDraw.Draw(image)
    for i in range(gh):
        for j in range(gw):
            x, y = box.left + width * j, box.top + height * i
            right, bottom = min(x + width, box.right), min(y + height, box.bottom)
            draw.rectangle((x, y, right, bottom), outline="white", width=max(1, min(image.size) // 300))
            share = f"{100 * explanation.windows[i, j]:.0f} %"
            draw.text((x + 4, y + 4), share, fill="white", stroke_width=1, stroke_fill="black")
    return image


def draw_grid(path: Path, pictures: Sequence[tuple[Image.Image, Sequence[Explanation]]]) -> None:
    """Draws photographs, each with its explanations beside it, as a PNG.

    Args:
        path: Of the picture.
        pictures: Upright photographs with explanations of their classes.
    """
    from matplotlib.figure import Figure

    columns = 1 + max(len(found) for _, found in pictures)
    figure = Figure(figsize=(2.6 * columns, 2.9 * len(pictures)), layout="constrained")
    axes = figure.subplots(len(pictures), columns, squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for row, (image, found) in zip(axes, pictures, strict=True):
        small = image.copy()
        small.thumbnail((400, 400))
        row[0].imshow(np.asarray(small))
        row[0].set_title(Path(found[0].file).name[-28:], fontsize=8, parse_math=False)
        for axis, explanation in zip(row[1:], found, strict=False):
            painted = overlay(image, explanation)
            painted.thumbnail((400, 400))
            axis.imshow(np.asarray(painted))
            axis.set_title(f"{explanation.label} {100 * explanation.probability:.0f} %", fontsize=8, parse_math=False)
    figure.savefig(path, dpi=110)
