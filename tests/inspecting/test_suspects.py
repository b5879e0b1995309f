"""Wrong labels with known truth: recall and precision, and whether the model had seen the images."""

import csv
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from supertokenvit.cli import main
from supertokenvit.evaluation import Answers
from supertokenvit.inspecting.reports import InspectionError
from supertokenvit.inspecting.suspects import suspects_of
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.run import train_recipe

from ..training.conftest import TINY, make_folder

CLASSES = ("cat", "dog", "emu")


def flip(folder, count, seed):
    """Moves images into the folder of another class, and returns what they are called there."""
    moved = set()
    files = sorted(folder.glob("*/*.png"))
    for number in np.random.default_rng(seed).permutation(len(files))[:count]:
        file = files[number]
        other = CLASSES[(CLASSES.index(file.parent.name) + 1) % 3]
        shutil.move(file, folder / other / f"from-{file.parent.name}-{file.name}")
        moved.add(f"{other}/from-{file.parent.name}-{file.name}")
    return moved


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose training and validation images have some wrong labels, and those among the validation images."""
    root = tmp_path_factory.mktemp("suspects")
    make_folder(root / "data" / "train", CLASSES, per_class=40)
    make_folder(root / "data" / "val", CLASSES, per_class=40, seed=1)
    flip(root / "data" / "train", 8, seed=0)
    wrong = flip(root / "data" / "val", 12, seed=1)
    plain = dict.fromkeys(("mixup", "cutmix", "drop_path", "erasing"), 0.0)
    options = TINY | plain | {"data": str(root / "data"), "out": str(root / "run"), "epochs": 10, "lr": 4e-3}
    return train_recipe(Recipe(**options), console=Console(quiet=True)).path, wrong


def table_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def measured(rows, wrong):
    found = {"/".join(row["file"].split("/")[-2:]) for row in rows}
    return len(found & wrong) / len(wrong), len(found & wrong) / max(1, len(found))


@pytest.mark.slow
def test_flipped_labels_of_validation_images_are_found_and_little_else(trained, tmp_path, capsys):
    run, wrong = trained
    main(["suspects", "--model", str(run), "--out", str(tmp_path / "s.csv")])
    rows = table_of(tmp_path / "s.csv")
    recall, precision = measured(rows, wrong)
    print(recall, precision)
    assert recall >= 0.8 and precision >= 0.8
    for row in rows:
        name = row["file"].rsplit("/", 1)[1]
        if name.startswith("from-"):
            assert row["suggested"] == name.split("-")[1]
        assert row["label"] == row["file"].split("/")[-2] != row["suggested"] and row["trained_on"] == "no"
    known = [float(row["probability_of_label"]) for row in rows]
    assert known == sorted(known)
    with Image.open(tmp_path / "s.png") as picture:
        assert min(picture.size) > 100
    printed = capsys.readouterr().out
    assert "of 120 labels are likely wrong (val images: the model was not trained on them)" in printed


@pytest.mark.slow
def test_the_report_says_which_images_the_model_was_trained_on(trained, tmp_path, capsys):
    run, _ = trained
    words = ["suspects", "--model", str(run), "--out", str(tmp_path / "s.csv")]
    main([*words, "--split", "train"])
    printed = capsys.readouterr().out
    assert "train images: the model was trained on these very images" in printed
    assert all(row["trained_on"] == "yes" for row in table_of(tmp_path / "s.csv"))
    other = make_folder(tmp_path / "other", CLASSES, per_class=10, seed=7)
    flip(other, 4, seed=0)
    main([*words, "--data", str(other)])
    printed = capsys.readouterr().out
    assert "of 30 labels" in printed and "is not known" in printed
    assert {row["trained_on"] for row in table_of(tmp_path / "s.csv")} == {"unknown"}


@pytest.mark.slow
def test_damaged_images_are_left_out_and_named(trained, tmp_path, capsys):
    run, _ = trained
    data = tmp_path / "data"
    shutil.copytree(run.parent / "data", data)
    damaged = sorted((data / "val" / "cat").iterdir())[0]
    damaged.write_bytes(b"nonsense")
    main(["suspects", "--model", str(run), "--data", str(data), "--out", str(tmp_path / "s.csv")])
    printed = capsys.readouterr().out
    assert f"left out: {damaged}: not an image" in printed and "of 119 labels" in printed


def answered(labels):
    return Answers(None, torch.as_tensor(labels), np.arange(len(labels)), None, [])


def test_flipped_labels_are_found_by_probabilities_that_are_right_nine_times_in_ten():
    rng = np.random.default_rng(0)
    truth = rng.integers(0, 4, 800)
    logits = rng.normal(size=(800, 4)) + 3.5 * np.eye(4)[truth]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    assert 0.9 < (probabilities.argmax(1) == truth).mean() < 0.99
    labels = truth.copy()
    flipped = set(rng.permutation(800)[:60].tolist())
    for place in flipped:
        labels[place] = (labels[place] + 1 + rng.integers(3)) % 4
    found = list(suspects_of(answered(labels), probabilities))
    places = {one.place for one in found}
    assert len(places & flipped) >= 0.9 * len(flipped) and len(places & flipped) >= 0.6 * len(places)
    first = {one.place for one in found[:30]}
    assert len(first & flipped) >= 28  # the surest ones come first
    for one in found:
        assert one.label == labels[one.place] != one.suggested
        assert one.of_label == pytest.approx(probabilities[one.place, one.label])
        assert one.of_suggested == pytest.approx(np.delete(probabilities[one.place], one.label).max())


def test_one_class_cannot_be_compared():
    with pytest.raises(InspectionError, match="one class"):
        list(suspects_of(answered([1, 1, 1]), np.full((3, 3), 1 / 3)))
