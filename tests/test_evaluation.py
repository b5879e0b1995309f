"""Which images a trained model is measured on."""

import json
import shutil

import pytest
from rich.console import Console

from supertoken.cli import main
from supertoken.data.sources import open_splits
from supertoken.evaluation import EvaluationError, open_part
from supertoken.run_folder import load_model
from supertoken.training.loop import train
from supertoken.training.recipe import Recipe

from .training.conftest import TINY, make_folder

CLASSES = ("cat", "dog", "emu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluation")
    data = make_folder(root / "data", classes=CLASSES, per_class=12)
    return train(Recipe(**(TINY | {"data": str(data), "out": str(root / "run")})), Console(quiet=True))


@pytest.fixture
def about(trained, tmp_path):
    """What the training left, of data that the test may change."""
    about = load_model(trained).about
    shutil.copytree(about["data"], tmp_path / "data")
    return about | {"data": str(tmp_path / "data")}


def names(source):
    return {source.name(i).rsplit("/", 2)[-2:][0] + source.name(i)[-7:] for i in range(len(source))}


@pytest.mark.parametrize("named", [False, True])
def test_of_its_own_data_the_images_it_was_validated_on_or_trained_on(about, named):
    splits = open_splits(about["data"], val_fraction=about["val_fraction"], seed=about["seed"])
    data = about["data"] if named else None
    for wanted, split in ((None, "val"), ("val", "val"), ("train", "train")):
        source, name = open_part(data, wanted, about)
        assert name == split and names(source) == names(getattr(splits, split))
    with pytest.raises(EvaluationError, match="there is no test part"):
        open_part(data, "test", about)


def test_images_added_since_are_noticed(about, tmp_path):
    make_folder(tmp_path / "data", classes=("new",), per_class=3)
    with pytest.raises(EvaluationError, match="no longer the images that the model was trained on"):
        open_part(None, None, about)


def test_other_data_without_parts_is_measured_whole(about, tmp_path):
    for classes in (CLASSES, ("dog",)):
        other = make_folder(tmp_path / "-".join(classes), classes=classes, per_class=5, seed=1)
        for split in (None, "train"):
            source, name = open_part(str(other), split, about)
            assert name == "all" and len(source) == 5 * len(classes)
    with pytest.raises(EvaluationError, match="without --split all images are measured"):
        open_part(str(other), "val", about)


def test_parts_of_other_data_are_taken_as_they_are(about, tmp_path):
    for number, part in enumerate(("train", "val", "Testing"), 1):
        make_folder(tmp_path / "parts" / part, classes=("dog",), per_class=number)
    sizes = {
        split: len(open_part(str(tmp_path / "parts"), split, about)[0]) for split in ("train", "val", "test", None)
    }
    assert sizes == {"train": 1, "val": 2, "test": 3, None: 3}
    shutil.rmtree(tmp_path / "parts" / "train")
    shutil.rmtree(tmp_path / "parts" / "Testing")
    assert open_part(str(tmp_path / "parts"), None, about)[1] == "val"


def test_the_command_measures_a_new_folder_whole_even_of_one_class(trained, tmp_path, capsys):
    make_folder(tmp_path / "[new] dogs", classes=("dog",), per_class=5, seed=1)
    main(["evaluate", "--model", str(trained), "--data", str(tmp_path / "[new] dogs"), "--out", str(tmp_path / "out")])
    figures = json.loads((tmp_path / "out" / "evaluation-all.json").read_text())
    assert figures["images"] == 5
    printed = capsys.readouterr().out.replace("\n", "")
    assert "dogs (all): 5 images" in printed and "without images here: cat, emu" in printed
