"""What is exported answers as the model does, in its own engine; what does not is not written."""

import json
import os
import re
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from PIL import Image
from rich.console import Console

import supertokenvit
from supertokenvit.cli import main
from supertokenvit.engines.graph_file import GraphFile
from supertokenvit.errors import UsageError, UserError
from supertokenvit.exporting import export as module
from supertokenvit.exporting import resizing
from supertokenvit.exporting.export import FILES, export
from supertokenvit.exporting.graph import ExportedNetwork
from supertokenvit.exporting.options import ExportError
from supertokenvit.exporting.parity import RESIZED, SAME, Check, compare_sizes, photographs
from supertokenvit.model_folder import load_model
from supertokenvit.prediction import GraphPredictor, load
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.run import train_recipe

from ..training.conftest import TINY, make_folder

FORMATS = ["onnx", "openvino"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("exporting")
    data = make_folder(root / "data", classes=("cat", "dog", "emu"), per_class=12)
    options = TINY | {"data": str(data), "out": str(root / "run"), "tta": "flip", "data_license": "CC BY 4.0"}
    return train_recipe(Recipe(**options), console=Console(quiet=True)).path


@pytest.fixture(scope="module")
def exported(trained):
    return {format: export(trained, format=format, embedding=True) for format in FORMATS}


@pytest.mark.parametrize("format", FORMATS)
def test_an_export_is_a_folder_in_the_run_folder(trained, exported, format):
    folder = trained / "export" / format
    assert exported[format] == folder / FILES[format]
    names = {path.name for path in folder.iterdir()}
    graph = {"model.onnx"} if format == "onnx" else {"model.xml", "model.bin"}
    assert names == {"labels.txt", "parity.json", "README.md"} | graph
    assert (folder / "labels.txt").read_text().splitlines() == ["cat", "dog", "emu"]
    parity = json.loads((folder / "parity.json").read_text())
    assert parity["passed"] and len(parity["checks"]) > 30
    assert not list(folder.parent.glob(".*"))


@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_file_names_no_folder_but_that_of_its_data(trained, exported, format):
    files = [path.read_bytes() for path in exported[format].parent.iterdir()]
    data = os.fsencode(load(trained).card.data)  # where `evaluate` finds it
    for file in files:
        assert not any(place in file.replace(data, b"") for place in (b"site-packages", b".py", os.fsencode(trained)))


@pytest.mark.parametrize("format", FORMATS)
def test_an_exported_file_answers_as_predict_does(trained, exported, format):
    pictures = list(photographs())[:6]
    for found, wanted in zip(load(exported[format])(pictures), load(trained)(pictures), strict=True):
        assert found.labels == wanted.labels
        np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=5e-3)


