"""Which images a trained model is measured on."""

import csv
import json
import math
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from rich.console import Console

from supertokenvit import evaluation, evaluation_report
from supertokenvit.cli import main
from supertokenvit.data.sources import DataError
from supertokenvit.data.splits import open_splits
from supertokenvit.evaluation import EvaluationError, evaluate_source, open_labelled
from supertokenvit.model_folder import ModelCard, TrainedModel, load_model, save_model
from supertokenvit.prediction import Predictor, load
from supertokenvit.preprocessing import Preprocess, normalize
from supertokenvit.tasks import label_rows
from supertokenvit.tasks.label_rows import draw_worst, rows_of
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.run import train_recipe

from .training.conftest import TINY, make_folder

CLASSES = ("cat", "dog", "emu")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("evaluation")
    data = make_folder(root / "data", classes=CLASSES, per_class=12)
    return train_recipe(
        Recipe(**(TINY | {"data": str(data), "out": str(root / "run")})), console=Console(quiet=True)
    ).path


@pytest.fixture
def card(trained, tmp_path):
    """What the training wrote down, of data that the test may change."""
    card = load_model(trained).card
    shutil.copytree(card.data, tmp_path / "data")
    return replace(card, data=str(tmp_path / "data"))


def names(source):
    return {source.name(i).rsplit("/", 2)[-2:][0] + source.name(i)[-7:] for i in range(len(source))}


@pytest.mark.parametrize("named", [False, True])
def test_of_its_own_data_the_images_it_was_validated_on_or_trained_on(trained, card, named):
    splits = open_splits(card.data, val_fraction=card.val_fraction, seed=card.seed)
    data = card.data if named else None
    for wanted, split in ((None, "val"), ("val", "val"), ("train", "train")):
        source, name, _ = open_labelled(trained, card, data, wanted)
        assert name == split and names(source) == names(getattr(splits, split))
    with pytest.raises(DataError, match="there is no test split"):
        open_labelled(trained, card, data, "test")


def test_images_added_since_are_noticed(trained, card, tmp_path):
    make_folder(tmp_path / "data", classes=("new",), per_class=3)
    with pytest.raises(DataError, match="no longer the images that the model was trained on"):
        open_labelled(trained, card, None, None)


def test_other_data_without_parts_is_measured_whole(trained, card, tmp_path):
    for classes in (CLASSES, ("dog",)):
        other = make_folder(tmp_path / "-".join(classes), classes=classes, per_class=5, seed=1)
        for split in (None, "train"):
            source, name, _ = open_labelled(trained, card, str(other), split)
            assert name == "all" and len(source) == 5 * len(classes)
    with pytest.raises(DataError, match="without --split all images are measured"):
        open_labelled(trained, card, str(other), "val")


def test_parts_of_other_data_are_taken_as_they_are(trained, card, tmp_path):
    for number, part in enumerate(("train", "val", "Testing"), 1):
        make_folder(tmp_path / "parts" / part, classes=("dog",), per_class=number)
    sizes = {
        split: len(open_labelled(trained, card, str(tmp_path / "parts"), split)[0])
        for split in ("train", "val", "test", None)
    }
    assert sizes == {"train": 1, "val": 2, "test": 3, None: 3}
    shutil.rmtree(tmp_path / "parts" / "train")
    shutil.rmtree(tmp_path / "parts" / "Testing")
    assert open_labelled(trained, card, str(tmp_path / "parts"), None)[1] == "val"


def test_a_model_answers_at_another_size_than_that_of_its_training(trained, card, capsys):
    plain, large = load_model(trained), load_model(trained, 32)
    source = open_labelled(trained, card, None, "val")[0]
    pixels = torch.stack([Preprocess(large.data_config)(source.image(i)) for i in range(len(source))])
    assert pixels.shape[-2:] == (32, 32)
    with torch.no_grad():
        expected = plain.model(normalize(pixels, plain.data_config["mean"], plain.data_config["std"]))
    torch.testing.assert_close(Predictor.of(large).logits(pixels), expected, rtol=1e-4, atol=1e-4)
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", str(trained), "--img-size", "0"])
    assert "--img_size 0: must be >0" in capsys.readouterr().err


def test_a_network_that_is_built_for_a_size_is_built_for_the_one_wanted(tmp_path):
    made = timm.create_model("deit_tiny_patch16_224", num_classes=2, img_size=32, depth=1, embed_dim=32, num_heads=2)
    config = timm.data.resolve_data_config({"input_size": (3, 32, 32)}, model=made)
    save_model(TrainedModel(made, ["a", "b"], config, ModelCard(), tmp_path / "model"))
    assert load_model(tmp_path, 64).model(torch.randn(1, 3, 64, 64)).shape == (1, 2)


