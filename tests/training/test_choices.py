"""What a first-time user gets without options, and the plan of a time budget."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from supertokenvit.data.sources import Source
from supertokenvit.data.splits import Splits
from supertokenvit.training.choices import fill_in
from supertokenvit.training.pacing import steps_in
from supertokenvit.training.recipe import Recipe

CPU, GPU = torch.device("cpu"), torch.device("cuda")


class Plain(Source):
    """Images of one colour."""

    def __init__(self, count, side, classes):
        self.targets, self.classes, self.side = np.arange(count) % len(classes), classes, side

    def name(self, i):
        return str(i)

    def read(self, i):
        raise NotImplementedError

    def image(self, i, enough=None):
        return Image.new("RGB", (self.side, 2 * self.side))


def chosen(count, side, device=CPU, classes=("cat", "dog"), processes=1, **given):
    recipe, said = fill_in(
        Recipe(**given), Splits(Plain(count, side, list(classes)), None, None, ""), device, processes
    )
    assert all(" = " in line and ": " in line for line in said if "at most" not in line)
    return recipe


@pytest.mark.parametrize(
    ("count", "side", "device", "expected"),
    [
        (200, 28, CPU, {"model": "stt_nano", "img_size": 32, "crop": "shift", "batch_size": 32, "epochs": 100}),
        (50_000, 32, CPU, {"model": "stt_micro", "img_size": 32, "crop": "shift", "batch_size": 256, "epochs": 30}),
        (50_000, 60, CPU, {"model": "stt_micro", "img_size": 64, "crop": "shift"}),
        (2_000, 300, CPU, {"model": "stt_t", "img_size": 112, "crop": "resized", "batch_size": 64, "epochs": 60}),
        (2_000, 300, GPU, {"model": "stt_t", "img_size": 224}),
        (2_000, 180, GPU, {"model": "stt_t", "img_size": 168}),
        (100_000, 300, GPU, {"model": "stt_s14", "img_size": 224}),
    ],
)
def test_choices(count, side, device, expected):
    recipe = chosen(count, side, device)
    assert {name: getattr(recipe, name) for name in expected} == expected
    assert recipe.lr == 3e-3 and recipe.hflip == 0.5


def test_what_is_given_stays():
    given = {"model": "stt_s25", "img_size": 48, "batch_size": 10, "lr": 0.5, "crop": "none", "hflip": 0.1, "epochs": 2}
    recipe = chosen(5_000, 300, **given)
    assert {name: getattr(recipe, name) for name in given} == given
    assert chosen(5_000, 300, minutes=3).epochs is None
    assert chosen(5_000, 300, opt="adamw").lr == 1e-3


@pytest.mark.parametrize(
    ("given", "side"),
    [
        ({"model": "resnet18"}, 224),
        ({"model": "maxvit_rmlp_pico_rw_256"}, 256),
        ({"model": "convnext_atto.d2_in1k"}, 224),
        ({"init": "stt_micro.cifar10"}, 32),
        ({"model": "stt_t"}, 112),
    ],
)
def test_the_size_is_that_of_another_familys_model_or_of_the_start_and_is_said(given, side):
    images = Splits(Plain(2_000, 183, ["cat", "dog"]), None, None, "")
    recipe, said = fill_in(Recipe(**given), images, CPU, 1)
    assert recipe.img_size == side
    (line,) = [line for line in said if line.startswith("img_size = ")]
    assert f"img_size = {side}: " in line and "the images are about 183 px" in line
    if "init" in given:
        assert "that of stt_micro.cifar10" in line and recipe.crop == "shift" and recipe.model is None


def test_characters_are_not_mirrored():
    assert chosen(200, 8, classes="0123456789").hflip == 0 and chosen(200, 8, classes=("a", "bb")).hflip == 0.5


@given(st.integers(4, 400), st.integers(1, 4), st.integers(1, 4))
def test_the_batch_divides_among_processes_and_parts(count, processes, accumulate):
    batch = chosen(count, 8, processes=processes, accumulate=accumulate).batch_size
    assert batch % (processes * accumulate) == 0 and 0 < batch <= max(32, processes * accumulate)


@given(st.floats(0.1, 600), st.floats(1e-5, 1e-1), st.floats(1e-6, 1e-1), st.integers(100, 10**6))
def test_a_plan_ends_within_its_budget(minutes, step, look, train):
    recipe, val = Recipe(batch_size=32, eval_epochs=1.0), train // 10
    steps = steps_in(minutes, recipe, train, val, (step, look))
    epochs = steps * 32 / train
    seconds = steps * 32 * step + epochs * val * look + val * look
    assert seconds <= 60 * minutes or steps == 1
    if steps > 20:  # and takes nearly all of it
        assert seconds > 0.85 * 60 * minutes or val * look > 0.1 * 60 * minutes
