import csv
import io
import json
import math
import os
import subprocess
import sys
from dataclasses import replace

import pytest
import timm
import torch
from rich.console import Console
from torch import nn

from supertokenvit.benchmarking import timing
from supertokenvit.benchmarking.benchmark import Measurement
from supertokenvit.benchmarking.calls import Job, make_call, random_images
from supertokenvit.benchmarking.cost import MatrixProducts, cost_of, make_model
from supertokenvit.benchmarking.options import BenchmarkError, BenchmarkOptions, Contestant, contestants
from supertokenvit.benchmarking.report import crossings, exponent, make_table, quartiles, spread_out
from supertokenvit.benchmarking.timing import MOST, in_child, peak_memory, piece, product_call, take_turns
from supertokenvit.cli import main

SMALL = "stt_nano:width=16,heads=2,local_layers=1,global_layers=1"


def job(folder=".", mode="inference", batch=2, img_size=32):
    return Job(mode, batch, img_size, "cpu", torch.get_num_threads(), str(folder))


def run(capsys, *argv):
    """Exit code, standard output and error of `supertokenvit benchmark`."""
    code = 0
    try:
        main(["benchmark", *map(str, argv)])
    except SystemExit as end:
        code = end.code
    return code, *capsys.readouterr()


def rows_of(folder):
    with open(folder / "rows.csv", newline="") as file:
        return list(csv.DictReader(file))


def test_models_settings_and_arguments_are_read():
    plan = BenchmarkOptions(engine=["eager", "onnx"], channels_last=True)
    found = contestants(["stt_nano", "stt_nano:engine=compile,fused=false,mlp_ratio=2.0", "a/b.onnx"], plan)
    assert [c.engine for c in found] == ["eager", "onnx", "compile", "onnx"]
    assert found[2].args == (("mlp_ratio", 2.0),) and not found[2].fused and found[2].channels_last
    assert found[2].name() == "stt_nano:mlp_ratio=2.0,fused=false,channels_last=true"


@pytest.mark.parametrize(
    ("models", "fields", "why"),
    [
        (["stt_nano:engine=tensorrt"], {}, "must be one of eager"),
        (["stt_nano:fast"], {}, "not KEY=VALUE"),
        (["stt_nano", "stt_nano"], {}, "twice"),
        (["stt_nano:engine=onnx"], {"dtype": "bf16"}, "for eager and compile"),
    ],
)
def test_what_cannot_be_understood_is_said(models, fields, why):
    with pytest.raises(BenchmarkError, match=why):
        contestants(models, BenchmarkOptions(**fields))


@pytest.mark.parametrize("fields", [{"rounds": 0}, {"batch_size": 0}, {"img_size": [0]}, {"seconds": -1.0}])
def test_an_impossible_plan_is_an_error(fields):
    with pytest.raises(BenchmarkError, match="must be at least"):
        BenchmarkOptions(**fields)


