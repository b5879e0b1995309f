"""What is decided before the first step."""

import pytest
from rich.console import Console

from supertokenvit.data.splits import open_splits
from supertokenvit.training.assembly import fits_in_memory
from supertokenvit.training.processes import Processes
from supertokenvit.training.recipe import Recipe, RecipeError
from supertokenvit.training.run import train_recipe

from .conftest import TINY, make_folder

DATA = {
    "input_size": (3, 16, 16),
    "interpolation": "bicubic",
    "crop_pct": 1.0,
    "crop_mode": "center",
    "mean": (0.5, 0.5, 0.5),
}


def test_validation_images_without_any_label_are_refused_before_the_first_step(tmp_path):
    for part, labels in (("train", ("cat", "dog")), ("val", ("", ""))):
        folder = make_folder(tmp_path / "data" / part, classes=("all",), per_class=12)
        lines = [f"all/{i:03}.png,{labels[i % 2]}" for i in range(12)]
        (folder / "labels.csv").write_text("\n".join(["file,labels", *lines]))
    changes = {"data": str(tmp_path / "data"), "out": str(tmp_path / "run"), "mixup": 0.0, "cutmix": 0.0}
    with pytest.raises(RecipeError, match="no validation image has a label"):
        train_recipe(Recipe(**TINY | changes), console=Console(quiet=True))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("free", "kept"), [(4 * 35_000, True), (4 * 33_000, False)])
def test_training_and_validation_images_must_fit_in_a_quarter_of_the_memory(tmp_path, monkeypatch, free, kept):
    splits = open_splits(str(make_folder(tmp_path / "data", per_class=17)), val_fraction=6 / 34)
    assert (len(splits.train), len(splits.val)) == (
        28,
        6,
    )  # 28 * 16 * 16 * 1.4 + 6 * 16 * 16 pixels of 3 bytes: 34.7 kB
    monkeypatch.setattr("supertokenvit.training.assembly.free_memory", lambda: free)
    recipe = Recipe(**TINY | {"crop": "shift"})
    assert fits_in_memory(recipe, splits, Processes(recipe)) == kept


def test_mirroring_in_turns_needs_every_image_once():
    with pytest.raises(RecipeError, match="leave out weighted_sampling"):
        Recipe(hflip="alternating", weighted_sampling=True)
