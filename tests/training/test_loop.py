import csv
import json
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console

from supertokenvit import run_folder
from supertokenvit.cli import main
from supertokenvit.evaluation import EvaluationError
from supertokenvit.model_folder import load_model
from supertokenvit.run_folder import RunFolderError, new_run_folder
from supertokenvit.tasks import Evaluation
from supertokenvit.training import checkpoint as checkpoint_module
from supertokenvit.training import progress
from supertokenvit.training.checkpoint import CheckpointError, read_checkpoint, write_checkpoint
from supertokenvit.training.judge import Judge
from supertokenvit.training.loop import TrainingStopped
from supertokenvit.training.recipe import Recipe, RecipeError
from supertokenvit.training.report import append_metrics, cut_metrics, read_metrics
from supertokenvit.training.run import resume, train_recipe

from .conftest import TINY, make_folder


def quiet():
    return Console(quiet=True)


def run(data, out, **changes):
    return train_recipe(Recipe(**(TINY | {"data": str(data), "out": str(out)} | changes)), console=quiet()).path


def failing(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main([str(word) for word in words])
    errors = capsys.readouterr().err
    assert "Traceback" not in errors
    assert len(errors.strip().splitlines()) == 1, errors
    return stop.value.code, errors


def test_run_folder_holds_everything(folder, tmp_path):
    out = run(folder, tmp_path / "run")
    names = {p.name for p in out.iterdir()}
    assert names >= {
        "recipe.yaml", "model", "metrics.csv", "curves.png", "confusion.png", "samples.png", "log.txt",
        "environment.json", "checkpoints", "evaluation.json",
    }  # fmt: skip
    assert {p.name for p in (out / "checkpoints").iterdir()} == {"last.pt", "best.pt"}
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert Recipe(**recipe).crop == "shift"  # nothing is left open
    config = json.loads((out / "model" / "config.json").read_text())
    assert config["label_names"] == ["cat", "dog"]
    assert config["supertokenvit"]["data_fingerprint"] and "val_fraction" in config["supertokenvit"]
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    assert [float(row["epoch"]) for row in rows] == [1, 2]


def test_among_equal_accuracies_the_weights_of_the_lower_loss_are_kept(folder, tmp_path, monkeypatch):
    real, losses = Judge.figures, iter([0.5, 0.3, 0.4, 0.3])

    def made_up(self, *args, **kwargs):
        return replace(real(self, *args, **kwargs), top1=0.5, loss=next(losses))

    monkeypatch.setattr(Judge, "figures", made_up)
    out = run(folder, tmp_path / "run", epochs=3)
    steps = [float(row["step"]) for row in csv.DictReader((out / "metrics.csv").read_text().splitlines())]
    assert load_model(out).card.steps == steps[1]


def test_a_time_budget_is_kept_when_the_speed_was_misjudged(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("supertokenvit.training.assembly.seconds_per_image", lambda *_: (1e-6, 1e-6))
    out = run(folder, tmp_path / "run", epochs=None, minutes=0.1, ema=None)
    rows = list(csv.DictReader((out / "metrics.csv").read_text().splitlines()))
    planned = int(re.search(r"chosen: ([\d,]+) steps", (out / "log.txt").read_text())[1].replace(",", ""))
    assert float(rows[-1]["step"]) < planned / 10
    assert float(rows[-1]["minutes"]) < 0.2
    assert float(rows[-1]["lr"]) < 0.05 * max(float(row["lr"]) for row in rows)  # and the schedule came to its end


@pytest.mark.parametrize(("gain", "precision"), [(3.0, "bf16"), (1.1, "fp32")])
def test_the_arithmetic_is_that_which_pays_and_stays_so(folder, tmp_path, monkeypatch, gain, precision):
    monkeypatch.setattr("torch.cpu._is_avx512_bf16_supported", lambda: True)
    monkeypatch.setattr("supertokenvit.machine._gain_of_bf16", lambda: gain)
    out = run(folder, tmp_path / "run", device="cpu", precision="auto")
    assert yaml.safe_load((out / "recipe.yaml").read_text())["precision"] == precision
    assert (
        f"chosen: precision = {precision}: products are {gain} times as fast in bf16" in (out / "log.txt").read_text()
    )
    losses = {p: read_metrics(run(folder, tmp_path / p, precision=p) / "metrics.csv")[-1] for p in ("fp32", "bf16")}
    assert read_metrics(out / "metrics.csv")[-1]["train_loss"] == losses[precision]["train_loss"]
    assert losses["fp32"]["train_loss"] != losses["bf16"]["train_loss"]
    assert losses["fp32"]["train_loss"] == pytest.approx(losses["bf16"]["train_loss"], rel=0.05)


@pytest.mark.parametrize(("precision", "fused"), [("fp32", True), ("bf16", False)])
def test_bf16_on_a_cpu_trains_without_fused_attention(folder, tmp_path, monkeypatch, precision, fused):
    calls, attend = [], torch.nn.functional.scaled_dot_product_attention
    monkeypatch.setattr(
        "torch.nn.functional.scaled_dot_product_attention", lambda *a, **k: calls.append(1) or attend(*a, **k)
    )
    run(folder, tmp_path / "run", device="cpu", precision=precision, epochs=1)
    assert bool(calls) == fused


def test_the_same_recipe_gives_the_same_weights_from_memory_and_from_disk(folder, tmp_path):
    kept = [
        load_model(run(folder, tmp_path / name, **changes)).model.state_dict()
        for name, changes in (("a", {"cache": "memory"}), ("b", {"cache": "disk", "workers": 0}))
    ]
    for name, weight in kept[0].items():
        assert torch.equal(weight, kept[1][name]), name


def test_a_recipe_from_a_run_folder_repeats_it(folder, tmp_path):
    first = run(folder, tmp_path / "a", seed=3)
    recipe = yaml.safe_load((first / "recipe.yaml").read_text()) | {"out": str(tmp_path / "b")}
    second = train_recipe(Recipe(**recipe), console=quiet()).path
    expected, repeated = (load_model(path).model.state_dict() for path in (first, second))
    assert all(torch.equal(weight, repeated[name]) for name, weight in expected.items())


@pytest.mark.parametrize(
    "changes",
    [
        {"opt": "adamw"},
        {"schedule": "linear"},
        {"class_weights": "auto"},
        {"class_weights": {"cat": 2.0}, "mixup": 0.0, "cutmix": 0.0},
        {"weighted_sampling": True},
        {"randaugment": 9},
        {"crop": "resized"},
        {"model": "test_vit", "model_args": {}, "img_size": 160, "epochs": 0.5},
    ],
    ids=lambda changes: ",".join(changes),
)
def test_options_change_the_training(folder, tmp_path, changes):
    make_folder(folder, classes=("owl",), per_class=4)  # so that weights of the classes matter
    rest = {name: value for name, value in changes.items() if name in ("epochs", "mixup", "cutmix")}
    folders = [run(folder, tmp_path / name, **kept) for name, kept in (("without", rest), ("with", changes))]
    losses = [[row["train_loss"] for row in read_metrics(out / "metrics.csv")] for out in folders]
    assert losses[0] != losses[1]
    assert load_model(tmp_path / "with").classes == ["cat", "dog", "owl"]


def test_accumulation_equals_the_large_batch_without_batch_norm(folder, tmp_path):
    changes = {"model": "test_vit", "model_args": {"img_size": 32}, "img_size": 32, "epochs": 1, "opt": "adamw"}
    changes |= {"drop_path": 0.0}
    kept = [load_model(run(folder, tmp_path / str(n), accumulate=n, **changes)).model.state_dict() for n in (1, 2)]
    for name, weight in kept[0].items():
        torch.testing.assert_close(weight, kept[1][name], rtol=1e-3, atol=1e-5, msg=name)


def test_fine_tuning_starts_from_the_weights_and_linear_probe_moves_only_the_head(folder, tmp_path):
    base = run(folder, tmp_path / "base")
    three = make_folder(tmp_path / "three", classes=("bird", "cat", "fish"))
    options = {"model": None, "model_args": {}, "img_size": None, "init": str(base)}
    probe = run(three, tmp_path / "probe", freeze="backbone", ema=None, **options)
    before, after = load_model(base).model.state_dict(), load_model(probe).model.state_dict()
    assert after["head.weight"].shape[0] == 3
    for name, weight in before.items():
        if not name.startswith("head."):
            assert torch.equal(weight, after[name]), name
    tuned = load_model(run(three, tmp_path / "tuned", layer_decay=0.8, **options)).model.state_dict()
    assert not torch.equal(before["stem.0.conv.weight"], tuned["stem.0.conv.weight"])


def test_loss_that_is_not_finite_stops_with_step_rate_and_files(folder, tmp_path):
    with pytest.raises(TrainingStopped, match=r"not finite at step \d+ with lr .*\.png"):
        run(folder, tmp_path / "run", lr=1e30, clip_grad=None, opt="adamw", epochs=20)
    assert (tmp_path / "run" / "not_finite.txt").read_text().count(".png") == 8


def test_full_disk_at_a_checkpoint_keeps_the_previous_one(tmp_path, monkeypatch):
    path = tmp_path / "last.pt"
    write_checkpoint(path, {"step": 1})

    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_folder, "sync", full)
    with pytest.raises(CheckpointError, match="No space left on device; the previous one is whole"):
        write_checkpoint(path, {"step": 2})
    assert read_checkpoint(path) == {"step": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["last.pt"]


def test_full_disk_in_training_is_one_line_and_no_loss(folder, tmp_path, monkeypatch, capsys):
    written = []

    def full_later(temporary, path):
        written.append(path)
        if len(written) > 4:
            raise OSError(28, "No space left on device")
        temporary.replace(path)

    monkeypatch.setattr(checkpoint_module, "put_in_place", full_later)
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(TINY | {"data": str(folder), "epochs": 8, "checkpoint_minutes": 1e-6}))
    code, errors = failing(capsys, "train", "--recipe", recipe, "--out", tmp_path / "run")
    assert code == 1 and "No space left on device" in errors and "--resume" in errors
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["standing"]["step"] >= 1


def test_empty_folder_is_one_line(tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    code, errors = failing(capsys, "train", "--data", tmp_path / "empty", "--out", tmp_path / "run")
    assert code == 1 and "empty" in errors
    assert not (tmp_path / "run").exists()


def test_single_class_is_one_line(tmp_path, capsys):
    make_folder(tmp_path / "one", classes=("cat",))
    code, errors = failing(capsys, "train", "--data", tmp_path / "one", "--out", tmp_path / "run")
    assert code == 1 and "class" in errors


def test_wrong_recipe_key_names_the_nearest(folder, tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(f"data: {folder}\nwarm_up: 0.1\n")
    code, errors = failing(capsys, "train", "--recipe", recipe)
    assert code == 2 and "warm_up" in errors and "did you mean warmup" in errors
    code, errors = failing(capsys, "train", "--data", folder, "--epoch", "3")
    assert code == 2 and "epochs" in errors


def test_truncated_files_are_named_once_left_out_and_counted(tmp_path):
    data = tmp_path / "data"
    make_folder(data / "train", per_class=16)
    make_folder(data / "val", per_class=3, seed=1)
    bad = data / "train" / "cat" / "007.png"
    bad.write_bytes(bad.read_bytes()[:200])
    for cache in ("memory", "disk"):
        out = run(data, tmp_path / cache, cache=cache, workers=0, epochs=2)
        assert len(re.findall(r"left out: .*007\.png|1 of 32 .*007\.png", (out / "log.txt").read_text())) == 1


def test_damaged_validation_image_is_an_error_unless_left_out(tmp_path, capsys):
    data = tmp_path / "data"
    make_folder(data / "train")
    make_folder(data / "val", per_class=3, seed=1)
    bad = data / "val" / "dog" / "001.png"
    bad.write_bytes(b"")
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(TINY | {"data": str(data)}))
    code, errors = failing(capsys, "train", "--recipe", recipe, "--out", tmp_path / "a")
    assert code == 1 and "001.png" in errors and "skip_damaged" in errors
    out = run(data, tmp_path / "b", skip_damaged=True)
    figures = json.loads((out / "evaluation.json").read_text())["validation"]
    assert figures["images"] == 5 and "001.png" in figures["left_out"][0]


def test_validation_with_a_missing_class_maps_by_name_and_says_so(tmp_path):
    data = tmp_path / "data"
    make_folder(data / "train", classes=("a", "b", "c"))
    make_folder(data / "val", classes=("a", "c"), per_class=4, seed=1)
    out = run(data, tmp_path / "run")
    figures = json.loads((out / "evaluation.json").read_text())["validation"]
    assert figures["missing_classes"] == ["b"]
    assert [sum(n for i, _, n in figures["confusion"] if i == k) for k in range(3)] == [4, 0, 4]
    assert "b" in (out / "log.txt").read_text()


def test_validation_with_an_unknown_class_is_one_line(tmp_path, capsys):
    data = tmp_path / "data"
    make_folder(data / "train")
    make_folder(data / "val", classes=("cat", "zebra"), per_class=3)
    code, errors = failing(capsys, "train", "--data", data, "--out", tmp_path / "run")
    assert code == 1 and "zebra" in errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--epochs", "2", "--minutes", "3"], "epochs and minutes"),
        (["--batch_size", "1000"], "batch_size"),
        (["--model", "no_such_model"], "no_such_model"),
        (["--init", "nowhere"], "nowhere"),
        (["--warmup", "2"], "warmup"),
        (["--class_weights", "{zebra: 2}"], "zebra"),
    ],
)
def test_impossible_options_are_one_line(folder, tmp_path, capsys, words, said):
    code, errors = failing(capsys, "train", "--data", folder, "--out", tmp_path / "run", *words)
    assert code in (1, 2) and said in errors
    assert not (tmp_path / "run").exists(), "a failed start left something behind"


