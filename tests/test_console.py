"""Lines are whole where they are piped, and fit where they are seen."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from supertokenvit.console import user_console, watched
from supertokenvit.tasks import Classification, MultiLabel
from supertokenvit.training.checkpoint import Standing
from supertokenvit.training.progress import TrainingBar


@pytest.mark.parametrize("columns", ["40", pytest.param(None, marks=pytest.mark.slow)])
def test_what_is_piped_is_not_wrapped(columns, tmp_path):
    environment = {"COLUMNS": columns} if columns else {}
    out = subprocess.run(
        [sys.executable, "-m", "supertokenvit.cli", "models"], capture_output=True, text=True, check=True,
        env={"PATH": "", "HOME": str(tmp_path)} | environment,
    ).stdout  # fmt: skip
    rows = [line for line in out.splitlines() if "stt_" in line]
    assert len(rows) == 7 and all(len(row) == len(rows[0]) for row in rows) and len(rows[0]) > 80


@pytest.mark.parametrize("task", [Classification(), MultiLabel()], ids=lambda task: task.name)
def test_the_bar_of_a_training_fits_into_80_columns(task):
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=80, color_system=None)
    with TrainingBar(console, 123_456, 12_345, task, hidden=False) as bar:
        at = Standing(step=100_000, seconds=5000, waited=1000, loss=12.345, correct=5, seen=9)
        bar.update(123_456, at, 256)
        bar.progress.refresh()
    last = shown.getvalue().split("\x1b[2K")[-2].splitlines()[0].strip("\r")
    assert "100000/123456" in last and "left" in last and "img/s" in last and len(last) <= 80


def test_nothing_moves_where_nobody_sees_it(capsys):
    assert list(watched(range(3), "Counting", 3)) == [0, 1, 2]
    assert capsys.readouterr().out == "" and user_console().width > 500
