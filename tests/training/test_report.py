"""What a run writes down."""

import pytest
from matplotlib.figure import Figure

from supertokenvit.tasks import Classification, MultiLabel
from supertokenvit.training.report import append_metrics, cut_metrics, draw_curves, read_metrics

COLUMNS = ("step", "epoch", "lr", "train_loss", "train_accuracy", "val_loss")


def row(step, score="val_top1"):
    return dict.fromkeys((*COLUMNS, score), 0.5) | {"step": step}


def test_steps_are_written_to_the_last_digit(tmp_path):
    append_metrics(tmp_path / "metrics.csv", row(1_500_697))
    cut_metrics(tmp_path / "metrics.csv", 1_500_697)  # as a run that goes on does
    assert [kept["step"] for kept in read_metrics(tmp_path / "metrics.csv")] == [1_500_697]


@pytest.mark.parametrize(
    ("task", "score", "lines"),
    [
        (Classification(), "val_top1", 2),
        (MultiLabel(), "val_mean_average_precision", 1),  # right labels are not drawn beside precision
        (MultiLabel(), "val_top1", 1),  # as versions before called it
    ],
)
def test_the_score_is_drawn_with_what_is_the_same_in_training(tmp_path, monkeypatch, task, score, lines):
    kept, save = [], Figure.savefig
    monkeypatch.setattr(Figure, "savefig", lambda self, *a, **k: (kept.append(self), save(self, *a, **k)))
    draw_curves(tmp_path / "curves.png", [row(1, score), row(2, score)], task)
    assert [len(axis.lines) for axis in kept[0].axes] == [2, lines, 1]
    assert kept[0].axes[1].get_title().lower() == f"{task.score_name} (%)"
