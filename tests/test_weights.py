"""The weights that come with the package: they load, answer as they did, and have the accuracy that they claim."""

import json
import os
from pathlib import Path

import pytest
import timm
import torch

from studies.answers import ANSWERS, answers
from supertokenvit.data.splits import open_splits
from supertokenvit.evaluation import evaluate_source
from supertokenvit.model.family import SHIPPED
from supertokenvit.model_folder import load_model
from supertokenvit.prediction import Predictor

DATA = os.environ.get("SUPERTOKEN_DATA")  # a folder that holds data sets by the tags of the weights


@pytest.mark.parametrize("name", SHIPPED)
def test_weights_load_and_answer_as_they_did(name):
    torch.testing.assert_close(
        torch.tensor(answers(name)), torch.tensor(json.loads(ANSWERS.read_text())[name]), atol=5e-3, rtol=1e-2
    )
    model = timm.create_model(name, pretrained=True)
    assert model.pretrained_cfg["label_names"] == load_model(name).classes
    card = (load_model(name).path / "README.md").read_text()
    assert f"{100 * load_model(name).card.scores['test']:.2f} %" in card
    assert sum(file.stat().st_size for file in load_model(name).path.iterdir()) <= 16e6


@pytest.mark.slow
@pytest.mark.skipif(DATA is None, reason="SUPERTOKEN_DATA names no folder with data sets")
@pytest.mark.parametrize("name", SHIPPED)
def test_weights_have_the_accuracy_that_their_card_names(name):
    trained, tag = load_model(name), name.partition(".")[2]
    if not (Path(DATA) / tag / "test").is_dir():
        pytest.skip(f"SUPERTOKEN_DATA holds no {tag}/test")
    splits = open_splits(str(Path(DATA) / tag), val_fraction=trained.card.val_fraction, seed=trained.card.seed)
    found = evaluate_source(Predictor.of(trained), splits.test, progress=False)
    assert found.images == len(splits.test) and found.top1 == pytest.approx(trained.card.scores["test"], abs=1e-3)
