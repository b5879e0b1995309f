"""Folders that hold no model, or not all of one: each is one line."""

import json

import pytest
import timm

from supertokenvit.model_folder import ModelCard, TrainedModel, load_model, save_model
from supertokenvit.prediction import PredictionError, Predictor
from supertokenvit.run_folder import RunFolderError


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
