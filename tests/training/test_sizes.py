"""Training on images of several sizes: each batch has one of them."""

import json
import statistics
from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from torchvision.transforms.v2 import functional as V

from supertokenvit.cli import main
from supertokenvit.data.augmentation import Crop, sample_generator
from supertokenvit.data.loading import KeepSquare, Key, StepBatches, TrainImages, size_of_step, train_loader
from supertokenvit.data.splits import open_splits
from supertokenvit.errors import UsageError
from supertokenvit.preprocessing import Preprocess
from supertokenvit.tasks import Classification
from supertokenvit.training import pacing
from supertokenvit.training.choices import fill_in
from supertokenvit.training.pacing import Pace, seconds_per_image
from supertokenvit.training.recipe import Recipe, RecipeError
from supertokenvit.training.run import train_recipe
from supertokenvit.training.starting_model import build, try_out
from supertokenvit.training.step import TrainingStep

from .conftest import TINY, make_folder

SIZES = [12, 16, 24]
DATA = {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center", "mean": (0.5, 0.5, 0.5)}


def test_in_every_round_each_size_has_one_step_and_the_largest_comes_first():
    for seed in range(20):
        drawn = [size_of_step(SIZES, seed, step) for step in range(60)]
        assert all(sorted(drawn[start : start + 3]) == SIZES for start in range(0, 60, 3))
        assert drawn[:3] == [24, 16, 12]
    firsts = Counter(size_of_step(SIZES, seed, 3 * turn) for seed in range(20) for turn in range(1, 21))
    assert all(80 < count < 190 for count in firsts.values())  # of 400


def test_a_size_named_twice_has_twice_as_many_steps():
    drawn = Counter(size_of_step([16, 32, 32], 0, step) for step in range(30))
    assert drawn == {16: 10, 32: 20}


def test_the_size_belongs_to_the_step_wherever_a_run_goes_on_and_whoever_shares_the_batch():
    def sizes(first, share=slice(None)):
        batches = islice(StepBatches(12, 4, sizes=SIZES, seed=3, first=first, share=share), 9)
        found = [{key.size for key in batch} for batch in batches]
        assert all(len(each) == 1 for each in found)
        return [each.pop() for each in found]

    assert sizes(0)[4:] == sizes(4)[:5] and sizes(0) == sizes(0, slice(0, 2)) == sizes(0, slice(2, 4))


@pytest.mark.parametrize("kind", ["shift", "none"])
@pytest.mark.parametrize("size", [12, 16, 24])
def test_crops_of_a_batch_equal_crops_one_by_one_at_every_size(kind, size):
    images = torch.randint(0, 256, (9, 3, 16, 16), dtype=torch.uint8)
    crop, flips = Crop(kind, 1.0), [i % 3 == 0 for i in range(9)]
    batch = crop.batch(images, size, [sample_generator(0, 3, i) for i in range(9)], flips)
    alone = [crop.one(image, size, sample_generator(0, 3, i), flips[i]) for i, image in enumerate(images)]
    assert torch.equal(batch, torch.stack(alone)) and batch.shape == (9, 3, size, size)


@pytest.mark.parametrize(("mode", "crop_pct"), [("center", 1.0), ("center", 0.8), ("squash", 1.0), ("border", 1.0)])
@pytest.mark.parametrize("shape", [(40, 40), (40, 80), (80, 160), (160, 80)])
def test_uncropped_images_of_a_size_are_what_evaluation_shows_at_that_size(mode, crop_pct, shape):
    """Smooth images of sides that no crop rounds: resizing in two steps shows the same as in one."""
    rng = np.random.default_rng(0)
    image = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8)).resize(shape, Image.Resampling.BICUBIC)
    config = DATA | {"crop_mode": mode, "crop_pct": crop_pct}
    kept = KeepSquare(config, 64)(image)
    for size in (24, 32, 64):
        got = Crop("none", 1.0).one(kept, size, np.random.default_rng(0), False)
        wanted = Preprocess(config | {"input_size": (3, size, size)})(image)
        difference = (got.int() - wanted.int()).abs().float()
        assert got.shape == wanted.shape and difference.mean() < 1.5, (size, difference.mean())


def test_small_images_are_kept_as_they_are_and_large_ones_shrunk_to_the_largest_size():
    rng = np.random.default_rng(0)
    for side, kept in ((20, 20), (32, 32), (90, 64)):
        image = Image.fromarray(rng.integers(0, 256, (side, side + 7, 3), dtype=np.uint8))
        square = KeepSquare(DATA, 64)(image)
        assert square.shape == (3, kept, kept)
        if kept == side:  # its own pixels
            assert torch.equal(square, V.center_crop(V.pil_to_tensor(image), [side, side]))


@pytest.mark.parametrize("kind", ["shift", "resized"])
def test_memory_disk_and_workers_give_the_same_batches_of_several_sizes(tmp_path, kind):
    source = open_splits(str(make_folder(tmp_path / "data"))).train
    results = []
    for memory, workers in ((True, 0), (False, 0), (False, 2)):
        images = TrainImages(source, KeepSquare(DATA, 24), Crop(kind, 0.3), hflip=0.5, seed=4, memory=memory)
        loader = train_loader(images, StepBatches(len(images), 5, sizes=SIZES, seed=4, first=0), workers)
        results.append([x for x, _, _, _ in islice(loader, 6)])
        assert {x.shape[-1] for x in results[-1]} == set(SIZES)
    for other in results[1:]:
        assert all(torch.equal(x, x2) for x, x2 in zip(results[0], other, strict=True))