def test_the_command_measures_a_new_folder_whole_even_of_one_class(trained, tmp_path, capsys):
    make_folder(tmp_path / "[new] dogs", classes=("dog",), per_class=5, seed=1)
    main(["evaluate", "--model", str(trained), "--data", str(tmp_path / "[new] dogs"), "--out", str(tmp_path / "out")])
    figures = json.loads((tmp_path / "out" / "evaluation-all.json").read_text())
    assert figures["images"] == 5
    printed = capsys.readouterr().out.replace("\n", "")
    assert "dogs (all): 5 images" in printed and "without images here: cat, emu" in printed


def test_one_label_and_several_are_not_mixed_up(trained, card, tmp_path):
    folder = tmp_path / "several"
    shutil.copytree(tmp_path / "data" / "cat", folder)
    lines = [f"{path.name},cat|dog" for path in sorted(folder.glob("*.png"))]
    (folder / "labels.csv").write_text("\n".join(["file,labels", *lines]))
    source, _, _ = open_labelled(trained, card, str(folder), None)
    model = load_model(trained)
    with pytest.raises(EvaluationError, match="several labels for each image, and the model was trained for one"):
        evaluate_source(Predictor.of(model), source, progress=False)
    lines = [f"{path.name}," for path in sorted(folder.glob("*.png"))]
    (folder / "labels.csv").write_text("\n".join(["file,labels", *lines]))
    model = replace(model, card=ModelCard(task="multi-label"))
    with pytest.raises(EvaluationError, match="no image of the data has a label"):
        evaluate_source(Predictor.of(model), open_labelled(trained, card, str(folder), None)[0], progress=False)
    with pytest.raises(EvaluationError, match="one label for each image, and the model was trained for several"):
        evaluate_source(Predictor.of(model), open_labelled(trained, card, card.data, None)[0], progress=False)


def test_names_in_brackets_are_shown_as_they_are(trained, card, tmp_path, capsys):
    (tmp_path / "[new] [").mkdir()
    data = (tmp_path / "data").rename(tmp_path / "[new] [" / "y]")  # "[/y]" would end a style that is not there
    main(["evaluate", "--model", str(trained), "--data", str(data), "--out", str(tmp_path)])
    assert "[new] [/y]" in capsys.readouterr().out.replace("\n", "")


def measured(trained, out, *words):
    main(["evaluate", "--model", str(trained), "--out", str(out), *map(str, words)])


def test_the_figures_say_what_was_measured_and_overwrite_no_others(trained, tmp_path, capsys):
    out = tmp_path / "out"
    measured(trained, out)
    first = json.loads((out / "evaluation-val.json").read_text())
    card = load_model(trained).card
    about = {"model": str(trained), "data": card.data, "split": "val", "img_size": 16, "tta": "none"}
    assert {key: first[key] for key in about} == about and first["precision"] == "fp32" and len(first["weights"]) == 16
    measured(trained, out)  # the same question
    measured(trained, out, "--img-size", 24)
    measured(trained, out, "--tta", "flip")
    measured(trained, out, "--img-size", 24)
    assert sorted(path.name for path in out.glob("*.json")) == [
        "evaluation-val-2.json", "evaluation-val-3.json", "evaluation-val.json",
    ]  # fmt: skip
    assert json.loads((out / "evaluation-val.json").read_text()) == first
    assert json.loads((out / "evaluation-val-2.json").read_text())["img_size"] == 24
    assert json.loads((out / "evaluation-val-3.json").read_text())["tta"] == "flip"


def test_models_that_stand_side_by_side_keep_their_own_figures(trained, tmp_path):
    for name in ("a", "b"):
        shutil.copytree(trained / "model", tmp_path / "models" / name)
        main(["evaluate", "--model", str(tmp_path / "models" / name), "--data", load_model(trained).card.data])
        assert (tmp_path / "models" / name / "evaluation-val.json").exists()
    assert sorted(path.name for path in (tmp_path / "models").iterdir()) == ["a", "b"]
    assert load_model(tmp_path / "models" / "a").classes == list(CLASSES)


