"""What a caller hears of a training."""

import csv

import pytest
from rich.console import Console

from supertokenvit.training import callbacks as callbacks_module
from supertokenvit.training.callbacks import all_callbacks
from supertokenvit.training.recipe import Recipe, RecipeError
from supertokenvit.training.run import resume, train_recipe

from .conftest import TINY


def run(folder, out, heard, **changes):
    recipe = Recipe(**(TINY | {"data": str(folder), "out": str(out)} | changes))
    return train_recipe(recipe, callbacks=[heard], console=Console(quiet=True))


def test_the_events_of_a_run_in_their_order(folder, tmp_path):
    events = []
    made = run(folder, tmp_path / "run", events.append)
    kinds = [event.kind for event in events]
    assert kinds[0] == "train_start" and kinds[-1] == "train_end" and kinds.count("evaluation") == 2
    assert "checkpoint" in kinds and set(kinds) == {"train_start", "evaluation", "checkpoint", "train_end"}
    assert all(event.folder == made and event.recipe.model == "stt_nano" for event in events)
    rows = list(csv.DictReader(made.metrics.read_text().splitlines()))
    heard = [event for event in events if event.kind == "evaluation"]
    for event, row in zip(heard, rows, strict=True):
        assert event.step == int(row["step"]) and f"{event.figures['val_top1']:.6g}" == row["val_top1"]
    assert set(events[-1].figures) == {"validation"} and 0 <= events[-1].figures["validation"] <= 1
    assert made.model.exists()  # the end is told when the model is there


def test_a_checkpoint_is_told_when_it_is_on_the_disk(folder, tmp_path):
    there = []

    def heard(event):
        if event.kind == "checkpoint":
            there.append(event.folder.last.exists() or event.folder.best.exists())

    run(folder, tmp_path / "run", heard)
    assert there and all(there)


def test_a_resumed_run_is_heard_too(folder, tmp_path):
    made = run(folder, tmp_path / "run", lambda event: None)
    events = []
    resume(made, callbacks=[events.append], console=Console(quiet=True))
    assert [event.kind for event in events] == ["train_start", "train_end"]


def test_an_error_of_a_callback_is_the_callers(folder, tmp_path):
    def broken(event):
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run(folder, tmp_path / "run", broken)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_has_the_figures_of_each_evaluation(folder, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    made = run(folder, tmp_path / "run", lambda event: None, tensorboard=True)
    rows = list(csv.DictReader(made.metrics.read_text().splitlines()))
    found = {}
    for path in made.events.iterdir():
        events = EventAccumulator(str(path)).Reload()
        found |= {scalar.step: scalar.value for scalar in events.Scalars("val_loss")}
    assert found == {int(row["step"]): pytest.approx(float(row["val_loss"]), rel=1e-4) for row in rows}


@pytest.mark.filterwarnings("ignore")
def test_mlflow_has_the_recipe_and_the_figures(folder, tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", (tmp_path / "tracked").as_uri())
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "tracked").as_uri())
    made = run(folder, tmp_path / "run", lambda event: None, mlflow=True)
    client = mlflow.MlflowClient()
    (found,) = client.search_runs([client.get_experiment_by_name("supertokenvit").experiment_id])
    assert found.info.status == "FINISHED" and found.data.params["model"] == "stt_nano"
    history = client.get_metric_history(found.info.run_id, "val_top1")
    rows = list(csv.DictReader(made.metrics.read_text().splitlines()))
    assert {m.step: m.value for m in history} == {
        int(row["step"]): pytest.approx(float(row["val_top1"]), abs=1e-4) for row in rows
    }
    assert "validation" in found.data.metrics


@pytest.mark.parametrize("name", ["tensorboard", "mlflow"])
def test_a_logger_that_is_not_installed_is_one_line_before_the_first_step(name, monkeypatch):
    monkeypatch.setattr(callbacks_module, "find_spec", lambda package: None)
    with pytest.raises(RecipeError, match=rf"{name} is not installed: pip install 'supertokenvit\[{name}\]'"):
        all_callbacks(Recipe(**{name: True}), [])