def test_no_image_of_a_batch_decoded_is_an_empty_batch_of_its_size(tmp_path):
    source = open_splits(str(make_folder(tmp_path / "data")), val_fraction=0).train
    images = TrainImages(source, KeepSquare(DATA, 24), Crop("none", 1.0), hflip=0.0, seed=0, memory=False)
    with open(source.name(3), "wb"):
        pass
    assert images.__getitems__([Key(0, 3, 12)])[0].shape == (0, 3, 12, 12)


@pytest.mark.parametrize("given", ["224,160,192", "[160, 192,224]", [192, 160, 224]])
def test_sizes_are_read_from_the_command_line_from_yaml_and_from_python(given):
    assert Recipe(sizes=given).sizes == (160, 192, 224)
    assert Recipe(img_size=192, sizes=given).training_sizes == (160, 192, 224)
    assert Recipe(img_size=192).training_sizes == (192,)


@pytest.mark.parametrize("given", ["", "160;192", "160,big", [0, 32], [16.5], [True], []])
def test_what_is_no_list_of_sizes_is_one_line(given):
    with pytest.raises(UsageError, match="sizes=.*: must be whole numbers of pixels with commas between"):
        Recipe(sizes=given)


@pytest.mark.parametrize(("given", "img_size"), [({}, 48), ({"img_size": 32}, 32), ({"model": "resnet10t"}, 48)])
def test_evaluation_is_at_the_largest_size_unless_another_is_named(tmp_path, given, img_size):
    splits = open_splits(str(make_folder(tmp_path / "data")))
    recipe, _ = fill_in(Recipe(sizes="24,48,32", **given), splits, torch.device("cpu"), 1)
    assert recipe.img_size == img_size and recipe.training_sizes == (24, 32, 48)


def test_a_size_that_the_model_cannot_take_is_named_before_the_first_step():
    recipe = Recipe(model="convnext_atto", img_size=64, sizes=[20, 64], batch_size=8)
    with pytest.raises(RecipeError, match="sizes=20: convnext_atto cannot take images of this size"):
        try_out(build(recipe, 2), recipe, 8, torch.device("cpu"))


def test_a_time_budget_counts_the_mean_over_the_sizes(monkeypatch):
    """Time is that of the pixels: a microsecond each, forward and backward."""
    now = [0.0]
    monkeypatch.setattr(pacing.time, "perf_counter", lambda: now[0])

    def step(self, images, targets, lr):
        now[0] += 1e-6 * images.numel() / 3

    monkeypatch.setattr(TrainingStep, "__call__", step)
    recipe = Recipe(**TINY | {"sizes": [12, 16, 16, 24]})
    training, _ = seconds_per_image(build(recipe, 2), recipe, torch.device("cpu"), Classification(), 2, 0.0)
    assert training == pytest.approx(1e-6 * (12**2 + 2 * 16**2 + 24**2) / 4)


def test_steps_of_the_largest_size_are_not_taken_for_disturbed_ones():
    pace = Pace()
    for _ in range(10):
        for size, seconds in ((16, 1.0), (16, 1.0), (64, 16.0)):
            pace.note(seconds, size)
    assert pace.step == pytest.approx(6.0)
    pace.note(1000.0, 16)
    assert pace.step == pytest.approx(statistics.fmean([1, 1, 16] * 10 + [5]))


def test_a_training_on_several_sizes_is_that_of_its_largest_first_step_and_evaluates_at_its_own(tmp_path, monkeypatch):
    seen = []
    step = TrainingStep.__call__
    monkeypatch.setattr(
        TrainingStep, "__call__", lambda self, x, *rest: seen.append(tuple(x.shape[2:])) or step(self, x, *rest)
    )
    data, out = make_folder(tmp_path / "data"), tmp_path / "run"
    recipe = Recipe(data=str(data), out=str(out), **TINY | {"sizes": "12,16,24", "epochs": 3, "crop": "shift"})
    train_recipe(recipe, console=Console(quiet=True))
    assert seen[:3] == [(24, 24), (16, 16), (12, 12)] and len(seen) == 6
    assert yaml.safe_load((out / "recipe.yaml").read_text())["sizes"] == SIZES
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["pretrained_cfg"]["input_size"] == [3, 16, 16]
    assert config["model_args"]["img_size"] == [16, 16] or config["model_args"]["img_size"] == 16


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"sizes": [12, 16]}, [True, True, False, False]),
        ({"sizes": [16]}, [True] * 4),
        ({"sizes": [12, 16], "freeze": "stem"}, [False] * 4),
        ({"sizes": [12, 16], "freeze": "statistics"}, [False] * 4),
    ],
)
def test_statistics_of_batchnorm_stay_from_half_of_the_steps_on_if_there_are_several_sizes(
    tmp_path, monkeypatch, changes, expected
):
    seen = []
    step = TrainingStep.__call__

    def note(self, *batch):
        norms = [layer for layer in self.model.modules() if isinstance(layer, torch.nn.BatchNorm2d)]
        seen.append({layer.training for layer in norms})
        assert self.model.training and self.model.head.training  # nothing else changes
        return step(self, *batch)

    monkeypatch.setattr(TrainingStep, "__call__", note)
    data = make_folder(tmp_path / "data")
    options = TINY | {"data": str(data), "out": str(tmp_path / "run"), "eval_epochs": 0.5} | changes
    train_recipe(Recipe(**options), console=Console(quiet=True))
    assert seen == [{mode} for mode in expected]


def test_the_command_takes_sizes_with_commas(tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["train", "--data", str(make_folder(tmp_path / "data")), "--sizes", "12,x"])
    assert stop.value.code == 2
    assert "sizes=12,x: must be whole numbers of pixels" in capsys.readouterr().err
