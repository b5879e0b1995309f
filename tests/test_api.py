"""The package from Python, as a notebook uses it: in any thread, without importing what is not needed."""

import json
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

import supertokenvit
from supertokenvit import UserError
from supertokenvit.model_folder import load_model
from supertokenvit.training.recipe import RecipeError

from .training.conftest import TINY, make_folder

OPTIONS = {key: value for key, value in TINY.items() if key != "device"} | {"device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("api") / "data", classes=("cat", "dog", "emu"), per_class=12)


def train(data, out, **options):
    return supertokenvit.train(data, out=str(out), console=Console(quiet=True), **(OPTIONS | options))


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    return train(data, tmp_path_factory.mktemp("api") / "run")


def test_every_public_name_is_there_and_documented():
    assert set(supertokenvit.__all__) <= set(dir(supertokenvit))
    for name in supertokenvit.__all__:
        assert getattr(supertokenvit, name).__doc__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = supertokenvit.nothing


def test_the_way_of_a_notebook(run, data):
    predictor = supertokenvit.load(run)
    pictures = sorted((data / "cat").iterdir())
    answers = predictor(pictures)
    assert [answer.file for answer in answers] == [str(path) for path in pictures]
    assert all(set(answer.labels) == {"cat", "dog", "emu"} for answer in answers)
    assert all(sum(answer.probabilities) == pytest.approx(1, abs=1e-5) for answer in answers)
    figures = supertokenvit.evaluate(run, data=str(data))
    stored = json.loads(run.evaluation.read_text())["validation"]
    assert figures.top1 == stored["top1"] and figures.loss == pytest.approx(stored["loss"], rel=1e-5)
    assert supertokenvit.evaluate(run, split="train", tta="flip").images == 33
    report = supertokenvit.check(data)
    assert report.images == {"train": 33, "val": 3} and not report.fatal


@pytest.mark.parametrize("kind", ["path", "text", "bytes", "image", "array", "grey"])
def test_an_image_may_come_in_any_form(run, data, kind):
    predictor, path = supertokenvit.load(run), data / "dog" / "003.png"
    with Image.open(path) as image:
        image.load()
    given = {
        "path": path, "text": str(path), "bytes": path.read_bytes(), "image": image, "array": np.array(image),
        "grey": np.array(image.convert("L")),
    }[kind]  # fmt: skip
    (alone,) = predictor(given)
    assert alone.error is None and alone.file == (str(path) if kind in ("path", "text") else "image 0")
    if kind != "grey":
        expected = predictor([path])[0]
        assert alone.labels == expected.labels
        np.testing.assert_allclose(alone.probabilities, expected.probabilities, rtol=1e-5)


def test_what_is_no_image_is_said_in_its_place(run, data, tmp_path):
    (tmp_path / "text.jpg").write_text("no image")
    good = data / "emu" / "000.png"
    given = [good, tmp_path / "text.jpg", b"", np.zeros((4, 4, 2), np.uint8), np.zeros(3), tmp_path / "gone.png", good]
    answers = supertokenvit.load(run)(given, topk=1)
    errors = [answer.error for answer in answers]
    assert errors[0] is errors[6] is None and answers[0].labels == answers[6].labels
    assert errors[1] == "not an image" and errors[2] == "empty file" and "No such file" in errors[5]
    assert "uint8 [4, 4, 2]: expected uint8 [H, W]" in errors[3] and "float64 [3]" in errors[4]


def test_answers_come_before_all_images_have_been_asked_for(run, data):
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield data / "cat" / "000.png"

    rows = supertokenvit.load(run).predict(endless(), batch_size=2)
    assert next(rows).error is None and len(asked) < 30
    rows.close()


def test_a_caller_may_keep_gradients_and_the_model_its_mode(run):
    trained = load_model(run)
    trained.model.train()
    predictor = supertokenvit.Predictor.of(trained)
    images = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    predictor.logits(images)[:, 0].sum().backward()
    assert trained.model.head.weight.grad.any() and trained.model.training
    with torch.no_grad():
        assert not predictor.logits(images).requires_grad


def test_the_network_may_be_any_callable(run, data):
    original = supertokenvit.load(run)
    calls = []

    def network(images):
        calls.append(images.shape)
        return original.network(images)

    twin = supertokenvit.Predictor(network, original.classes, original.data_config, original.card)
    path = data / "cat" / "000.png"
    assert twin(path)[0].probabilities == original(path)[0].probabilities and calls == [(1, 3, 16, 16)]


def test_training_works_in_a_thread_and_is_the_same_there(run, data, tmp_path):
    """It used to fail outside the main thread, because of signals."""
    with ThreadPoolExecutor(1) as pool:
        other = pool.submit(train, data, tmp_path / "run").result()
        assert pool.submit(supertokenvit.load(other), data / "cat" / "000.png").result()[0].error is None
        assert pool.submit(supertokenvit.evaluate, other).result().images == 3
    expected = load_model(run).model.state_dict()
    assert all(torch.equal(weight, expected[name]) for name, weight in load_model(other).model.state_dict().items())
    assert {path.name for path in run.path.iterdir()} == {path.name for path in other.path.iterdir()}
    assert threading.current_thread() is threading.main_thread()


def test_options_are_checked_in_one_line(data):
    with pytest.raises(RecipeError, match="no option epoch; did you mean epochs?"):
        supertokenvit.train(data, epoch=3)
    with pytest.raises(UserError, match="tta=twice: must be none, flip or shift"):
        supertokenvit.load(tta="twice")
    with pytest.raises(UserError, match="no trained model"):
        supertokenvit.load("nowhere")


def seconds_of(*words):
    began = time.perf_counter()
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return time.perf_counter() - began, done.stdout


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["train", "--help"], ["predict", "--help"]], ids=" ".join)
def test_help_imports_neither_torch_nor_timm(words):
    code = (
        f"import sys\nfrom supertokenvit.cli import main\ntry:\n    main({words})\nexcept SystemExit: pass\n"
        "heavy = {'torch', 'timm', 'torchvision', 'matplotlib', 'accelerate'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    seconds_of("-c", code)


def test_prediction_imports_nothing_that_only_training_needs():
    code = (
        "import sys\nimport supertokenvit\nsupertokenvit.load\n"
        "heavy = {'matplotlib', 'accelerate', 'torchmetrics', 'sklearn', 'datasets'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    seconds_of("-c", code)


@pytest.mark.parametrize(
    "first", ["supertokenvit", "timm", "supertokenvit.model.windows", "supertokenvit.preprocessing"]
)
def test_the_models_are_registered_whatever_is_imported_first(first):
    code = f"import {first}, supertokenvit, timm; print(timm.is_model('stt_s25'), len(timm.list_models('stt_*')))"
    assert seconds_of("-c", code)[1] == "True 7\n"
