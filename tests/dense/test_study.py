"""The study of masks and boxes: arms of equal time make the steps that were measured, and a queue goes on."""

import json

import pytest
import torch

from studies import common
from studies.dense import page, returns, run
from supertokenvit.dense import TASKS

from ..data.box_folders import some_boxes, write_voc
from .folders import make_masks


@pytest.fixture
def small(tmp_path, monkeypatch):
    queue = {
        "page": "dense", "title": "Segmentation", "intro": "Street scenes.",
        "data": "camvid", "canvas": [64, 64], "classes": ["dark", "bright"],
        "recipe": {"task": "segmentation", "classes": ["dark", "bright"], "head": "fpn", "img_size": 64,
                   "batch_size": 4, "opt": "adamw", "lr": 1e-3, "precision": "fp32"},
        "seeds": [0],
        "groups": {
            "returns": {"title": "Ways", "about": "few steps", "steps": 2,
                        "arms": {"added": {"model": "stt_t_spread", "width": 32, "heads": 2, "global_layers": 1}}},
            "peers": {"title": "Peers", "about": "equal time", "seconds": 6.0, "test": True,
                      "arms": {"net": {"model": "resnet10t"}}},
        },
    }  # fmt: skip
    monkeypatch.setattr(run, "read_queue", lambda name: queue)
    monkeypatch.setattr(page, "read_queue", lambda name: queue)
    monkeypatch.setattr(page, "QUEUES", ["segmentation"])
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(common, "DOCS", tmp_path)
    make_masks(tmp_path / "data" / "camvid", test=2, classes=None)
    return queue


@pytest.mark.slow
def test_a_queue_is_worked_through_once(small, tmp_path, capsys):
    call = ["segmentation", str(tmp_path / "data"), "--work", str(tmp_path / "work")]
    run.main([*call, "--list"])
    assert "peers: net, seed 0: measure its speed first" in capsys.readouterr().out
    run.main(call)
    (tmp_path / "results" / "dense").mkdir(exist_ok=True)
    row = {"arm": "net", "args": json.dumps(small["groups"]["peers"]["arms"]["net"]), "seconds_per_step": 2.0}
    common.write_rows(tmp_path / "results" / "dense" / "speed.csv", [row | {"low": 1.9, "high": 2.1}])
    run.main(call)
    rows = common.read_rows(tmp_path / "results" / "dense" / "runs.csv")
    assert [(row["arm"], row["steps"]) for row in rows] == [("added", "2"), ("net", "3")]
    assert rows[0]["test_mean_iou"] == "" and float(rows[1]["test_mean_iou"]) > 0
    run.main(call)
    assert len(common.read_rows(tmp_path / "results" / "dense" / "runs.csv")) == 2
    page.main([])
    text = (tmp_path / "dense.md").read_text()
    assert "| added |" in text and "test mIoU" in text and "| dark |" in text


@pytest.mark.parametrize("name", run.QUEUES)
def test_every_arm_of_the_queues_can_be_made(name):
    queue = run.read_queue(name)
    task = run.task_of(queue)
    for about in queue["groups"].values():
        for arm in about["arms"].values():
            assert run.recipe_of(queue, arm).head in task.heads
    assert {job["seed"] for job in run.jobs(queue)} == {0, 1} and task.name == name


@pytest.mark.slow
def test_a_queue_of_boxes_is_worked_through(tmp_path, monkeypatch):
    queue = run.read_queue("detection")
    queue |= {"classes": ["blue", "red"], "seeds": [0], "groups": {"peers": queue["groups"]["peers"] | {
        "arms": {"net": {"model": "resnet10t"}}, "seconds": 3.0}}}  # fmt: skip
    queue["recipe"] |= {"img_size": 64, "batch_size": 4, "precision": "fp32"}
    queue["canvas"] = [64, 64]
    monkeypatch.setattr(run, "read_queue", lambda name: queue)
    monkeypatch.setattr(page, "read_queue", lambda name: queue)
    monkeypatch.setattr(page, "QUEUES", ["detection"])
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(common, "DOCS", tmp_path)
    write_voc(tmp_path / "bccd", {"train": some_boxes(8), "val": some_boxes(3, seed=1), "test": some_boxes(3, seed=2)})
    call = ["detection", str(tmp_path), "--work", str(tmp_path / "work")]
    run.main([*call, "--speed", "--rounds", "2"])
    measured = common.read_rows(tmp_path / "results" / "boxes" / "speed.csv")
    run.main(call)
    (row,) = common.read_rows(tmp_path / "results" / "boxes" / "runs.csv")
    assert int(row["steps"]) == round(3.0 / float(measured[0]["seconds_per_step"]))
    assert float(row["test_average_precision_50"]) >= 0 and json.loads(row["per_class"]).keys() == {"blue", "red"}
    page.main([])
    assert "test AP50" in (tmp_path / "boxes.md").read_text()


def test_equal_time_is_a_number_of_steps(small, tmp_path):
    arm = small["groups"]["peers"]["arms"]["net"]
    assert run.steps_of(small, small["groups"]["peers"], "net", arm) is None
    row = {"arm": "net", "args": json.dumps(arm), "seconds_per_step": 0.8}
    common.write_rows(tmp_path / "results" / "dense" / "speed.csv", [row])
    assert run.steps_of(small, small["groups"]["peers"], "net", arm) == 8  # 7.5, rounded
    assert run.steps_of(small, small["groups"]["returns"], "added", {}) == 2


@pytest.mark.parametrize("way", returns.WAYS)
def test_every_way_back_keeps_its_weights_and_brings_the_global_layers_to_the_patches(way, tmp_path):
    torch.manual_seed(0)
    options = {"width": 32, "heads": 2, "global_layers": 1, "layer_scale": 1.0}
    task = TASKS["segmentation"]
    model = task.create(f"stt_t_{way}", 2, "fpn", **options).eval()
    config = {"input_size": (3, 64, 64), "mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    task.write(model, tmp_path, ["a", "b"], config)
    again = task.read(tmp_path, json.loads((tmp_path / "config.json").read_text())).eval()
    images = torch.randn(1, 3, 128, 160)
    assert torch.equal(again(images), model(images))
    model.net.encoder.model(images)[1][0, 0, 0, 0].backward()
    upper = model.net.encoder.model.global_layers[0].block.mlp.fc1.weight.grad
    assert bool(upper.any()) == (way != "alone")
