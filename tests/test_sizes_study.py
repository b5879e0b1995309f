"""The study of sizes measures what it says, and its page is written from the rows."""

import csv

import pytest
import torch
from rich.console import Console

from studies import common, sizes, sizes_page
from supertokenvit.evaluation import evaluate
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.run import train_recipe

from .training.conftest import TINY, make_folder


def test_a_picture_on_a_canvas_is_whole_and_in_the_middle():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    canvas = sizes.on_canvas(images, 8, (0.0, 0.5, 1.0))
    assert torch.equal(canvas[..., 2:6, 2:6], images) and canvas[0, :, 0, 0].tolist() == [0, 128, 255]
    assert torch.equal(sizes.on_canvas(images, 4, (0.0, 0.0, 0.0)), images)


def test_rows_hold_the_accuracy_of_each_size_and_become_a_page(tmp_path, monkeypatch):
    data, run = tmp_path / "data", tmp_path / "run"
    for split in ("train", "test"):
        make_folder(data / split, per_class=10)
    train_recipe(Recipe(**TINY | {"data": str(data), "out": str(run), "epochs": 1}), console=Console(quiet=True))
    monkeypatch.setattr(sizes, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(common, "DOCS", tmp_path / "docs")
    sizes.main(["--data", str(data), "--models", str(run), "--sizes", "12,16,24", "--rounds", "2"])
    with open(tmp_path / "results" / "sizes" / "rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["img_size"]) for row in rows] == [12, 16, 24]
    for row in rows:
        expected = evaluate(run, split="test", img_size=int(row["img_size"])).top1
        assert float(row["top1"]) == pytest.approx(expected) and float(row["images_per_second"]) > 0
    assert rows[0]["canvas_top1"] == "" and rows[1]["canvas_top1"] == rows[1]["top1"] and rows[2]["canvas_top1"]
    sizes_page.main([])
    page = (tmp_path / "docs" / "sizes.md").read_text()
    assert "| 16 px, its own |" in page and (tmp_path / "docs" / "figures" / "sizes.png").stat().st_size > 1000
