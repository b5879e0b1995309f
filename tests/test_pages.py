"""Pages and tables that are written from rows are what the rows give now."""

import pytest

from .results_scripts import RESULTS, script

DOCS = RESULTS.parent / "docs"


@pytest.mark.parametrize("queue", ["ablations", "short", "peers"])
def test_pages_of_queues(queue, tmp_path, monkeypatch):
    page = script("queue_page")
    monkeypatch.setattr(page, "DOCS", tmp_path)
    monkeypatch.setattr(page, "draw", lambda path, arms: None)
    page.write_page(RESULTS / queue)
    (written,) = tmp_path.glob("*.md")
    assert written.read_text() == (DOCS / written.name).read_text()


def test_the_page_of_benchmarks(tmp_path, monkeypatch):
    page = script("benchmarks/page")
    monkeypatch.setattr(page, "DOCS", tmp_path)
    for name in ("draw_throughput", "draw_sizes"):
        monkeypatch.setattr(page, name, lambda *args: None)
    (tmp_path / "figures").mkdir()
    page.write_page()
    assert (tmp_path / "benchmarks.md").read_text() == (DOCS / "benchmarks.md").read_text()


def test_the_page_on_scaling(tmp_path, monkeypatch):
    page = script("scaling/page")
    monkeypatch.setattr(page, "PAGE", tmp_path / "scaling.md")
    page.main()
    assert (tmp_path / "scaling.md").read_text() == (DOCS / "scaling.md").read_text()


def test_the_table_of_results_in_the_readme():
    update = script("update")
    assert f"{update.BEGIN}\n{update.table()}\n{update.END}" in update.README.read_text()
