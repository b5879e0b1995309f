"""The page of benchmarks says what the rows say."""

from pathlib import Path

import pytest
import yaml

from studies.benchmarks import page as benchmarks
from studies.benchmarks import run
from studies.common import RESULTS
from supertokenvit.benchmarking.benchmark import Measurement
from supertokenvit.benchmarking.options import BenchmarkOptions, contestants
from supertokenvit.benchmarking.report import write_rows

from .test_benchmarking import job

ROOT = RESULTS / "benchmarks"


def rows(seconds, **fields):
    """Made-up rows: seconds of one call by model."""
    found = [Measurement(contestants([model], BenchmarkOptions(**fields))[0], job(batch=8)) for model in seconds]
    for row, value in zip(found, seconds.values(), strict=True):
        row.seconds, row.memory = [value] * 3, 10**9
        row.ratios = [found[0].seconds[0] / value] * 3
    return found


@pytest.fixture
def page(tmp_path, monkeypatch):
    (tmp_path / "figures").mkdir()
    (tmp_path / "notes").mkdir()
    (tmp_path / "published.csv").write_text((ROOT / "published.csv").read_text())
    monkeypatch.setattr(benchmarks, "ROWS", tmp_path)
    monkeypatch.setattr(benchmarks, "NOTES", tmp_path / "notes")
    monkeypatch.setattr(benchmarks, "DOCS", tmp_path)
    return benchmarks


def test_targets_are_reached_or_missed_as_the_rows_say(page, tmp_path):
    measured = {"swin_base_patch4_window7_224": 3.0, "stt_s25": 1.0, "caformer_s18": 0.9, "hiera_small_224": 1.5}
    write_rows(tmp_path / "peers.csv", rows(measured))
    (tmp_path / "notes" / "peers.md").write_text("An honest paragraph.")
    page.write_page()
    text = (tmp_path / "benchmarks.md").read_text()
    assert "| inference against Swin-B, batch 8 | at least 2.8x | 3.00x | reached |" in text
    assert "(caformer_s18) | at least 1x | 0.90x | missed |" in text
    assert "| training step against Swin-B, batch 8 | at least 2.5x | - | - | - |" in text
    assert "83.5 (paper's claim)" in text and "| caformer_s18 | eager | 83.66 |" in text
    assert "An honest paragraph." in text and "## A training step\n\nNot measured." in text
    assert (tmp_path / "figures" / "benchmark-peers.png").exists()


def test_targets_are_the_ratios_of_the_tables_not_of_other_medians(page):
    train = rows({"swin_base_patch4_window7_224": 3.0, "stt_s25": 1.0}, mode="train")
    train[0].seconds, train[1].seconds = [3.0, 4.0, 9.0], [1.5, 1.0, 3.0]
    train[1].ratios = [2.0, 4.0, 3.0]
    write_rows(page.ROWS / "train.csv", train)
    page.write_page()
    text = (page.DOCS / "benchmarks.md").read_text()
    assert "| training step against Swin-B, batch 8 | at least 2.5x | 3.00x | reached |" in text


def test_a_suite_that_is_killed_is_a_failure(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(run, "ROWS", tmp_path)
    die = "import os, signal; os.kill(os.getpid(), signal.SIGKILL)"
    monkeypatch.setattr(run, "START", die)
    assert run.measure("peers", {"models": ["stt_nano"], "args": {}}) != 0
    assert "peers: ended by signal 9" in capsys.readouterr().err


def test_folded_models_count_where_nothing_else_was_measured(page):
    swin, ours = "swin_base_patch4_window7_224", "stt_s25"
    write_rows(
        page.ROWS / "peers.csv", rows({swin: 3.0, swin + ":fused=false": 4.0, ours: 1.0, ours + ":reparam=true": 0.9})
    )
    write_rows(page.ROWS / "engines.csv", rows({swin: 3.0, ours: 1.0}, reparam=True))
    page.write_page()
    text = (page.DOCS / "benchmarks.md").read_text()
    assert "| inference against Swin-B, batch 8 | at least 2.8x | 3.00x | reached |" in text
    assert "| best fp32 engine of each, batch 8 | at least 2.5x | 3.00x | reached |" in text
    assert "| stt_s25:reparam=true | eager | 83.5 (paper's claim) |" in text


def test_attempts_and_graphs_stand_where_they_belong(page):
    write_rows(page.ROWS / "peers.csv", rows({"swin_base_patch4_window7_224": 3.0, "stt_s25": 1.0}))
    write_rows(page.ROWS / "engines.csv", rows({"swin_base_patch4_window7_224": 3.0, "stt_s25": 1.0}, reparam=True))
    (page.ROWS / "attempts.csv").write_text(
        "attempt,before_ms,after_ms,ratio,ratio_q1,ratio_q3,cpu\nprayer,10.0,9.5,1.05,0.9,1.2,An abacus\n"
    )
    (page.ROWS / "graphs.csv").write_text(
        "model,engine,node,count,share,cpu\nswin_base_patch4_window7_224,onnx,Gemm,97,0.6,An abacus\n"
        "stt_s25,onnx,Gemm,114,0.55,An abacus\nstt_s25,onnx,Conv,6,0.2,An abacus\nstt_s25,onnx,Cast,9,0.001,An abacus\n"
    )
    page.write_page()
    text = (page.DOCS / "benchmarks.md").read_text()
    assert "| prayer | 10 ms | 9.5 ms | 1.05x | 0.90-1.20 |" in text
    assert "| Gemm | 97 | 60.0 % | 114 | 55.0 % |" in text and "| Conv | 0 | - | 6 | 20.0 % |" in text
    assert "Cast" not in text
    peers, tried, engines, inside = (
        text.index(t) for t in ("## Inference", "### What was", "## Engines", "### Inside")
    )
    assert peers < tried < engines < inside


def test_a_lower_share_of_memory_is_better(page, tmp_path):
    train = rows({"swin_base_patch4_window7_224": 3.0, "stt_s25": 1.0}, mode="train")
    train[1].memory = 4 * 10**8
    write_rows(tmp_path / "train.csv", train)
    page.write_page()
    text = (tmp_path / "benchmarks.md").read_text()
    assert "| peak memory of a training step, of Swin-B's | at most 0.5x | 0.40x | reached |" in text


def test_every_suite_is_a_plan_and_has_its_place_on_the_page():
    suites = yaml.safe_load((run.HERE / "suites.yaml").read_text())
    assert list(suites) == list(benchmarks.SUITES)
    for suite in suites.values():
        assert contestants(suite["models"], BenchmarkOptions(**suite["args"]))
        assert run.command(suite, Path("out"))[0] == "benchmark"
