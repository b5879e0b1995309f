"""Bytes to an upright 8-bit RGB image, whatever kind of image file they are."""

import functools
import io
import os
import threading
import warnings
from types import TracebackType

import numpy as np
from PIL import ExifTags, Image, ImageOps, PngImagePlugin, UnidentifiedImageError

from .errors import UserError

# how the names of image files end; timm knows only three endings
IMAGE_ENDINGS = frozenset(
    (".jpg", ".jpeg", ".jfif", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp", ".gif", ".avif")
)
# what is opened at all: a file may claim any format of Pillow's, and some of those start other programs
FORMATS = ("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "AVIF")  # JPEG has MPO in it
PngImagePlugin.MAX_TEXT_CHUNK = PngImagePlugin.MAX_TEXT_MEMORY  # long texts and colour profiles are no damage
MAX_PIXELS = 100_000_000  # 100 megapixels: 300 MB decoded
Picture = str | os.PathLike | bytes | Image.Image | np.ndarray
MAX_BYTES = 3 * MAX_PIXELS  # no file needs more for so many pixels


class BadImage(UserError):
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


class NotAnImage(BadImage):
    """Content that no decoder knows, so that it is another kind of file."""


def printable(name: str | os.PathLike) -> str:
    r"""The name of a file to show to a person: what of it is no UTF-8 as \xNN."""
    text = os.fspath(name)
    return text if text.isascii() else text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def too_large(name: str) -> BadImage:
    """Makes the error of a file that is larger than any image that is read."""
    return BadImage(name, f"over the limit of {MAX_BYTES / 1e6:g} MB for a file")


def read_file(path: str | os.PathLike) -> bytes:
    """Returns the content of an image file.

    Args:
        path: Of the file.

    Raises:
        BadImage: It is larger than MAX_BYTES; no more than that is read.
        OSError: It cannot be read.
    """
    with open(path, "rb") as file:
        content = file.read(MAX_BYTES + 1)
    if len(content) > MAX_BYTES:
        raise too_large(printable(path))
    return content


@functools.cache
def known_formats() -> tuple[str, ...]:
    """Returns those of FORMATS that this Pillow was built with."""
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)


class _Quiet:
    """Silences Pillow's warnings (size, odd EXIF, palettes) while any thread decodes.

    `warnings.catch_warnings` alone is not safe between threads: leaving in another order than entering would silence
    everything for good.
    """

    def __init__(self) -> None:
        self.lock, self.inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self.lock:
            if self.inside == 0:
                self.before = warnings.catch_warnings()
                self.before.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL\.")
            self.inside += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with self.lock:
            self.inside -= 1
            if self.inside == 0:
                self.before.__exit__(kind, error, trace)


_quiet = _Quiet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_quiet.__init__)  # type: ignore[misc] # the lock may be held by a lost thread


def decode(data: bytes, name: str, max_pixels: int = MAX_PIXELS, *, enough: int | None = None) -> Image.Image:
    """Decodes an image wholly: rotated as its EXIF says, first frame, white behind what is transparent.

    Args:
        data: Content of the file.
        name: For messages.
        max_pixels: Refuse larger images before they take memory.
        enough: Pixels of the shorter side that are enough: a JPEG may be decoded to a half, a quarter or an eighth of
            its size, as long as it keeps so many. The decoder does that at a part of the time.

    Raises:
        BadImage: Empty, no image, truncated, damaged or too large.
    """
    if not data:
        raise BadImage(name, "empty file")
    try:
        with _quiet:
            image = Image.open(io.BytesIO(data), formats=known_formats())
            width, height = image.size
            if width * height > max_pixels:
                raise BadImage(name, f"{width} x {height} pixels: over the limit of {max_pixels / 1e6:g} megapixels")
            if enough is not None and min(image.size) >= 2 * enough:
                factor = min(image.size) // enough
                image.draft(None, (width // factor, height // factor))  # only JPEG can; others stay as they are
            image.load()
            upright = image.getexif().get(ExifTags.Base.Orientation, 1) == 1
            if upright:
                return to_rgb(image)
            for key in ("exif", "Raw profile type exif"):  # or Pillow writes the rest anew, and fails on odd tags
                image.info.pop(key, None)
            return to_rgb(ImageOps.exif_transpose(image))
    except UnidentifiedImageError:
        raise NotAnImage(name, "not an image") from None
    except Image.DecompressionBombError:
        raise BadImage(name, f"over the limit of {max_pixels / 1e6:g} megapixels") from None
    except BadImage:
        raise
    except Exception as error:  # Pillow's readers raise nearly anything on damaged files
        reason = str(error).split("\n")[0] or type(error).__name__
        raise BadImage(name, f"damaged ({reason})") from None


def to_rgb(image: Image.Image) -> Image.Image:
    """8-bit RGB of an image of any mode.

    16 bits are always scaled from 0..65535. 32-bit modes do not say their range: it is the smallest of 0..1 (floats
    only), 0..255, 0..65535 and 0..2^32-1 that holds the brightest pixel. What is negative or no number becomes black.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        pixels = np.nan_to_num(np.asarray(image).astype(np.float64), posinf=0)
        tops = {"I": (255, 65535), "F": (1, 255, 65535)}.get(image.mode, ())
        brightest = pixels.max(initial=0)
        last = 2**32 - 1 if image.mode in ("I", "F") else 65535
        top = next((top for top in tops if brightest <= top), last)
        return Image.fromarray(np.clip(pixels / top * 255, 0, 255).round().astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "LA", "La", "RGBa", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")  # which would copy it


def read_picture(picture: Picture, enough: int | None = None) -> Image.Image:
    """Reads whatever a user calls an image as an upright 8-bit RGB image.

    Args:
        picture: A path, the bytes of a file, a PIL image, or an array uint8 [H, W], [H, W, 3] or [H, W, 4].
        enough: Pixels of the shorter side that are enough (see `decode`).

    Raises:
        BadImage: It is no image, or a damaged one.
        OSError: The file cannot be read.
    """
    if isinstance(picture, (str, os.PathLike)):
        return decode(read_file(picture), printable(picture), enough=enough)
    if isinstance(picture, bytes):
        return decode(picture, "image", enough=enough)
    if isinstance(picture, Image.Image):
        return to_rgb(picture)
    if picture.dtype != np.uint8 or picture.ndim not in (2, 3) or picture.shape[2:] not in ((), (3,), (4,)):
        shape = f"{picture.dtype} {list(picture.shape)}"
        raise BadImage("image", f"an array of {shape}: expected uint8 [H, W], [H, W, 3] or [H, W, 4]")
    return to_rgb(Image.fromarray(picture))