def test_a_used_run_folder_is_refused(folder, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "mine.txt").write_text("precious")
    with pytest.raises(RunFolderError, match="not empty"):
        run(folder, tmp_path / "run")
    assert (tmp_path / "run" / "mine.txt").read_text() == "precious"


def test_resume_refuses_other_data(folder, tmp_path):
    out = run(folder, tmp_path / "run")
    Image.new("RGB", (16, 16)).save(folder / "cat" / "new.png")
    with pytest.raises(RecipeError, match="not the data"):
        resume(out, console=quiet())


def test_a_damaged_test_image_costs_no_model_and_the_advice_works(tmp_path, capsys):
    make_folder(tmp_path / "data" / "train", per_class=12)
    bad = make_folder(tmp_path / "data" / "test", per_class=4) / "cat" / "001.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(EvaluationError, match=r"001\.png.*--skip_damaged true"):
        run(tmp_path / "data", tmp_path / "run")
    assert "test" not in load_model(tmp_path / "run").card.scores
    main(["train", "--resume", str(tmp_path / "run"), "--skip_damaged", "true"])
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["test"]["images"] == 7
    assert "test" in load_model(tmp_path / "run").card.scores


@pytest.mark.parametrize("cache", ["memory", "disk"])
def test_a_damaged_validation_image_is_found_before_the_first_step(tmp_path, cache):
    make_folder(tmp_path / "data" / "train", per_class=12)
    bad = make_folder(tmp_path / "data" / "val", per_class=4) / "dog" / "001.png"
    bad.write_bytes(bad.read_bytes()[:60])
    with pytest.raises(EvaluationError, match=r"001\.png"):
        run(tmp_path / "data", tmp_path / "run", cache=cache)
    assert not (tmp_path / "run").exists()


