"""Folders that hold no model, or not all of one: each is one line."""

import json
import os
from dataclasses import replace

import pytest
import timm

from supertokenvit.model_folder import ModelCard, TrainedModel, load_model, save_model
from supertokenvit.prediction import PredictionError, Predictor
from supertokenvit.run_folder import RunFolder, RunFolderError


@pytest.fixture
def folder(tmp_path):
    model = timm.create_model("stt_nano", num_classes=2)
    config = timm.data.resolve_data_config({}, model=model)
    save_model(TrainedModel(model, ["cat", "dog"], config, ModelCard(), tmp_path / "model"))
    return tmp_path / "model"


def changed(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | changes))


def refused(folder, said):
    with pytest.raises(RunFolderError, match=said) as error:
        load_model(folder)
    assert "\n" not in str(error.value)


def test_a_config_that_was_cut_off(folder):
    (folder / "config.json").write_text((folder / "config.json").read_text()[:100])
    refused(folder, "config.json is damaged")


def test_an_architecture_of_another_version(folder):
    changed(folder, architecture="stt_giant")
    refused(folder, "holds a stt_giant, which this version does not know")


def test_arguments_of_another_version(folder):
    changed(folder, model_args={"layers_of_tomorrow": 3})
    refused(folder, "cannot be read by this version: .*layers_of_tomorrow")


def test_weights_that_are_not_there_in_truth(folder):
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    refused(folder, "cannot be read by this version")


def test_without_names_of_the_classes(folder):
    changed(folder, label_names=None)
    config = json.loads((folder / "config.json").read_text())
    config["pretrained_cfg"].pop("label_names", None)
    (folder / "config.json").write_text(json.dumps(config))
    model = load_model(folder)  # which is enough to start from, and to measure its speed
    with pytest.raises(PredictionError, match="0 names for 2 classes: write them into label_names"):
        Predictor.of(model)


OLD = {
    "data": "flowers", "data_fingerprint": "0123456789abcdef", "data_license": None, "multi_label": True, "tta": "flip",
    "split_rule": "2 images cut", "val_fraction": 0.2, "seed": 3, "steps": 70, "validation_top1": 0.5,
    "test_top1": 0.25,
}  # fmt: skip


def test_a_model_folder_of_version_0_1_0_says_what_it_said(folder):
    content = json.loads((folder / "config.json").read_text())
    del content["supertokenvit"]
    (folder / "config.json").write_text(json.dumps(content | {"supertoken": OLD}))
    card = load_model(folder).card
    assert card.task == "multi-label" and card.tta == "flip" and card.data == "flowers" and card.seed == 3
    assert card.scores == {"validation": 0.5, "test": 0.25} and card.steps == 70 and card.val_fraction == 0.2


def test_a_model_of_another_origin_has_an_empty_card(folder):
    content = json.loads((folder / "config.json").read_text())
    del content["supertokenvit"]
    (folder / "config.json").write_text(json.dumps(content))
    assert load_model(folder).card == ModelCard()


def test_a_card_is_read_as_it_was_written_and_fields_of_later_versions_are_left_out(folder):
    card = ModelCard(task="multi-label", tta="shift", data="x", steps=5, scores={"validation": 0.75})
    trained = load_model(folder)
    save_model(replace(trained, card=card))
    assert load_model(folder).card == card
    content = json.loads((folder / "config.json").read_text())
    content["supertokenvit"]["of tomorrow"] = 1
    (folder / "config.json").write_text(json.dumps(content))
    assert load_model(folder).card == card


def test_a_run_folder_knows_its_files_and_is_a_path(tmp_path):
    run = RunFolder(tmp_path / "run")
    assert os.fspath(run) == str(run) == str(tmp_path / "run") and run == RunFolder(run)
    names = [path for path in vars(run).values() if path != run.path]
    assert len(set(names)) == len(names) and all(path.is_relative_to(run.path) for path in names)
    assert run.evaluation_of("val").name == "evaluation-val.json"
