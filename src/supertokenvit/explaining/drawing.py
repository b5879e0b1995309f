"""Pictures of explanations: the photograph with what spoke for a class, and against it, in colour."""

from collections.abc import Iterator, Sequence

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
    """Draws the borders of the windows, each with its share in percent; nothing where the model has no windows."""
    if explanation.windows is None:
        return image
    return marked(image, explanation, [f"{100 * share:.0f} %" for share in explanation.windows.flatten()])


def paint_talk(image: Image.Image, explanation: Explanation, listened: np.ndarray) -> Image.Image:
    """Paints which windows the window that gave most listened to; that window has an orange frame.

    Args:
        image: The upright photograph, RGB.
        explanation: Of it, by a model with windows.
        listened: How much each window (row) holds of each window (column), [gh*gw, gh*gw] (see talk.listened).
    """
    assert explanation.windows is not None
    listener = int(np.abs(explanation.windows).argmax())
    heard = listened[listener].copy()
    others = np.delete(heard, listener)
    top = max(float(others.max(initial=0)), 1e-12)
    painted = Image.fromarray((0.6 * np.asarray(image, dtype=np.float32)).round().astype(np.uint8))
    bright = image.copy()
    for number, (left, upper, right, lower) in enumerate(rectangles(explanation)):
        opacity = 1.0 if number == listener else min(1.0, float(heard[number]) / top)
        x, y = round(max(left, 0)), round(max(upper, 0))
        area = x, y, round(min(right, image.width)), round(min(lower, image.height))
        painted.paste(Image.blend(painted.crop(area), bright.crop(area), opacity), (x, y))
    return marked(painted, explanation, [f"{100 * share:.0f} %" for share in heard], framed=listener)


def marked(
    image: Image.Image, explanation: Explanation, texts: Sequence[str], framed: int | None = None
) -> Image.Image:
    """Draws the borders of the windows, each with a text, and a thick orange border around the framed one."""
    draw = ImageDraw.Draw(image)
    thin, size = max(1, min(image.size) // 300), max(10, min(image.size) // 24)
    places = list(rectangles(explanation))
    for place, text in zip(places, texts, strict=True):
        draw.rectangle(place, outline="white", width=thin)
        draw.text(
            (place[0] + 4, place[1] + 4), text, fill="white", font_size=size, stroke_width=thin, stroke_fill="black"
        )
    if framed is not None:
        draw.rectangle(places[framed], outline=tuple(map(int, FOR)), width=4 * thin)
    return image


def rectangles(explanation: Explanation) -> Iterator[tuple[float, float, float, float]]:
    """Yields left, upper, right and lower edge of each window in the photograph, row by row."""
    assert explanation.windows is not None and explanation.window is not None
    box, (height, width) = explanation.box, explanation.window
    for i, j in np.ndindex(explanation.windows.shape):
        x, y = box.left + width * j, box.top + height * i
        yield x, y, min(x + width, box.right), min(y + height, box.bottom)
