"""Detection is trained, measured and resumed like every other task."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from supertokenvit import evaluate, load, resume, train
from supertokenvit.cli import main
from supertokenvit.data.augmentation import seed_step
from supertokenvit.data.box_geometry import Whole
from supertokenvit.data.splits import read_splits
from supertokenvit.dense import TASKS
from supertokenvit.dense.detection import canvas_of, in_photograph
from supertokenvit.dense.detector import MULTIPLE
from supertokenvit.errors import UserError
from supertokenvit.model_folder import ModelCard, TrainedModel, save_model
from supertokenvit.run_folder import is_output
from supertokenvit.tasks import FiguresError
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.report import read_metrics
from supertokenvit.training.starting_model import starting_model
from tests.data.box_folders import some_boxes, write_coco, write_voc
from tests.dense.test_box_figures import answer

QUIET = Console(quiet=True)
TINY = {"model": "resnet10t", "img_size": 64, "batch_size": 4, "precision": "fp32", "epochs": 2, "device": "cpu",
        "lr": 1e-3, "opt": "adamw", "console": QUIET}  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    splits = {"train": some_boxes(12), "val": some_boxes(4, seed=1), "test": some_boxes(3, seed=2)}
    return write_voc(tmp_path_factory.mktemp("data") / "cells", splits)


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return train(data, **TINY, out=str(tmp_path_factory.mktemp("run") / "whole"))


def weights(run):
    return load_file(run.model / "model.safetensors")


def test_a_run_leaves_what_every_run_leaves(run, data):
    for path in (run.recipe, run.log, run.metrics, run.samples, run.curves, run.evaluation, run.last, run.best):
        assert path.exists(), path
    rows = read_metrics(run.metrics)
    assert [row["step"] for row in rows] == [3, 6]
    assert "val_mean_average_precision" in rows[0] and "val_loss" not in rows[0] and "train_accuracy" not in rows[0]
    found = json.loads(run.evaluation.read_text())
    assert found["test"]["per_class"].keys() == {"blue", "red"} and found["validation"]["loss"] is None
    config = json.loads((run.model / "config.json").read_text())
    card = config["supertokenvit"]
    assert config["head"] == "fcos" and config["label_names"] == ["blue", "red"] and card["task"] == "detection"
    assert card["scores"].keys() == {"validation", "test"}
    assert card["threshold"] == found["validation"]["threshold"] == found["test"]["threshold"]


def test_a_model_is_made_again_from_its_folder_alone(run, data):
    figures = json.loads(run.evaluation.read_text())["test"]
    again = evaluate(run, device="cpu")
    assert again.mean_average_precision == pytest.approx(figures["mean_average_precision"], abs=1e-6)
    assert again.images == 3


def test_evaluate_prints_and_writes_figures_boxes_and_the_worst_images(run, tmp_path, capsys):
    main(["evaluate", "--model", str(run), "--out", str(tmp_path / "out"), "--device", "cpu"])
    printed = capsys.readouterr().out
    figures = json.loads((tmp_path / "out" / "evaluation-test.json").read_text())
    for text in ("mAP ", "AP50 ", f"at a score of {figures['threshold']:g}", "boxes", "recall %"):
        assert text in printed, printed
    assert (tmp_path / "out" / "worst-test.png").exists()
    first = (tmp_path / "out" / "evaluation-test.csv").read_text().splitlines()[0]
    assert first == "file,label,score,left,upper,right,lower"


def test_predict_writes_pictures_and_prints_rows(run, data, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image = Path(data) / "JPEGImages" / "000.png"
    (tmp_path / "bad.png").write_bytes(b"no image")
    main(["predict", str(image), "--model", str(run), "--json", "--threshold", "0.05", "--device", "cpu"])
    row = json.loads(capsys.readouterr().out)
    assert row["file"] == str(image) and row["error"] is None
    for box in row["boxes"]:
        left, upper, right, lower = box["box"]
        assert 0 <= left <= right <= 64 and 0 <= upper <= lower <= 48 and box["score"] >= 0.05
        assert box["label"] in ("blue", "red")
    with Image.open(tmp_path / "predictions" / "000.png") as picture:
        assert picture.size == (64, 48)
    lines = (tmp_path / "predictions" / "predictions.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row] and is_output({"000.png", "predictions.jsonl"})
    with pytest.raises(SystemExit):
        main(["predict", str(image), "--model", str(run), "--out", str(image.parent), "--device", "cpu"])
    assert "photographs are in it" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["predict", str(image), "bad.png", "--model", str(run), "--threshold", "1", "--device", "cpu"])
    said = capsys.readouterr()
    assert "nothing" in said.out and "bad.png: not an image" in said.err


def test_python_gives_boxes(run, data):
    predictor = load(run, threshold=0.05, device="cpu")
    with Image.open(Path(data) / "JPEGImages" / "001.png") as opened:
        image = opened.convert("RGB")
    answers = predictor([image, np.zeros((40, 30, 3), dtype=np.uint8), b"nothing"])
    assert [a.error for a in answers] == [None, None, "not an image"]
    for found in answers[:2]:
        assert all(len(box.box) == 4 and box.score >= 0.05 for box in found.boxes)
    with pytest.raises(UserError, match="threshold=1.5: must be from 0 to 1"):
        load(run, threshold=1.5)
    strict = load(run, device="cpu")
    assert strict.task.threshold == strict.card.threshold > 0


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_a_run_that_stops_and_goes_on_ends_with_the_same_weights(run, data, tmp_path, workers):
    def stop(event):
        if event.kind == "checkpoint" and event.step == 3 and event.folder.last.exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(data, **TINY, out=str(tmp_path / "run"), callbacks=[stop], cache="disk", workers=workers)
    again = resume(tmp_path / "run", console=QUIET)
    expected, found = weights(run), weights(again)
    assert expected.keys() == found.keys()
    assert all(torch.equal(weight, found[name]) for name, weight in expected.items())


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"mixup": 0.2}, "mixup=0.2: not for detection"),
        ({"tta": "flip"}, "tta=flip: not for detection"),
        ({"head": "mask"}, "head=mask: must be one of fcos, retinanet"),
        ({"class_weights": "auto"}, "class_weights=auto: not for detection"),
        ({"img_size": 40}, "img_size=40: must be a multiple of 32"),
    ],
)
def test_options_that_mean_nothing_for_boxes_are_one_line(data, tmp_path, options, said):
    with pytest.raises(UserError, match=said):
        train(data, **TINY | options, out=str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


def test_boxes_of_classes_are_matched_by_name(run, tmp_path):
    """Another data set numbers its classes in another way."""
    other = write_coco(tmp_path / "other", {"test": [[("red", (2, 2, 20, 20))]] * 2, "train": some_boxes(2)})
    source = read_splits(other).splits["test"]
    task = TASKS["detection"]()
    truth = task.truth(source, ["red", "green", "blue"])
    assert [t.labels.tolist() for t in truth] == [[0], [0]]
    with pytest.raises(FiguresError, match="does not know: blue, red"):
        task.truth(source, ["green"])


def test_answers_come_in_pixels_of_the_photograph():
    found = in_photograph(answer((0, 0.9, 8, 16, 64, 40)), (3, 48, 64), (128, 96))
    assert found.boxes.tolist() == [[16, 32, 128, 80]]
    outside = in_photograph(answer((0, 0.9, -8, 0, 70, 60)), (3, 48, 64), (128, 96))
    assert outside.boxes.tolist() == [[0, 0, 128, 96]]


def test_the_canvas_has_the_shape_of_photographs_that_are_alike(tmp_path):
    whole = Whole({"input_size": (3, 128, 128), "interpolation": "bilinear"}, MULTIPLE)
    source = read_splits(write_voc(tmp_path / "data", {"train": some_boxes(10)})).splits["train"]
    assert canvas_of(source, whole) == (96, 128)
    source.sizes[::2] = [48, 64]  # half of them upright
    assert canvas_of(source, whole) == (128, 128)
    source.sizes[:] = 0  # not known
    assert canvas_of(source, whole) == (128, 128)


def test_class_counts_and_blank_targets():
    task = TASKS["detection"]()
    blank = task.blank_targets(3, 64, 5)
    assert len(blank) == 3 and blank[0]["boxes"].shape == (10, 4) and task.weight(blank) == 3
    assert (blank[0]["boxes"][:, 2:] > blank[0]["boxes"][:, :2]).all() and blank[0]["boxes"].max() <= 64


@pytest.mark.slow
def test_two_processes_train_and_measure_together(data, tmp_path):
    """Figures are measured by one of them: torchmetrics would wait there for the other one for ever."""
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words = ["--data", data, "--out", str(tmp_path / "run"), "--model", "resnet10t", "--img_size", "64"]
    words += ["--batch_size", "4", "--precision", "fp32", "--epochs", "1", "--device", "cpu"]
    command = [*launcher, "-m", "supertokenvit.cli", "train", *words]
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=240, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr[-2000:]
    assert "test" in json.loads((tmp_path / "run" / "evaluation.json").read_text())


@pytest.mark.slow
def test_rectangles_are_learned(tmp_path):
    splits = {"train": some_boxes(40), "val": some_boxes(8, seed=1), "test": some_boxes(8, seed=2)}
    options = TINY | {"epochs": 25, "batch_size": 8, "lr": 2e-3, "crop": "shift", "eval_epochs": 25}
    run = train(write_voc(tmp_path / "data", splits), **options, out=str(tmp_path / "run"))
    figures = json.loads(run.evaluation.read_text())["test"]
    assert figures["average_precision_50"] > 0.8 and np.isfinite(figures["threshold"])
    assert load(run, device="cpu").classes == ["blue", "red"]


def test_a_start_gives_its_backbone_and_its_head_for_the_same_classes(run, tmp_path):
    """Classes of the same number and other names have new scores."""
    recipe = Recipe(init=str(run), img_size=64)
    ends = "net.head.classification_head.cls_logits.weight"
    there = weights(run)
    for classes, kept in ((["blue", "red"], True), (["cat", "dog"], False)):
        model, named = starting_model(recipe, classes, TASKS["detection"])
        found = model.state_dict()
        assert torch.equal(found["net.backbone.backbone.conv1.0.weight"], there["net.backbone.backbone.conv1.0.weight"])
        assert torch.equal(found[ends], there[ends]) is kept
        assert named.model == "resnet10t" and named.head == "fcos"


def test_a_classifier_gives_its_backbone(tmp_path):
    classifier = timm.create_model("resnet10t", num_classes=2)
    data_config = {"input_size": (3, 64, 64), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    save_model(TrainedModel(classifier, ["a", "b"], data_config, ModelCard(), tmp_path / "model"))
    model, _ = starting_model(Recipe(init=str(tmp_path / "model"), img_size=64), ["red"], TASKS["detection"])
    backbone = model.net.backbone.backbone.state_dict()
    assert torch.equal(backbone["layer4.0.conv1.weight"], classifier.state_dict()["layer4.0.conv1.weight"])


def test_a_frozen_backbone_stays_as_it_is(data, tmp_path):
    run = train(data, **TINY | {"epochs": 1}, freeze="backbone", out=str(tmp_path / "run"))
    first = weights(run)["net.backbone.backbone.conv1.0.weight"]
    seed_step(0, 0)
    recipe = Recipe(**{name: value for name, value in TINY.items() if name != "console"})
    fresh, _ = starting_model(recipe, ["blue", "red"], TASKS["detection"])
    assert torch.equal(first, fresh.state_dict()["net.backbone.backbone.conv1.0.weight"])
