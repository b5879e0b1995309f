"""What the network sees of a photograph, and where in the photograph it is."""

import io

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from timm.data import create_transform

from supertokenvit.data.decode import decode
from supertokenvit.preprocessing import VIEWS, Preprocess, normalize, views

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)


def config(mode="center", crop_pct=1.0, side=64):
    return {
        "input_size": (3, side, side), "interpolation": "bilinear", "crop_pct": crop_pct, "crop_mode": mode,
        "mean": MEAN, "std": STD,
    }  # fmt: skip


def coordinates(width, height):
    """An image whose red tells the column and whose green the row, each as a fraction of 255."""
    red = np.broadcast_to((np.arange(width) + 0.5) / width * 255, (height, width))
    green = np.broadcast_to(((np.arange(height) + 0.5) / height * 255)[:, None], (height, width))
    return Image.fromarray(np.stack([red, green, np.full_like(red, 255)], -1).round().astype(np.uint8))


@settings(max_examples=40)
@given(
    st.integers(40, 400),
    st.integers(40, 400),
    st.sampled_from(["center", "squash", "border"]),
    st.sampled_from([1.0, 0.875, 0.6]),
)
def test_the_box_is_where_the_square_comes_from(width, height, mode, crop_pct):
    preprocess = Preprocess(config(mode, crop_pct))
    square, box = preprocess(coordinates(width, height)).float(), preprocess.box((width, height))
    inside = square[2] > 250  # a border has another blue
    rows, columns = (torch.arange(64) + 0.5).expand(64, 64).T, (torch.arange(64) + 0.5).expand(64, 64)
    x = (box.left + (box.right - box.left) * columns / 64) / width * 255
    y = (box.top + (box.bottom - box.top) * rows / 64) / height * 255
    edge = torch.zeros(64, 64, dtype=torch.bool)
    edge[3:-3, 3:-3] = True  # at the edges resizing has fewer pixels to average
    pixel = 255 / min(width, height)
    tolerance = 2.0 + 1.5 * pixel
    core = inside & edge & (x > 4 * pixel) & (x < 255 - 4 * pixel) & (y > 4 * pixel) & (y < 255 - 4 * pixel)
    assert core.any()
    assert (square[0] - x)[core].abs().max() < tolerance and (square[1] - y)[core].abs().max() < tolerance
    # what the box has beyond the photograph is border, and nothing else
    beyond = (x < -1) | (x > 256) | (y < -1) | (y > 256)
    assert not (inside & beyond).any()
    if mode != "border":
        assert -1 <= box.left and box.right <= width + 1 and -1 <= box.top and box.bottom <= height + 1


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_the_square_is_that_of_timms_transform(mode):
    image = coordinates(90, 70)
    timms = create_transform(
        (3, 64, 64), crop_mode=mode, crop_pct=0.9, mean=MEAN, std=STD, interpolation="bicubic", is_training=False
    )
    ours = Preprocess(config(mode, 0.9) | {"interpolation": "bicubic"})
    torch.testing.assert_close(normalize(ours(image)[None], MEAN, STD)[0], timms(image))


def jpeg(image, **options):
    file = io.BytesIO()
    image.save(file, "JPEG", quality=95, **options)
    return file.getvalue()


@pytest.mark.parametrize("size", [(640, 480), (481, 640), (1000, 130), (120, 120)])
def test_a_jpeg_decoded_smaller_shows_the_same_square(size):
    preprocess = Preprocess(config(side=32))
    data = jpeg(coordinates(*size))
    whole, small = decode(data, "a"), decode(data, "a", enough=preprocess.enough)
    assert min(small.size) >= min(preprocess.enough, *size)
    assert (small.size != whole.size) == (min(size) >= 2 * preprocess.enough)
    difference = (preprocess(whole).float() - preprocess(small).float()).abs()
    assert difference.max() <= 6 and difference.mean() < 1.5


def test_a_smaller_jpeg_keeps_its_orientation():
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    data = jpeg(coordinates(800, 400), exif=exif)
    assert decode(data, "a").size == (400, 800)
    turned = decode(data, "a", enough=50)
    assert turned.size == (50, 100)


def test_other_formats_are_decoded_whole():
    file = io.BytesIO()
    coordinates(800, 400).save(file, "PNG")
    assert decode(file.getvalue(), "a", enough=10).size == (800, 400)


@pytest.mark.parametrize("tta", VIEWS)
def test_views_are_as_many_as_they_say_and_their_weights_sum_to_one(tta):
    seen = views(torch.randn(2, 3, 16, 16), tta)
    assert len(seen) == VIEWS[tta] and sum(weight for weight, _ in seen) == pytest.approx(1)
    assert all(view.shape == (2, 3, 16, 16) for _, view in seen)


@pytest.mark.parametrize("size", [(1, 900), (900, 1), (3, 200), (200, 21), (40, 500), (1000, 97)], ids=str)
@pytest.mark.parametrize("crop_pct", [1.0, 0.7])
def test_a_very_long_image_shows_the_same_square_as_if_all_of_it_were_resized(size, crop_pct):
    preprocess, image = Preprocess(config(crop_pct=crop_pct)), coordinates(*size)
    whole = preprocess.transform(image).float()
    assert (preprocess(image).float() - whole).abs().max() <= 1


@pytest.mark.parametrize("mode", ["center", "squash", "border"])
@pytest.mark.parametrize("size", [(1, 30_000), (30_000, 1), (2, 40_000)], ids=str)
def test_a_line_of_pixels_takes_no_memory(mode, size):
    """A PNG of a few kB was made 224 x 6,720,000 pixels large, which took gigabytes."""
    import resource

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    square = Preprocess(config(mode, side=224))(Image.new("RGB", size, (9, 99, 200)))
    assert square.shape == (3, 224, 224) and square[2].max() == 200
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB
