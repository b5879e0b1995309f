"""Bytes to an upright 8-bit RGB image, whatever kind of image file they are."""

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from torchvision.datasets.folder import IMG_EXTENSIONS

# how the names of image files end; timm knows only three endings
IMAGE_ENDINGS = frozenset(IMG_EXTENSIONS) | {".gif", ".jfif", ".avif"}
MAX_PIXELS = 100_000_000  # 100 megapixels: 300 MB decoded


class BadImage(Exception):
    """An image that cannot be used: "NAME: reason".

    Args:
        name: Of the file.
        reason: In a few words.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(name, reason)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        return f"{self.name}: {self.reason}"


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """Decodes an image wholly: rotated as its EXIF says, first frame, white behind what is transparent.

    Args:
        data: Content of the file.
        name: For messages.
        max_pixels: Refuse larger images before they take memory.

    Raises:
        BadImage: Empty, no image, truncated, damaged or too large.
    """
    if not data:
        raise BadImage(name, "empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images, odd EXIF and palettes
            image = Image.open(io.BytesIO(data))
            width, height = image.size
            if width * height > max_pixels:
                raise BadImage(name, f"{width} x {height} pixels: over the limit of {max_pixels / 1e6:g} megapixels")
            image.load()
            return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise BadImage(name, "not an image") from None
    except Image.DecompressionBombError:
        raise BadImage(name, f"over the limit of {max_pixels / 1e6:g} megapixels") from None
    except (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, MemoryError) as error:
        reason = str(error).split("\n")[0] or type(error).__name__
        raise BadImage(name, f"damaged ({reason})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of an image of any mode; 16 and 32 bits are scaled, not cut off."""
    if image.mode in ("I;16", "I;16B", "I;16L", "I", "F"):
        pixels = np.asarray(image).astype(np.float64)
        top = (
            1.0
            if image.mode == "F" and pixels.max(initial=0) <= 1
            else 255.0
            if pixels.max(initial=0) <= 255
            else 65535.0
        )
        pixels = np.clip(pixels / top * 255, 0, 255).round()
        return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image.convert("RGB")