def test_every_answer_is_written_with_its_label(trained, tmp_path):
    data = load_model(trained).card.data
    measured(trained, tmp_path, "--data", data, "--split", "train")
    with open(tmp_path / "evaluation-train.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    figures = json.loads((tmp_path / "evaluation-train.json").read_text())
    assert len(rows) == figures["images"] and list(rows[0]) == ["file", "true", "predicted", "probability", "loss"]
    predictor = load(trained, device="cpu")
    for row in rows:
        answer = predictor(row["file"])[0]
        assert row["true"] == Path(row["file"]).parent.name and row["predicted"] == answer.labels[0]
        assert float(row["probability"]) == pytest.approx(answer.probabilities[0], abs=1e-5)
        p = dict(zip(answer.labels, answer.probabilities, strict=True))[row["true"]]
        assert float(row["loss"]) == pytest.approx(-math.log(p), abs=1e-4)
    hits = [row["true"] == row["predicted"] for row in rows]
    assert sum(hits) / len(hits) == pytest.approx(figures["top1"])
    assert sum(float(row["loss"]) for row in rows) / len(rows) == pytest.approx(figures["loss"], abs=1e-4)


def test_the_worst_answers_are_those_that_are_wrong_and_sure(trained, tmp_path, monkeypatch):
    predictor = load(trained, device="cpu")
    source = open_splits(load_model(trained).card.data, val_fraction=0).train
    rows = list(rows_of(evaluation.answer(predictor, source, progress=False), predictor))
    wrong = [row for row in rows if row.true != row.predicted]
    seen = []
    pixels = Image.new("RGB", (9, 9))
    monkeypatch.setattr(type(source), "image", lambda self, i, enough=None: seen.append(i) or pixels)
    panels = []
    monkeypatch.setattr(label_rows, "draw_panels", lambda path, lines, title: panels.extend(sum(lines, [])))
    why = evaluation_report.explainer(predictor)
    assert wrong and why and draw_worst(tmp_path / "worst.png", rows, source, 32, why)
    losses = [rows[i].loss for i in seen]
    assert losses == sorted((row.loss for row in wrong), reverse=True)[:24]
    assert len(panels) == 2 * len(seen)  # each with what spoke for the answer beside it
    plain, why = (np.asarray(one.image).astype(int) for one in panels[:2])
    assert np.abs(plain - why).max() > 20 and panels[1].title.endswith(rows[seen[0]].predicted[0])
    right = [row for row in rows if row.true == row.predicted]
    assert not draw_worst(tmp_path / "worst.png", right, source, 32) and not (tmp_path / "worst.png").exists()


def test_the_temperature_of_the_training_is_in_the_classifier_and_in_the_figures(trained, tmp_path):
    card = load_model(trained).card
    assert card.temperature != 1.0
    ours = json.loads((trained / "evaluation.json").read_text())["validation"]
    measured(trained, tmp_path)
    found = json.loads((tmp_path / "evaluation-val.json").read_text())
    for name in ("loss", "calibration_error", "top1"):
        assert found[name] == pytest.approx(ours[name], abs=1e-6)
    # it is in the classifier itself, so that timm and exported graphs answer the same
    best = torch.load(trained / "checkpoints" / "best.pt", weights_only=True)["ema"]
    saved = load_model(trained).model.state_dict()
    for name in ("head.weight", "head.bias"):
        torch.testing.assert_close(saved[name] * card.temperature, best[name])
    assert torch.equal(saved["norm.weight"], best["norm.weight"])


def test_answers_that_are_no_numbers_are_no_accuracy(trained, tmp_path, capsys):
    broken = tmp_path / "run"
    shutil.copytree(trained, broken)
    model = load_model(broken)
    with torch.no_grad():
        model.model.head.bias[1] = float("nan")
    save_model(model)
    with pytest.raises(SystemExit):
        measured(broken, tmp_path, "--data", model.card.data)
    assert "answers are no numbers, such as that for" in capsys.readouterr().err
    answer = load(broken, device="cpu")(Path(model.card.data) / "cat" / "000.png")[0]
    assert answer.error == "the network's answer is no number" and not answer.labels


def test_figures_are_written_though_nobody_reads_what_is_printed(trained, tmp_path):
    """`supertokenvit evaluate ... | head -1` lost them."""
    words = ["evaluate", "--model", str(trained), "--out", str(tmp_path)]
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "supertokenvit.cli", *words], stdout=writer, stderr=subprocess.PIPE, text=True
    )
    os.close(writer)
    assert done.returncode in (1, 141) and done.stderr == ""  # rich ends with 1
    assert {"evaluation-val.json", "evaluation-val.csv", "confusion-val.png"} <= {p.name for p in tmp_path.iterdir()}