@pytest.mark.parametrize("format", FORMATS)
def test_the_embedding_is_what_the_classifier_sees(trained, exported, format):
    predictor, model = load(trained), load_model(trained).model
    side = predictor.data_config["input_size"][-1]
    photograph = np.random.default_rng(0).integers(0, 256, (2, side, side, 3), dtype=np.uint8)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])  # of stt_* models
    x = ((torch.from_numpy(photograph) / 255 - mean) / std).permute(0, 3, 1, 2)
    with torch.inference_mode():
        seen = [model.forward_head(model.forward_features(view), pre_logits=True) for view in (x, x.flip(3))]
    found = GraphFile(exported[format], 1)(photograph)["embedding"]
    np.testing.assert_allclose(found, sum(seen) / 2, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("format", FORMATS)
def test_the_file_says_what_is_needed_to_use_it(exported, format):
    about = GraphFile(exported[format], 1).about
    assert about["classes"] == ["cat", "dog", "emu"] and about["input"] == "photo" and about["format"] == 1
    assert about["card"]["tta"] == "flip" and about["data_license"] == "CC BY 4.0"
    assert about["outputs"] == ["probabilities", "embedding"]


@pytest.mark.parametrize("format", FORMATS)
def test_the_lines_of_its_readme_run(trained, exported, format, tmp_path, monkeypatch):
    photograph = list(photographs())[0]
    photograph.save(tmp_path / "photograph.jpg", quality=95)
    for file in exported[format].parent.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    monkeypatch.chdir(tmp_path)
    code = re.search(r"```python\n(.*?)```", (tmp_path / "README.md").read_text(), re.S).group(1)
    names = {}
    exec(code, names)
    answer = load(trained)("photograph.jpg")[0]
    assert names["label"] == answer.labels[0]
    assert float(names["probabilities"].max()) == pytest.approx(answer.probabilities[0], abs=5e-3)


def test_evaluate_takes_it_as_it_takes_the_run_folder(trained, exported, tmp_path):
    for file in exported.values():
        main(["evaluate", "--model", str(file)])
        found = json.loads((file.parent / "evaluation-val.json").read_text())
        main(["evaluate", "--model", str(trained), "--out", str(tmp_path / "figures")])
        wanted = json.loads((tmp_path / "figures" / "evaluation-val.json").read_text())
        assert found["top1"] == wanted["top1"] and found["images"] == wanted["images"]
        assert found["loss"] == pytest.approx(wanted["loss"], abs=1e-3)
        rows, others = (
            [line.split(",")[:3] for line in path.read_text().splitlines()]
            for path in (file.parent / "evaluation-val.csv", tmp_path / "figures" / "evaluation-val.csv")
        )
        assert rows == others


def test_predict_takes_it_and_names_what_cannot_be_read(exported, tmp_path, capsys):
    next(photographs()).save(tmp_path / "whole.png")
    (tmp_path / "broken.png").write_bytes(b"nothing")
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--json", "--model", str(exported["onnx"]), str(tmp_path)])
    printed = capsys.readouterr()
    rows = [json.loads(line) for line in printed.out.splitlines()]
    assert stop.value.code == 1 and [row["error"] for row in rows] == ["not an image", None]


@pytest.mark.parametrize("option", [{"img_size": 32}, {"tta": "none"}, {"resize": "squash"}, {"device": "cuda"}])
def test_what_the_graph_has_in_it_cannot_be_changed(exported, option):
    with pytest.raises(UsageError, match="export the model anew"):
        load(exported["onnx"], **option)


def test_several_sizes_are_refused(exported, capsys):
    with pytest.raises(SystemExit):
        main(["evaluate", "--model", str(exported["onnx"]), "--sizes", "16,24"])
    assert "name the run folder" in capsys.readouterr().err


def test_a_file_of_another_origin_is_refused(trained, tmp_path):
    with pytest.raises(UserError, match="no such file"):
        load(tmp_path / "gone.onnx")
    (tmp_path / "broken.onnx").write_bytes(b"nothing")
    with pytest.raises(UserError, match="cannot be read"):
        load(tmp_path / "broken.onnx")
    one = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [1])
    node = onnx.helper.make_node("Identity", ["x"], ["y"])
    graph = onnx.helper.make_graph([node], "g", [one], [onnx.helper.make_tensor_value_info("y", 1, [1])])
    onnx.save(onnx.helper.make_model(graph, ir_version=10), tmp_path / "other.onnx")
    with pytest.raises(UserError, match="supertokenvit export did not write it"):
        load(tmp_path / "other.onnx")


def test_tensors_of_any_size_are_taken_where_the_caller_prepares_them(trained, tmp_path):
    path = export(trained, input="tensor", tta="none", out=str(tmp_path / "tensor"))
    model = load_model(trained).model
    for height, width in [(16, 16), (7, 41), (64, 24)]:
        images = torch.randn(2, 3, height, width)
        with torch.inference_mode():
            wanted = model(images).softmax(1)
        found = GraphFile(path, 1)(images.numpy())["probabilities"]
        np.testing.assert_allclose(found, wanted, atol=1e-5)
    pictures = list(photographs())[:3]
    for found, wanted in zip(load(path)(pictures), load(trained, tta="none")(pictures), strict=True):
        np.testing.assert_allclose(found.probabilities, wanted.probabilities, atol=1e-5)


def test_an_export_leaves_the_model_as_it_is(trained):
    before = {name: value.clone() for name, value in load_model(trained).model.state_dict().items()}
    predictor = load(trained)
    ExportedNetwork(load_model(trained), predictor.task)
    after = load_model(trained).model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


def changed_weight(monkeypatch):
    write = module.write_onnx

    def wrong(network, about, path, shape):
        write(network, about, path, shape)
        graph = onnx.load(str(path))
        largest = max(graph.graph.initializer, key=lambda weight: len(weight.raw_data))
        values = np.frombuffer(largest.raw_data, dtype=np.float32).copy()
        values[0] += 1.0
        largest.raw_data = values.tobytes()
        onnx.save(graph, str(path))

    monkeypatch.setattr(module, "write_onnx", wrong)


def division_of_openvino(monkeypatch):
    monkeypatch.setattr(resizing, "floor_of", lambda whole, by: torch.div(whole, by, rounding_mode="trunc"))


def resize_of_onnx(monkeypatch):
    def forward(self, images):
        return torch.nn.functional.interpolate(
            images.permute(0, 3, 1, 2).float(), self.side, mode="bicubic", antialias=True
        )

    monkeypatch.setattr(resizing.PhotographResize, "forward", forward)


