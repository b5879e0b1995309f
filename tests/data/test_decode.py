import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from supertokenvit.data.decode import BadImage, decode


def encoded(image, kind="PNG", **options):
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def huge_png(side=30_000):
    """A PNG whose header promises side x side pixels and whose data is next to nothing."""

    def chunk(kind, content):
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"0")) + chunk(b"IEND", b"")


def clear_palette():
    """A palette image whose only colour is transparent."""
    return encoded(Image.new("P", (6, 4), 0), transparency=0)


GREY = Image.fromarray(np.full((4, 6), 100, np.uint8))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (encoded(GREY), (100, 100, 100)),
        (encoded(Image.fromarray(np.full((4, 6), 100 * 257, np.uint16))), (100, 100, 100)),
        (encoded(Image.fromarray(np.full((4, 6), 200, np.uint16))), (1, 1, 1)),
        (encoded(Image.fromarray(np.full((4, 6), 2**31 - 1, np.int32)), "TIFF"), (127, 127, 127)),
        (encoded(Image.fromarray(np.full((4, 6), 0.2, np.float32)), "TIFF"), (51, 51, 51)),
        (encoded(Image.fromarray(np.full((4, 6), np.nan, np.float32)), "TIFF"), (0, 0, 0)),
        (clear_palette(), (255, 255, 255)),
        (encoded(Image.new("LA", (6, 4), (10, 0))), (255, 255, 255)),
        (encoded(Image.new("RGBA", (6, 4), (10, 20, 30, 255))), (10, 20, 30)),
        (encoded(Image.new("RGBA", (6, 4), (10, 20, 30, 0))), (255, 255, 255)),
        (encoded(Image.new("RGB", (6, 4), (10, 20, 30)).quantize(4)), (10, 20, 30)),
        (encoded(Image.new("1", (6, 4), 1)), (255, 255, 255)),
        (encoded(Image.new("CMYK", (6, 4), (0, 0, 0, 0)), "JPEG"), (255, 255, 255)),
        (encoded(Image.new("RGB", (6, 4), (0, 0, 255)), "BMP"), (0, 0, 255)),
    ],
    ids=[
        "grey",
        "16 bit",
        "dark 16 bit",
        "32 bit",
        "float",
        "not a number",
        "clear palette",
        "grey and alpha",
        "opaque",
        "transparent",
        "palette",
        "1 bit",
        "CMYK",
        "BMP",
    ],
)
def test_every_mode_becomes_rgb(data, expected):
    image = decode(data, "x")
    assert image.mode == "RGB" and image.size == (6, 4)
    assert image.getpixel((0, 0)) == expected


def test_animated_image_gives_its_first_frame():
    frames = [Image.new("RGB", (6, 4), colour) for colour in ("red", "lime")]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert decode(data, "x").getpixel((0, 0)) == (255, 0, 0)


def test_exif_rotation_is_applied():
    image = Image.new("RGB", (6, 4))
    exif = image.getexif()
    exif[0x0112] = 6
    assert decode(encoded(image, "JPEG", exif=exif), "x").size == (4, 6)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"hello, this is no image", "not an image"),
        (encoded(Image.new("RGB", (4, 4)), "EPS"), "not an image"),
        (encoded(Image.effect_noise((64, 64), 90), "JPEG")[:900], "damaged"),
        (encoded(Image.effect_noise((64, 64), 90))[:900], "damaged"),
    ],
    ids=["empty", "text", "EPS", "truncated JPEG", "truncated PNG"],
)
def test_bad_files_are_named_with_the_reason(data, reason):
    with pytest.raises(BadImage, match=f"^cat.png: .*{reason}"):
        decode(data, "cat.png")


def test_decompression_bomb_is_refused_before_it_is_decoded():
    with pytest.raises(BadImage, match="over the limit"):
        decode(huge_png(), "bomb.png")


def test_large_images_under_the_limit_decode_without_a_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)  # Pillow warns above it
    assert decode(encoded(GREY), "x").size == (6, 4)


def test_decoding_in_threads_leaves_the_warning_filters_as_they_were():
    before = list(warnings.filters)
    data = encoded(Image.new("RGB", (64, 64)), "JPEG")
    threads = [threading.Thread(target=lambda: [decode(data, "x") for _ in range(30)]) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before


@given(st.binary(max_size=200), st.integers(0, 60))
def test_random_bytes_never_raise_anything_else(noise, cut):
    for data in (noise, encoded(GREY)[:cut] + noise):
        try:
            assert decode(data, "x").mode == "RGB"
        except BadImage:
            pass


def test_odd_metadata_are_no_damage():
    entries = struct.pack("<HHIIHHIHH", 0x010E, 5, 1, 38, 0x0112, 3, 1, 6, 0)  # a description that is a ratio; 6: turn
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 2) + entries + struct.pack("<III", 0, 1, 2)
    data = encoded(Image.fromarray(np.zeros((4, 8, 3), np.uint8)), "JPEG", exif=exif)
    assert decode(data, "a.jpg").size == (4, 8)


def test_a_png_with_a_long_text_or_profile_is_a_sound_image():
    """Pillow refuses more than a megabyte of them, and such images were called damaged."""
    info = PngImagePlugin.PngInfo()
    info.add_text("workflow", "a" * 3_000_000, zip=True)
    for options in ({"pnginfo": info}, {"icc_profile": bytes(2_000_000)}):
        assert decode(encoded(Image.new("RGB", (5, 3)), **options), "x").size == (5, 3)


def test_a_file_that_could_start_another_program_is_not_opened():
    """Pillow opens an EPS, also inside an IPTC file, with Ghostscript."""
    eps = encoded(Image.new("RGB", (4, 4)), "EPS")
    fields = b"\x1c\x03\x0a\x00\x01\x01" + b"\x1c\x03\x14\x00\x02\x00\x04" + b"\x1c\x03\x1e\x00\x02\x00\x04"
    fields += b"\x1c\x03\x3c\x00\x01\x01" + b"\x1c\x03\x78\x00\x01\x01"
    wrapped = fields + b"\x1c\x08\x0a" + len(eps).to_bytes(2, "big") + eps
    for data in (eps, wrapped):
        with pytest.raises(BadImage, match="not an image"):
            decode(data, "x.jpg")
