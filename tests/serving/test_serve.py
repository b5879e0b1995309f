"""Run folders behind the server: the same answers as the predictor's own."""

import io
import shutil

import numpy as np
import pytest
from PIL import Image

from supertokenvit.cli import main
from supertokenvit.explaining.explanation import explain
from supertokenvit.model_folder import read_config
from supertokenvit.prediction import load
from supertokenvit.serving.command import source_of
from supertokenvit.serving.engine import ServingError, TorchEngine
from tests.runtime.clients import serving

MODEL = "stt_micro.cifar10"


def photographs(count=3, height=50, width=44):
    return np.random.default_rng(0).integers(0, 256, (count, height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def engine():
    source = source_of(MODEL)
    return source.opener(source.path, 1)


def test_the_engine_answers_as_the_predictor(engine):
    seen = photographs()
    found = engine.answer(seen)
    assert found.shape == (3, 10) and found.dtype == np.float32
    for row, wanted in zip(found, load(MODEL)(list(seen), topk=10), strict=True):
        by_name = dict(zip(wanted.labels, wanted.probabilities, strict=True))
        np.testing.assert_allclose(row, [by_name[name] for name in engine.about.classes], atol=1e-5)


def test_the_engine_says_what_its_model_is(engine):
    about, predictor = engine.about, load(MODEL)
    assert (about.name, about.classes, about.task) == (MODEL, predictor.classes, "classification")
    assert about.enough == predictor.preprocess.enough and about.pixels == 32 and about.explains
    assert about.data_license == predictor.card.data_license


def test_the_engine_explains_as_the_package(engine):
    (photograph,) = photographs(1)
    told, picture = engine.explain(photograph, "cat")
    (wanted,) = explain(load(MODEL), Image.fromarray(photograph), "cat")
    np.testing.assert_allclose(told["patches"], wanted.patches, atol=1e-5)
    assert told["label"] == "cat" and told["size"] == [44, 50] and "file" not in told
    assert Image.open(io.BytesIO(picture)).size == (44, 50)


def test_a_model_is_called_as_its_run_folder(tmp_path):
    shutil.copytree(read_config(MODEL)[0], tmp_path / "flowers" / "model")
    for path in (tmp_path / "flowers", tmp_path / "flowers" / "model"):
        source = source_of(str(path))
        assert source.path == tmp_path / "flowers" / "model"
        assert source.opener(source.path, 1).about.name == "flowers"


def test_models_that_name_no_classes_are_refused(monkeypatch):
    class Dense:
        task = None
        card = type("Card", (), {"task": "segmentation"})

    monkeypatch.setattr("supertokenvit.serving.engine.load", lambda path: Dense())
    with pytest.raises(ServingError, match="street: a model for segmentation; only those that name classes"):
        TorchEngine("street", 1, name="street")


@pytest.mark.parametrize(
    "words, code",
    [
        (["serve"], 2),
        (["serve", "--model", MODEL, "--host", "0.0.0.0"], 2),
        (["serve", "--model", MODEL, "--workers", "0"], 2),
        (["serve", "--model", "no such folder", "--port", "0"], 1),
        (["serve", "--model", "none.onnx", "--port", "0"], 1),
    ],
)
def test_what_cannot_be_served_is_one_line(words, code, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    errors = capsys.readouterr().err
    assert ended.value.code == code and len(errors.splitlines()) == 1 and errors.startswith("supertokenvit: ")


@pytest.mark.slow
def test_the_command_serves_a_model_of_torch_beside_an_exported_file(tmp_path):
    from tests.runtime.graphs import write_graph

    file = io.BytesIO()
    Image.fromarray(photographs(1)[0]).save(file, "PNG")
    words = ["--model", MODEL, str(write_graph(tmp_path / "model.onnx")), "--port", "0", "--workers", "2"]
    with serving("supertokenvit.cli", "serve", *words, "--drain", "0") as server:
        status, content = server.predict(file.getvalue())
        (wanted,) = load(MODEL)(photographs(1)[0])
        (row,) = content["predictions"]
        assert status == 200 and row["labels"] == wanted.labels
        np.testing.assert_allclose(row["probabilities"], wanted.probabilities, atol=1e-5)
        assert server.predict(file.getvalue(), "/v1/predict?model=colours")[0] == 200
        status, _, content = server.ask("POST", "/v1/explain?class=cat", file.getvalue())
        assert status == 200 and content["explanation"]["label"] == "cat"
        assert server.ask("POST", "/v1/explain?model=colours", file.getvalue())[0] == 404
        assert server.end() == 0