def test_a_run_that_ended_out_of_patience_trains_no_further_when_resumed(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(Judge, "figures", lambda *a: Evaluation(2, 1.0, top1=0.5))
    out = run(folder, tmp_path / "run", epochs=9, patience=2)
    before, rows = read_checkpoint(out / "checkpoints" / "last.pt"), (out / "metrics.csv").read_text()
    assert before["standing"]["step"] < before["steps"]
    resume(out, console=quiet())
    assert read_checkpoint(out / "checkpoints" / "last.pt")["standing"] == before["standing"]
    assert (out / "metrics.csv").read_text() == rows


def test_the_limit_without_a_gpu_is_written_down_and_kept(folder, tmp_path, monkeypatch):
    # as if the machine took 50 seconds for an image: 30 minutes are some steps
    monkeypatch.setattr("supertokenvit.training.assembly.seconds_per_image", lambda *a: (50.0, 1e-6))
    monkeypatch.setattr("supertokenvit.training.loop.steps_until", lambda *a: 5)
    out = run(folder, tmp_path / "run", epochs=None)
    recipe = yaml.safe_load((out / "recipe.yaml").read_text())
    assert (recipe["epochs"], recipe["minutes"]) == (None, 30.0)
    monkeypatch.setattr("supertokenvit.training.assembly.seconds_per_image", lambda *a: (1e-6, 1e-6))
    fast = Recipe(**(TINY | {"data": str(folder), "out": str(tmp_path / "fast"), "epochs": None, "eval_epochs": 50}))
    recipe = yaml.safe_load(train_recipe(fast, console=quiet()).recipe.read_text())
    assert (recipe["epochs"], recipe["minutes"]) == (100.0, None)


def test_a_run_can_be_resumed_when_what_it_started_from_is_gone(folder, tmp_path):
    base = run(folder, tmp_path / "base", ema=None)
    changes = {"model": None, "model_args": {}, "img_size": None, "init": str(base), "epochs": 2}
    whole = run(folder, tmp_path / "whole", **changes)
    (base).rename(tmp_path / "moved")
    resume(whole, console=quiet())
    assert load_model(whole).card.steps


def test_runs_that_begin_at_once_have_folders_of_their_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: new_run_folder(None, "flowers"), range(16)))
    assert len(set(made)) == 16


