"""Pages and tables that are written from rows are what the rows give now."""

import pytest

from studies import common, explaining_page, pages, prediction_page, readme, scaling, shipping_page
from studies.benchmarks import page as benchmarks
from studies.queue import names

DOCS = common.DOCS


@pytest.mark.parametrize("queue", names())
def test_pages_of_queues(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(common, "DOCS", tmp_path)
    monkeypatch.setattr(pages, "draw", lambda path, arms: None)
    pages.write_page(queue)
    (written,) = tmp_path.glob("*.md")
    assert written.read_text() == (DOCS / written.name).read_text()


def test_the_page_on_prediction(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "DOCS", tmp_path)
    prediction_page.write_page()
    assert (tmp_path / "prediction.md").read_text() == (DOCS / "prediction.md").read_text()


def test_the_page_on_explanations(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "DOCS", tmp_path)
    explaining_page.write_page()
    assert (tmp_path / "explanations.md").read_text() == (DOCS / "explanations.md").read_text()


def test_the_page_on_what_is_shipped(tmp_path, monkeypatch):
    monkeypatch.setattr(common, "DOCS", tmp_path)
    shipping_page.write_page()
    assert (tmp_path / "shipping.md").read_text() == (DOCS / "shipping.md").read_text()


def test_the_page_of_benchmarks(tmp_path, monkeypatch):
    monkeypatch.setattr(benchmarks, "DOCS", tmp_path)
    for name in ("draw_throughput", "draw_sizes"):
        monkeypatch.setattr(benchmarks, name, lambda *args: None)
    (tmp_path / "figures").mkdir()
    benchmarks.write_page()
    assert (tmp_path / "benchmarks.md").read_text() == (DOCS / "benchmarks.md").read_text()


def test_the_page_on_scaling(tmp_path, monkeypatch):
    monkeypatch.setattr(scaling, "PAGE", tmp_path / "scaling.md")
    scaling.write_page()
    assert (tmp_path / "scaling.md").read_text() == (DOCS / "scaling.md").read_text()


def test_the_table_of_results_in_the_readme():
    assert f"{readme.BEGIN}\n{readme.table()}\n{readme.END}" in readme.README.read_text()
