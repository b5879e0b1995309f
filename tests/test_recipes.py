"""Every recipe that is shipped trains: two steps each, on data of its kind."""

from pathlib import Path

import pytest
import yaml
from rich.console import Console

from supertokenvit.training.recipe import Recipe
from supertokenvit.training.report import read_metrics
from supertokenvit.training.run import train_recipe

from .training.conftest import TINY, make_folder

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


@pytest.fixture(scope="module")
def earlier(tmp_path_factory):
    """A run to start from or to learn from."""
    folder = tmp_path_factory.mktemp("earlier")
    data = make_folder(folder / "data", per_class=6)
    return train_recipe(
        Recipe(**(TINY | {"data": str(data), "out": str(folder / "run"), "epochs": 1})), console=Console(quiet=True)
    ).path


def data_for(name, folder):
    data = make_folder(folder / "data", per_class=6, size=40)
    if name == "multi-label":
        files = sorted(data.rglob("*.png"))
        lines = [
            f"{file.relative_to(data)},{file.parent.name}{'|night' if i % 2 else ''}" for i, file in enumerate(files)
        ]
        (data / "labels.csv").write_text("\n".join(["file,labels", *lines]) + "\n")
    return data


@pytest.mark.parametrize("path", RECIPES, ids=[path.stem for path in RECIPES])
def test_recipe_trains_for_two_steps(path, earlier, tmp_path):
    words = path.read_text().splitlines()[0]
    assert words.startswith("# ") and "supertokenvit train --recipe recipes/" + path.name in words
    recipe = yaml.safe_load(path.read_text())
    changes = {"out": str(tmp_path / "run"), "epochs": 0.8, "minutes": None, "batch_size": 4, "val_fraction": 0.2}
    changes["accumulate"] = min(2, recipe.get("accumulate", 1))
    changes["eval_epochs"] = 1.0
    if recipe.get("model") == "stt_s25":
        changes["model_args"] = {"width": 96, "heads": 3}
    if recipe["data"] != "digits":
        changes["data"] = str(data_for(path.stem, tmp_path))
    if "--init" in words:
        changes["init"] = str(earlier)
    if "--teacher" in words:
        changes["teacher"] = str(earlier)
    if recipe["data"] == "digits":
        changes |= {"batch_size": 500, "epochs": 1.0}
    out = train_recipe(Recipe(**(recipe | changes)), console=Console(quiet=True)).path
    assert read_metrics(out / "metrics.csv")[-1]["step"] == 2
