"""What a run writes down."""

import matplotlib.pyplot as plt
import pytest

from supertokenvit.training.report import COLUMNS, append_metrics, cut_metrics, draw_curves, read_metrics


def row(step):
    return dict.fromkeys(COLUMNS, 0.5) | {"step": step}


def test_steps_are_written_to_the_last_digit(tmp_path):
    append_metrics(tmp_path / "metrics.csv", row(1_500_697))
    cut_metrics(tmp_path / "metrics.csv", 1_500_697)  # as a run that goes on does
    assert [kept["step"] for kept in read_metrics(tmp_path / "metrics.csv")] == [1_500_697]


@pytest.mark.parametrize(("measure", "lines"), [("accuracy", 2), ("mAP", 1)])
def test_shares_of_right_label_bits_are_not_drawn_beside_precision(tmp_path, monkeypatch, measure, lines):
    kept = []
    monkeypatch.setattr(plt, "close", kept.append)
    draw_curves(tmp_path / "curves.png", [row(1), row(2)], measure)
    assert [len(axis.lines) for axis in kept[0].axes] == [2, lines, 1]