@pytest.mark.parametrize(("option", "value"), [("seed", -1), ("clip_grad", 0), ("workers", -1), ("ema", 1.5)])
def test_numbers_that_mean_nothing_are_refused(option, value):
    with pytest.raises(RecipeError, match=f"{option}={value}"):
        Recipe(**{option: value})


def test_a_device_that_is_not_there_is_one_line(folder, capsys):
    assert failing(capsys, "train", "--data", folder, "--device", "gpu")[1].startswith("supertokenvit: device=gpu: ")


def test_a_metrics_row_cut_by_a_full_disk_is_dropped(tmp_path):
    path, row = tmp_path / "metrics.csv", {"step": 0, "train_loss": 1.0, "val_top1": 1.0}
    for step in (1, 2):
        append_metrics(path, row | {"step": step})
    path.write_text(path.read_text()[:-4])
    cut_metrics(path, 5)
    assert [row["step"] for row in read_metrics(path)] == [1]


def test_classes_that_are_called_like_formulas_are_drawn_as_they_are(tmp_path):
    """matplotlib read $1_$ as mathematics, and the training ended at its first step."""
    names = ("$1_$", "$5_$", "a_b^c", "\\frac", "{")
    out = run(make_folder(tmp_path / "data", classes=names, per_class=8), tmp_path / "run", epochs=1)
    assert (out / "samples.png").exists() and (out / "confusion.png").exists()