# GMACs that timm publishes at 224 px (its results/benchmark-infer-amp-nchw-pt291-cu128-4090.csv, commit aa4b5850)
PUBLISHED = {
    "swin_base_patch4_window7_224": 15.47,
    "swin_small_patch4_window7_224": 8.77,
    "deit3_medium_patch16_224": 8.0,
    "deit3_base_patch16_224": 17.58,
    "hiera_small_224": 6.42,
    "hiera_base_224": 9.4,
    "convnext_small": 8.71,
    "convnext_base": 15.38,
    "cait_s24_224": 9.35,
    "gcvit_small": 8.57,
    "maxvit_small_tf_224": 11.66,
    "efficientvit_l1": 5.27,
    "caformer_s18": 4.13,
    "mvitv2_base": 10.16,
    "inception_next_small": 8.36,
    "mambaout_small": 8.96,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_macs_agree_with_those_that_timm_publishes(name):
    assert cost_of(Contestant(name), 224, 1).macs / 1e9 == pytest.approx(PUBLISHED[name], rel=0.03)


def test_macs_of_two_peers_agree_with_those_that_timm_publishes():
    for name in ("deit3_medium_patch16_224", "caformer_s18"):
        assert cost_of(Contestant(name), 224, 1).macs / 1e9 == pytest.approx(PUBLISHED[name], rel=0.03)


def test_macs_grow_with_the_batch_and_do_not_depend_on_fused_attention():
    one = cost_of(Contestant("stt_nano"), 32, 1)
    assert cost_of(Contestant("stt_nano"), 32, 4).macs == 4 * one.macs
    assert cost_of(Contestant("stt_nano", fused=False), 32, 1) == one


def test_matrix_products_are_counted_with_their_shapes():
    model = nn.Sequential(nn.Conv2d(3, 8, 2, stride=2), nn.Flatten(2), nn.Linear(16, 5), nn.Conv1d(8, 8, 1, groups=8))
    with MatrixProducts() as mode, torch.no_grad():
        out = model(torch.randn(2, 3, 8, 8))
        torch.bmm(out, out.transpose(1, 2))
    assert mode.products == {(1, 32, 12, 8): 1, (1, 16, 16, 5): 1, (2, 8, 5, 8): 1}


@pytest.mark.parametrize(
    "product", [(8, 12544, 64, 12544), (8, 12544, 12544, 64), (1, 7, 5, 3), (1, 6_422_528, 27, 64), (7, 4096, 8, 8191)]
)
def test_large_products_are_computed_in_pieces_that_make_the_whole(product):
    part, times = piece(product)
    n, rows, inner, columns = part
    assert n * rows * max(inner, columns) <= MOST
    assert (inner, columns) == product[2:] and 1 <= times * n * rows / (product[0] * product[1]) < 1.01


def test_matplotlib_is_imported_only_to_draw():
    program = "import sys, supertokenvit.benchmarking.report; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program]).returncode == 0


def test_names_in_a_plot_do_not_overlap():
    assert spread_out([0.1, 0.5], gap=0.04) == [0.1, 0.5]
    heights = spread_out([0.1, 0.2, 0.2, 0.21, 0.9], gap=0.04)
    assert min(b - a for a, b in zip(heights, heights[1:], strict=False)) > 0.04 - 1e-9
    assert heights[0] == pytest.approx(0.1, abs=0.04) and heights[2] == pytest.approx(0.2, abs=0.02)


def test_products_alone_are_as_many_as_the_model_has():
    cost = cost_of(Contestant("stt_nano"), 32, 2)
    inside = sum(n * r * i * c * k for (n, r, i, c), k in cost.products.items())
    assert inside == pytest.approx(cost.macs, rel=0.01)  # all but the depthwise mixer
    product_call(cost.products.items(), torch.float32, "cpu")()


class Clock:
    """A clock that only moves when it is read, and when someone spends time by it."""

    def __init__(self):
        self.now = 0.0

    def perf_counter(self):
        self.now += 1e-3
        return self.now

    def spend(self, seconds):
        self.now += seconds


@pytest.fixture
def clock(monkeypatch):
    made = Clock()
    monkeypatch.setattr(timing, "time", made)
    return made


def test_a_slower_call_shows_as_the_slowdown_that_it_is(clock):
    times, errors = take_turns(
        {"fast": lambda: clock.spend(0.004), "slow": lambda: clock.spend(0.012)}, rounds=5, seconds=1
    )
    ratios = [a / b for a, b in zip(times["fast"], times["slow"], strict=True)]
    assert not errors and quartiles(ratios)[1] == pytest.approx(1 / 3, rel=0.01)


def test_a_model_that_takes_longer_and_two_copies_of_one_model(tmp_path, capsys, monkeypatch, clock):
    class Slower(nn.Module):
        def __init__(self, model, seconds):
            super().__init__()
            self.model, self.seconds, self.pretrained_cfg = model, seconds, model.pretrained_cfg

        def forward(self, x):
            clock.spend(self.seconds)
            return self.model(x)

    real = timm.create_model

    def create(name, takes=0.0, copy=0, **kwargs):
        return Slower(real(name, **kwargs), takes)

    monkeypatch.setattr(timm, "create_model", create)
    out = tmp_path / "out"
    models = ["stt_nano:takes=0.05", "stt_nano:takes=0.15", "stt_nano:takes=0.05,copy=1"]
    code, *_ = run(capsys, *models, "--rounds=5", "--seconds=0.01", "--memory=false", "--batch_size=1", f"--out={out}")
    assert code == 0
    first, slow, copy = rows_of(out)
    assert float(first["ratio"]) == 1
    assert float(slow["ratio"]) == pytest.approx(1 / 3, rel=0.02)
    assert float(copy["ratio"]) == pytest.approx(1, rel=0.02)


def test_a_failing_call_leaves_the_others():
    calls = {"good": lambda: None, "bad": lambda: 1 / 0}
    times, errors = take_turns(calls, rounds=3, seconds=0)
    assert list(times) == ["good"] and len(times["good"]) == 3 and "ZeroDivisionError" in errors["bad"]


def test_a_process_that_dies_is_reported_and_a_result_is_returned():
    assert in_child(math.sqrt, 4.0) == (2.0, None)
    assert in_child(math.sqrt, -1.0)[1].startswith("ValueError")
    assert "ended with code 3" in in_child(os._exit, 3)[1]


def test_peak_memory_holds_weights_and_grows_with_the_batch():
    small, error = in_child(peak_memory, Contestant("stt_nano", args=(("width", 256), ("heads", 4))), job(batch=1))
    assert error is None
    large, error = in_child(peak_memory, Contestant("stt_nano", args=(("width", 256), ("heads", 4))), job(batch=256))
    weights = 4 * cost_of(Contestant("stt_nano", args=(("width", 256), ("heads", 4))), 32, 1).parameters
    assert error is None and weights < small < large
    tokens = 4 * 256 * 68 * 256  # one activation of all tokens
    assert tokens < large < weights + 40 * tokens


def test_the_command_leaves_a_table_rows_and_a_plot(tmp_path, capsys):
    out = tmp_path / "out"
    argv = [SMALL, "stt_nano:fused=false", "--img_size=[16, 32]", "--rounds=2", "--seconds=0", "--memory=false"]
    code, text, _ = run(capsys, *argv, f"--out={out}", "--batch_size=1")
    assert code == 0 and "inference, batch 1, 16 px" in text and "32 px" in text
    rows = rows_of(out)
    assert [row["img_size"] for row in rows] == ["16", "16", "32", "32"]
    assert all(len(json.loads(row["seconds"])) == 2 and row["torch"] == torch.__version__ for row in rows)
    assert (out / "throughput.png").stat().st_size > 1000 and (out / "sizes.png").stat().st_size > 1000


@pytest.mark.parametrize(("width", "hidden"), [(80, {"share", "quartiles"}), (160, set())])
def test_no_figure_is_cut_whatever_the_width_of_the_screen(width, hidden):
    row = Measurement(
        Contestant("swin_base_patch4_window7_224", fused=False), job(), cost_of(Contestant("stt_nano"), 32, 2)
    )
    row.seconds, row.product_seconds, row.ratios, row.memory = [1.0, 1.0], [0.9, 0.9], [1.0, 1.0], 123456e6
    screen = Console(width=width, file=io.StringIO())
    screen.print(make_table([row], width))
    text = screen.file.getvalue()
    assert "…" not in text and "123,456 MB" in text and "1.00x" in text
    assert all((name in text) == (name not in hidden) for name in ("share", "quartiles", "ratio", "ms"))


def test_what_all_rows_have_in_common_stands_in_the_title():
    rows = [
        Measurement(c, job())
        for c in contestants(["stt_nano", "stt_t"], BenchmarkOptions(engine=["eager", "onnx"], reparam=True))
    ]
    screen = Console(width=80, file=io.StringIO())
    screen.print(make_table(rows, 80))
    text = screen.file.getvalue()
    assert text.count("reparam=true") == 1 and text.index("reparam=true") < text.index("model")
    assert text.splitlines()[-2].split("│")[1].strip() == "stt_t" and "…" not in text


def test_one_model_that_fails_leaves_the_rows_of_the_others_and_is_named(tmp_path, capsys):
    out = tmp_path / "out"
    bad = "vit_tiny_patch16_224:no_such_argument=1"
    code, text, error = run(capsys, SMALL, bad, "--rounds=1", "--seconds=0", "--memory=false", f"--out={out}")
    assert code == 1 and "no_such_argument" in error and "not every model" in error
    good, failed = rows_of(out)
    assert good["error"] == "" and float(good["ratio"]) == 1
    assert "no_such_argument" in failed["error"] and failed["ms"] == ""


def test_a_model_that_does_not_exist_is_one_line_and_leaves_nothing(tmp_path, capsys):
    out = tmp_path / "out"
    code, _, error = run(capsys, "stt_nan", f"--out={out}")
    assert code == 1 and "no timm model" in error and "stt_nano" in error and not out.exists()
    code, _, error = run(capsys, "stt_nano", "--rounds=0")
    assert code == 1 and "rounds=0: must be at least 1" in error


@pytest.mark.parametrize("mode", ["train", "latency"])
def test_modes(mode, tmp_path, capsys):
    out = tmp_path / "out"
    argv = [SMALL, f"--mode={mode}", "--rounds=1", "--seconds=0", "--memory=false", f"--out={out}"]
    assert run(capsys, *argv)[0] == 0
    (row,) = rows_of(out)
    assert row["mode"] == mode and row["batch"] == ("1" if mode == "latency" else "8")


def test_a_training_step_changes_the_weights(monkeypatch):
    kept = []

    def keep(*args):
        kept.append(make_model(*args))
        return kept[-1]

    monkeypatch.setattr("supertokenvit.benchmarking.calls.make_model", keep)
    call = make_call(Contestant("stt_nano"), job(mode="train"))
    before = kept[0].head.weight.detach().clone()
    call()
    assert not torch.equal(before, kept[0].head.weight) and kept[0].training


def test_engines_do_not_train(tmp_path):
    with pytest.raises(BenchmarkError, match="onnx does not train"):
        make_call(Contestant("stt_nano", engine="onnx"), job(tmp_path, mode="train"))


def test_share_is_a_half_when_the_model_takes_twice_as_long_as_its_products():
    row = Measurement(Contestant("stt_nano"), job(), cost_of(Contestant("stt_nano"), 32, 2))
    row.seconds, row.product_seconds = [2.0, 2.0], [1.0, 1.0]
    assert row.share_of_products == pytest.approx(0.5, rel=0.01)


def test_crossings_and_exponents():
    area = {size: size**2.0 for size in (100, 200, 400)}
    flat = {size: 100 * size**1.0 * 1.5 for size in (100, 200, 400)}
    assert crossings(area, flat) == [pytest.approx((150, 150**2))]
    assert crossings(area, area) == [] and exponent(area) == pytest.approx(2)


SMALL_GRAPH = Contestant("stt_nano", args=(("global_layers", 1), ("heads", 2), ("local_layers", 2), ("width", 16)))


@pytest.mark.parametrize("engine", ["onnx", "openvino", "onnx-int8"])
def test_an_exported_graph_answers_as_the_model_does(engine, tmp_path):
    pytest.importorskip("onnxscript")
    pytest.importorskip({"onnx": "onnxruntime", "openvino": "openvino", "onnx-int8": "onnxruntime"}[engine])
    contestant = replace(SMALL_GRAPH, engine=engine)
    answer = make_call(contestant, job(tmp_path))()
    torch.manual_seed(0)  # as make_call does before it makes the model
    with torch.no_grad():
        expected = make_model(contestant, 32)(torch.from_numpy(random_images(job(tmp_path), 3)))
    found = torch.from_numpy(answer)
    if engine == "onnx-int8":
        assert torch.corrcoef(torch.stack([found.flatten(), expected.flatten()]))[0, 1] > 0.99
        assert not torch.allclose(found, expected, rtol=1e-4, atol=1e-5)  # it did quantise
    else:
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_every_engine_beside_every_other(tmp_path, capsys):
    pytest.importorskip("openvino")
    out = tmp_path / "out"
    engines = "--engine=[eager, compile, onnx, openvino, onnx-int8, openvino-int8]"
    code, _, error = run(capsys, SMALL, engines, "--rounds=1", "--seconds=0", "--batch_size=2", f"--out={out}")
    assert code == 0, error
    rows = rows_of(out)
    assert [row["engine"] for row in rows] == ["eager", "compile", "onnx", "openvino", "onnx-int8", "openvino-int8"]
    assert all(float(row["peak_memory_mb"]) > 0 and float(row["ratio"]) > 0 for row in rows)


def test_products_by_convolution_are_a_setting_of_eager_inference():
    (found,) = contestants(["stt_nano:by_convolution=true"], BenchmarkOptions())
    assert found.by_convolution and not found.args and found.name() == "stt_nano:by_convolution=true"
    for text in ("stt_nano:by_convolution=true,engine=onnx", "stt_nano:by_convolution=true,dtype=bf16"):
        with pytest.raises(BenchmarkError, match="by_convolution is for engine eager in fp32"):
            contestants([text], BenchmarkOptions())