def converted_directly(monkeypatch):
    import openvino

    def write(graph, path):
        trained, task = load_model("stt_micro.cifar10"), load("stt_micro.cifar10").task
        trained = replace(trained, card=replace(trained.card, tta="none"))  # it cannot convert how far views are moved
        network = ExportedNetwork(trained, task, photographs=False).eval()
        dims = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
        program = torch.export.export(network, (torch.zeros(2, 3, 75, 61),), dynamic_shapes=dims)
        model = openvino.convert_model(program)
        note = {entry.key: entry.value for entry in onnx.load(str(graph)).metadata_props}["supertokenvit"]
        model.set_rt_info(note, ["supertokenvit"])
        model.outputs[0].set_names({"probabilities"})
        openvino.save_model(model, str(path), compress_to_fp16=False)

    monkeypatch.setattr(module, "write_openvino", write)


REFUSED = "nothing was written, as the exported file answers otherwise"


def test_a_wrong_graph_is_refused_and_an_older_export_stays(trained, exported, monkeypatch):
    before = {path: path.read_bytes() for path in exported["onnx"].parent.iterdir()}
    changed_weight(monkeypatch)
    with pytest.raises(ExportError, match=REFUSED):
        export(trained)
    assert {path: path.read_bytes() for path in exported["onnx"].parent.iterdir()} == before
    assert not list((trained / "export").glob(".*"))


@pytest.mark.slow
@pytest.mark.parametrize("wrong", [division_of_openvino, resize_of_onnx, converted_directly])
def test_what_openvino_does_wrongly_is_noticed(tmp_path, monkeypatch, wrong):
    """With weights that have learned: a network that has learned nothing answers nearly alike for any pixels."""
    wrong(monkeypatch)
    taken = "tensor" if wrong is converted_directly else "photo"  # photographs always become more than one window
    with pytest.raises(ExportError, match=REFUSED):
        export("stt_micro.cifar10", format="openvino", input=taken, tta="none", out=str(tmp_path / "out"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"int8": True}, "--int8: only with --format openvino"),
        ({"calibrate": "somewhere"}, "--calibrate: only with --int8"),
        ({"int8": True, "format": "openvino", "input": "tensor"}, "only with --input photo"),
    ],
)
def test_options_that_do_not_go_together_are_refused(trained, options, named):
    with pytest.raises(ExportError, match=named):
        export(trained, **options)


def test_a_folder_of_something_else_is_refused(trained, tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ExportError, match="not empty, and no export"):
        export(trained, out=str(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("crop_pct", "native"), [(1.0, 16), (0.8, 20)])
def test_the_narrow_limit_holds_where_no_pixel_is_computed_anew(trained, crop_pct, native):
    """A side of 16 px with crop_pct 0.8 is resized to 20 px: graphs were refused for pixels rounded otherwise."""
    loaded = load_model(trained)
    task = load(trained).task
    network = ExportedNetwork(replace(loaded, data_config=loaded.data_config | {"crop_pct": crop_pct}), task).eval()

    def equal(images):
        with torch.inference_mode():
            return {"probabilities": network(torch.from_numpy(images))[0].numpy()}

    sides = [(1, 16, 16), (1, 20, 20), (2, 16, 20)]
    limits = [check.limit for check in compare_sizes(equal, network, sides)]
    assert limits == [SAME if shape[1:] == (native, native) else RESIZED for shape in sides]


def test_a_check_that_is_no_number_has_failed():
    assert not Check("nothing", float("nan"), 1.0).passed and not Check("nothing", float("nan"), 1.0, True).passed
    assert Check("something", 0.5, 1.0).passed and not Check("something", 0.5, 1.0, at_least=True).passed


def test_the_command_says_what_it_wrote(trained, tmp_path, capsys):
    main(["export", str(trained), "--tta", "none", "--out", str(tmp_path / "here")])
    printed = capsys.readouterr().out
    assert str(tmp_path / "here" / "model.onnx") in printed and "checks passed" in printed
    assert isinstance(supertokenvit.load(tmp_path / "here" / "model.onnx"), GraphPredictor)


def test_a_rotated_photograph_is_answered_upright(trained, exported, tmp_path):
    photograph = next(photographs())
    exif = Image.Exif()
    exif[0x0112] = 6  # to be rotated by 270 degrees
    photograph.rotate(90, expand=True).save(tmp_path / "rotated.png", exif=exif)
    photograph.save(tmp_path / "upright.png")
    rotated, upright = load(exported["onnx"])([tmp_path / "rotated.png", tmp_path / "upright.png"])
    assert rotated.probabilities == upright.probabilities


@pytest.mark.slow
@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize("name", ["resnet18", "vit_tiny_patch16_224", "swin_tiny_patch4_window7_224", "convnext_atto"])
def test_other_families_are_exported(tmp_path, name, format):
    data = make_folder(tmp_path / "data", classes=("cat", "dog"), per_class=6)
    options = TINY | {"model": name, "model_args": {}, "data": str(data), "out": str(tmp_path / "run")}
    run = train_recipe(Recipe(**(options | {"img_size": 224, "batch_size": 4})), console=Console(quiet=True)).path
    assert export(run, format=format).is_file()
