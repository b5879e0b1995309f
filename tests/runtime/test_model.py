"""The runtime's Python and command line: answers against NumPy, errors of users, and no torch."""

import io
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import supertokenvit_runtime
from supertokenvit_runtime.cli import main
from supertokenvit_runtime.decode import IMAGE_ENDINGS
from supertokenvit_runtime.errors import UserError
from tests.runtime.clients import environment, near, png
from tests.runtime.graphs import CLASSES, about, expected, write_graph


@pytest.fixture
def graph(tmp_path):
    return write_graph(tmp_path / "model.onnx")


def photographs(count):
    rng = np.random.default_rng(0)
    return [rng.integers(0, 256, (20 + place % 3, 31, 3), np.uint8) for place in range(count)]


def test_every_kind_of_picture_is_answered_as_by_numpy_in_order(graph, tmp_path):
    model = supertokenvit_runtime.load(graph, threads=1)
    arrays = photographs(4)
    Image.fromarray(arrays[0]).save(tmp_path / "a.png")
    file = io.BytesIO()
    Image.fromarray(arrays[1]).save(file, "PNG")
    answers = model.predict([str(tmp_path / "a.png"), file.getvalue(), Image.fromarray(arrays[2]), arrays[3]])
    assert [answer.file for answer in answers] == [str(tmp_path / "a.png"), "image 1", "image 2", "image 3"]
    for answer, array in zip(answers, arrays, strict=True):
        assert near({"labels": answer.labels, "probabilities": answer.probabilities}, expected(array))
        assert answer.probabilities == sorted(answer.probabilities, reverse=True)
    assert (model.name, model.classes) == ("colours", CLASSES)


def test_shapes_and_damage_within_a_batch_change_no_other_answer(graph, tmp_path):
    model = supertokenvit_runtime.load(graph)
    arrays = photographs(70)
    images = [*arrays[:35], b"no image", tmp_path / "missing.png", *arrays[35:]]
    answers = model.predict(images, topk=3)
    assert answers[35].error == "not an image" and "No such file" in answers[36].error
    whole = answers[:35] + answers[37:]
    for answer, array in zip(whole, arrays, strict=True):
        assert near({"labels": answer.labels, "probabilities": answer.probabilities}, expected(array))


def test_one_picture_alone_and_topk(graph):
    model = supertokenvit_runtime.load(graph)
    (answer,) = model.predict(png(250, 0, 0), topk=1)
    assert answer.labels == ["red"] and len(answer.probabilities) == 1
    with pytest.raises(UserError, match="topk=0: must be at least 1"):
        model.predict(png(0, 0, 0), topk=0)


def test_openvino_answers_the_same(graph, tmp_path):
    openvino = pytest.importorskip("openvino")
    model = openvino.Core().read_model(str(graph))
    model.set_rt_info(json.dumps(about()), ["supertokenvit"])
    openvino.save_model(model, str(tmp_path / "model.xml"), compress_to_fp16=False)
    (array,) = photographs(1)
    (answer,) = supertokenvit_runtime.load(tmp_path / "model.xml").predict([array])
    assert near({"labels": answer.labels, "probabilities": answer.probabilities}, expected(array))


@pytest.mark.parametrize(
    "note, words",
    [
        (False, "supertokenvit export did not write it"),
        (about(format=2), "a newer version wrote it; update supertokenvit"),
        (about(input="tensor"), "takes tensor, not photographs"),
        (about(task="segmentation"), "its task is segmentation; this version knows classification and multi-label"),
        ({"format": 1}, "its metadata cannot be read"),
        ([], "its metadata cannot be read"),
    ],
)
def test_a_file_that_does_not_say_enough_is_refused_with_a_reason(note, words, tmp_path):
    with pytest.raises(UserError, match=f"model.onnx: {words}"):
        supertokenvit_runtime.load(write_graph(tmp_path / "model.onnx", note))


def test_what_is_no_exported_file_is_refused_with_a_reason(tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nonsense")
    for path, words in [
        (tmp_path / "none.onnx", "there is no such file"),
        (tmp_path / "model.pt", "must end in .onnx or .xml"),
        (broken, "cannot be read"),
    ]:
        with pytest.raises(UserError, match=words) as caught:
            supertokenvit_runtime.load(path)
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="threads=0"):
        supertokenvit_runtime.load(broken, threads=0)


def test_the_command_prints_a_line_for_each_image_and_names_the_bad_ones(graph, tmp_path, capsys):
    (tmp_path / "a.png").write_bytes(png(0, 200, 0))
    (tmp_path / "b.txt").write_text("words")
    paths = [str(tmp_path / "a.png"), str(tmp_path / "b.txt")]
    with pytest.raises(SystemExit) as ended:
        main(["predict", *paths, "--model", str(graph), "--topk", "1"])
    out, err = capsys.readouterr()
    assert ended.value.code == 1 and out.split()[1:] == ["green", "100.0", "%"]
    assert err.splitlines() == [
        f"supertokenvit-runtime: {paths[1]}: not an image",
        "supertokenvit-runtime: 1 image could not be read (named above)",
    ]
    main(["predict", paths[0], "--model", str(graph), "--json"])
    assert json.loads(capsys.readouterr().out)["labels"][0] == "green"


@pytest.mark.parametrize(
    "words",
    [
        ["predict"], ["predict", "a.png", "--model", "m.onnx", "--topk", "0"], ["dance"],
        ["serve", "--model", "m.onnx", "--port", "x"], ["serve", "--model", "m.onnx", "--queue", "0"],
        ["serve", "--model", "m.onnx", "--host", "0.0.0.0"],
    ],
)  # fmt: skip
def test_wrong_words_end_with_code_2(words, capsys):
    with pytest.raises(SystemExit) as ended:
        main(words)
    assert ended.value.code == 2 and "Traceback" not in capsys.readouterr().err


def test_predict_and_serve_import_no_torch(graph, tmp_path):
    (tmp_path / "a.png").write_bytes(png(0, 200, 0))
    code = f"""
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "timm", "supertokenvit"):
            raise ImportError(name)
sys.meta_path.insert(0, Refuse())
from supertokenvit_runtime.cli import main
main(["predict", {str(tmp_path / "a.png")!r}, "--model", {str(graph)!r}])
import supertokenvit_runtime.serving.server, supertokenvit_runtime.serving.command
assert not {{"torch", "torchvision", "timm"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr
    assert "green 100.0 %" in done.stdout


def test_the_help_imports_no_engine(graph):
    code = "import sys; from supertokenvit_runtime.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'onnxruntime', 'starlette', 'uvicorn'} & set(sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment())
    assert done.returncode == 0, done.stderr


def test_endings_hold_those_of_torchvision():
    from torchvision.datasets.folder import IMG_EXTENSIONS

    assert IMAGE_ENDINGS == set(IMG_EXTENSIONS) | {".gif", ".jfif", ".avif"}


def test_folders_of_the_training_are_not_passed_on(graph):
    told = supertokenvit_runtime.load(graph).about.as_dict()
    assert told["card"] == {"scores": {"validation": 0.9}} and "somebody" not in json.dumps(told)


def test_a_graph_of_heat_maps_is_refused_in_one_line(tmp_path):
    path = write_graph(tmp_path / "map.onnx", {"format": 1, "task": "explanation"})
    with pytest.raises(UserError, match="makes heat maps for the page and answers nothing; name the model beside it"):
        supertokenvit_runtime.load(path)
