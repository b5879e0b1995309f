"""The graph's resizing gives the pixels that Pillow gives."""

import numpy as np
import pytest
import torch
from PIL import Image

from supertokenvit.exporting.options import ExportError
from supertokenvit.exporting.resizing import PhotographResize, floor_of, nearest_of, pillow_may_go_down_first
from supertokenvit.preprocessing import Preprocess

CASES = [
    (mode, crop_pct, size)
    for mode in ("center", "squash", "border")
    for crop_pct, size in [(1.0, (3, 32, 32)), (0.9, (3, 24, 40)), (1.2, (3, 32, 32))]
    if mode != "squash" or crop_pct <= 1  # timm's crop cannot be larger than the image there
]
SHAPES = [(1, 1), (1, 9), (9, 1), (5, 7), (31, 33), (32, 32), (33, 95), (64, 48), (120, 31), (97, 129), (211, 301)]


def config(mode="center", interpolation="bicubic", crop_pct=1.0, size=(3, 32, 32)):
    return {
        "input_size": size, "interpolation": interpolation, "crop_pct": crop_pct, "crop_mode": mode,
        "mean": (0.49, 0.48, 0.45), "std": (0.2, 0.2, 0.2),
    }  # fmt: skip


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("mode", "crop_pct", "size"), CASES)
def test_every_way_of_resizing_gives_pillows_pixels(mode, interpolation, crop_pct, size):
    ours, pillows = (make(config(mode, interpolation, crop_pct, size)) for make in (PhotographResize, Preprocess))
    rng = np.random.default_rng(0)
    differing = total = 0
    for height, width in SHAPES:
        photograph = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        wanted = pillows(Image.fromarray(photograph)).float()
        found = ours(torch.from_numpy(photograph)[None])[0]
        difference = (found - wanted).abs()
        # Pillow computes in whole numbers: what lies between two of them may be rounded to the other one
        assert difference.max() <= 2, (height, width)
        differing, total = differing + int((difference > 0).sum()), total + difference.numel()
    assert differing < 0.015 * total


def test_each_photograph_of_a_batch_is_resized_as_if_alone():
    photographs = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (3, 40, 57, 3), dtype=np.uint8))
    resize = PhotographResize(config())
    together, alone = resize(photographs), torch.cat([resize(photograph[None]) for photograph in photographs])
    assert torch.equal(together, alone) and together.shape == (3, 3, 32, 32)


def test_whole_numbers_are_divided_exactly():
    whole, by = (torch.arange(n, dtype=torch.int64) for n in (200, 21))
    whole, by = whole[:, None], by[None, 1:]
    assert torch.equal(floor_of(whole, by), whole // by)
    rounded = [[round(int(a) / int(b)) for b in by[0]] for a in whole[:, 0]]
    assert nearest_of(whole, by).tolist() == rounded


def test_a_division_that_comes_out_a_little_small_is_set_right(monkeypatch):
    """OpenVINO multiplies by 1 / 427, and so 32 * 427 / 427 was 31."""
    exact = torch.div
    monkeypatch.setattr(torch, "div", lambda a, b, rounding_mode: exact(a * 0.99999, b, rounding_mode="floor").long())
    assert floor_of(torch.tensor([32 * 427, 100]), torch.tensor([427, 7])).tolist() == [32, 14]


def test_the_order_of_the_two_passes_is_that_of_this_pillow():
    lines = Image.fromarray(np.random.default_rng(3).integers(0, 256, (300, 20), dtype=np.uint8))
    whole = np.asarray(lines.resize((40, 10), Image.Resampling.BICUBIC)).astype(int)
    down = np.asarray(lines.resize((20, 10), Image.Resampling.BICUBIC).resize((40, 10), Image.Resampling.BICUBIC))
    assert (np.abs(whole - down).max() == 0) == pillow_may_go_down_first()


@pytest.mark.parametrize(
    ("changes", "named"), [({"interpolation": "box"}, "interpolation box"), ({"crop_mode": "keep"}, "resize=keep")]
)
def test_what_is_not_built_is_refused(changes, named):
    with pytest.raises(ExportError, match=named):
        PhotographResize(config() | changes)
