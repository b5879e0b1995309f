"""The examples of the documentation run as they are printed."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from .data.box_folders import some_boxes, write_voc
from .training.conftest import make_folder

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "docs" / "python.md"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_examples_of_a_page_run_one_after_the_other(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_folder(tmp_path / "flowers", classes=("daisy", "rose"), per_class=40, size=24)
    write_voc(tmp_path / "cells", {"train": some_boxes(8), "val": some_boxes(4, seed=1)})
    noise = np.random.default_rng(0).integers(0, 255, (300, 400, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "photo.jpg")
    examples = re.findall(r"^```python\n(.*?)^```$", page.read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(examples) >= 5
    names = {}
    for example in examples:
        exec(compile(example, page.name, "exec"), names)
    printed = capsys.readouterr().out
    assert "daisy" in printed and "missing.jpg [] No such file or directory" in printed
    assert "runs/nowhere: no trained model in it" in printed


def test_the_example_of_the_runtime_runs(tmp_path, monkeypatch, capsys):
    from .runtime.clients import png
    from .runtime.graphs import write_graph

    monkeypatch.chdir(tmp_path)
    write_graph(tmp_path / "model.onnx")
    (tmp_path / "photo.jpg").write_bytes(png(0, 200, 0))
    page = (ROOT / "docs" / "runtime.md").read_text()
    (example,) = re.findall(r"^```python\n(.*?)^```$", page, flags=re.DOTALL | re.MULTILINE)
    exec(compile(example, "runtime.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "photo.jpg ['green'" in printed and "missing.jpg [] [] No such file or directory" in printed


def test_the_page_on_serving_names_every_option_route_and_status():
    from dataclasses import fields

    from supertokenvit_runtime.serving.openapi import PROBLEMS, describe
    from supertokenvit_runtime.serving.settings import Settings

    page = (ROOT / "docs" / "serving.md").read_text()
    for option in fields(Settings):
        assert "help" not in option.metadata or f"--{option.name}" in page or option.name == "port", option.name
    assert all(f" {path}`" in page for path in describe(explains=True, token=True)["paths"])
    assert all(str(status) in page for status in PROBLEMS)


def test_docstring_examples_run(monkeypatch, tmp_path):
    import doctest
    import importlib

    monkeypatch.chdir(tmp_path)
    tried = 0
    for name in ("prediction", "evaluation", "data.checking", "training.run"):
        result = doctest.testmod(importlib.import_module(f"supertokenvit.{name}"))
        assert result.failed == 0
        tried += result.attempted
    assert tried >= 5


@pytest.mark.parametrize(
    "page", [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))], ids=lambda p: p.name
)
def test_links_to_files_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
        if "://" not in target:
            assert (page.parent / target).exists(), target