def test_numbers_as_class_names_in_a_recipe(tmp_path):
    data = make_folder(tmp_path / "data", classes=("1", "2"))
    recipe = tmp_path / "r.yaml"
    recipe.write_text(yaml.safe_dump(TINY | {"data": str(data), "epochs": 1, "mixup": 0.0, "cutmix": 0.0}))
    recipe.write_text(recipe.read_text() + "class_weights:\n  1: 2.0\n")
    main(["train", "--recipe", str(recipe), "--out", str(tmp_path / "run")])
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["class_weights"] == {"1": 2.0}
    with pytest.raises(RecipeError, match="reads a class name as True: write it in quotes"):
        Recipe(class_weights={True: 2.0})


def test_the_weights_may_be_read_by_whoever_may_read_the_config(folder, tmp_path):
    out = run(folder, tmp_path / "run", epochs=1) / "model"
    assert (out / "model.safetensors").stat().st_mode == (out / "config.json").stat().st_mode


def test_a_second_signal_ends_the_run_at_once_but_for_those_of_a_launcher(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    interruption = progress.Interruption()
    with interruption.steps():
        interruption.note(2, None)
        now[0] += 0.1  # torchrun and the terminal both send one
        interruption.note(2, None)
        assert interruption.name == "SIGINT"
        now[0] += 2
        with pytest.raises(KeyboardInterrupt, match="SIGINT, twice"):
            interruption.note(2, None)


def test_before_and_after_the_steps_a_signal_ends_the_run_at_once():
    interruption = progress.Interruption()
    with pytest.raises(progress.Interrupted, match="SIGTERM: nothing was saved: begin again") as error:
        interruption.note(15, None)
    assert error.value.exit_code == 143
    interruption.note(15, None)  # of a launcher, while the first one is dealt with


def test_a_batch_that_damaged_images_shrink_is_filled_up_with_the_others(tmp_path):
    """BatchNorm cannot train on a single image, and a smaller batch would have another gradient."""
    data = make_folder(tmp_path / "data" / "train", per_class=8, size=32).parent
    make_folder(data / "val", per_class=2, size=32)
    for i in (0, 5, 10):
        (data / "train" / ("cat" if i < 8 else "dog") / f"{i % 8:03}.png").write_bytes(b"damaged")
    options = {"model": "resnet10t", "model_args": {}, "img_size": 32, "batch_size": 2, "ema": None, "drop_path": 0.0}
    out = run(data, tmp_path / "run", cache="disk", workers=0, mixup=0.0, cutmix=0.0, epochs=1, seed=3, **options)
    assert (out / "log.txt").read_text().count("left out: ") == 3


def test_a_damaged_validation_image_that_was_not_looked_at_costs_no_step(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("supertokenvit.training.judge.LOOKED_AT", 2)
    data = make_folder(tmp_path / "data" / "train").parent
    bad = make_folder(data / "val", per_class=4) / "dog" / "001.png"
    bad.write_bytes(b"damaged")
    with pytest.raises(EvaluationError, match="001.png"):
        run(data, tmp_path / "run", cache="disk", workers=0)
    assert read_checkpoint(tmp_path / "run" / "checkpoints" / "last.pt")["standing"]["step"] == 3
    resume(tmp_path / "run", console=quiet(), skip_damaged=True)
    figures = json.loads((tmp_path / "run" / "evaluation.json").read_text())["validation"]
    assert figures["images"] == 7
