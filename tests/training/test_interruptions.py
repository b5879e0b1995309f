"""Whatever ends a run, and whenever: it goes on to the very same end, or one line says what to do, and that works."""

import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from supertokenvit.cli import main
from supertokenvit.run_folder import RunFolder, RunFolderError, new_run_folder
from supertokenvit.training.checkpoint import CheckpointError
from supertokenvit.training.recipe import RecipeError
from supertokenvit.training.run import resume, train

from .conftest import TINY, make_folder

OPTIONS = TINY | {"epochs": 3, "checkpoint_minutes": 1e-6, "cache": "memory", "workers": 0}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("interruptions") / "data", per_class=20)


@pytest.fixture(scope="module")
def recipe(data):
    path = data.parent / "recipe.yaml"
    path.write_text(yaml.safe_dump(OPTIONS | {"data": str(data)}))
    return path


@pytest.fixture(scope="module")
def whole(data, recipe):
    """The weights of a run that nothing interrupted."""
    main(["train", "--recipe", str(recipe), "--out", str(data.parent / "whole")])
    return load_file(data.parent / "whole" / "model" / "model.safetensors")


def same(run, whole):
    weights = load_file(Path(run) / "model" / "model.safetensors")
    assert weights.keys() == whole.keys()
    for name, weight in whole.items():
        assert torch.equal(weight, weights[name]), name
    left = {path.name for folder in (run, run / "checkpoints") for path in Path(folder).iterdir()}
    assert {name for name in left if name.startswith(".")} <= {".lock"}  # nothing half-written stays


def started(*words, program=("-m", "supertokenvit.cli")):
    command = [sys.executable, *program, *map(str, words)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def next_words(out, recipe):
    """What a user types after a run was killed."""
    return ["train", "--resume", out] if (out / "recipe.yaml").exists() else ["train", "--recipe", recipe, "--out", out]


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_at_twenty_random_moments(tmp_path, recipe, whole):
    out, moments = tmp_path / "run", random.Random(0)
    began = time.monotonic()
    timed = started("train", "--recipe", recipe, "--out", tmp_path / "timed")
    output, _ = timed.communicate()
    assert timed.returncode == 0, output
    length = time.monotonic() - began
    killed = 0
    while killed < 20:
        process = started(*next_words(out, recipe))
        time.sleep(moments.uniform(0.3, 1.05) * length)  # the moments at which it is killed are what is tested
        if process.poll() is None:
            process.kill()
            killed += 1
        output, _ = process.communicate()
        assert process.returncode in (0, -signal.SIGKILL), output
        if process.returncode == 0:
            same(out, whole)
            shutil.rmtree(out)
    process = started(*next_words(out, recipe))
    output, _ = process.communicate()
    assert process.returncode == 0, output
    same(out, whole)


# Ends the process, as a power failure would, before a certain one of the calls that put something in its place.
KILLED = """
import os, shutil, sys
from pathlib import Path
left, seen = int(sys.argv[1]), 0
def counted(call):
    def before(*args, **named):
        global seen
        if "run" in str(args[0]) or isinstance(args[0], int):
            seen += 1
            if seen == left:
                os._exit(9)
        return call(*args, **named)
    return before
os.replace, os.rename, os.fsync = counted(os.replace), counted(os.rename), counted(os.fsync)
shutil.rmtree = counted(shutil.rmtree)
from supertokenvit.cli import main
main(sys.argv[2:])
print("calls:", seen)
"""


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_killed_between_any_two_steps_of_saving(tmp_path, data, whole):
    """With few checkpoints, so that most of the calls are those around the model and its figures."""
    program, recipe = tmp_path / "killed.py", tmp_path / "recipe.yaml"
    program.write_text(KILLED)
    few = OPTIONS | {"data": str(data), "checkpoint_minutes": 60.0, "eval_epochs": 3.0}
    recipe.write_text(yaml.safe_dump(few))
    output, _ = started(0, "train", "--recipe", recipe, "--out", tmp_path / "run-all", program=[program]).communicate()
    calls = int(re.search(r"calls: (\\d+)".replace("\\\\", "\\"), output).group(1))
    expected = load_file(tmp_path / "run-all" / "model" / "model.safetensors")
    assert 15 < calls < 80
    for number in range(1, calls + 1, max(1, calls // 25)):
        out = tmp_path / f"run-{number}"
        process = started(number, "train", "--recipe", recipe, "--out", out, program=[program])
        output, _ = process.communicate()
        assert process.returncode == 9, output
        assert not (out / "model").exists() or load_file(out / "model" / "model.safetensors")  # never half a model
        process = started(*next_words(out, recipe))
        output, _ = process.communicate()
        assert process.returncode == 0, (number, output)
        same(out, expected)


def failing(capsys, *words):
    with pytest.raises(SystemExit) as error:
        main(list(map(str, words)))
    lines = capsys.readouterr().err.strip().splitlines()
    assert error.value.code in (1, 2) and lines[-1].startswith("supertokenvit: "), lines
    return lines[-1]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="only root may make a small file system")
@pytest.mark.parametrize(
    "kilobytes", [4, 60, 260, 700, *(pytest.param(kB, marks=pytest.mark.slow) for kB in (12, 200, 420, 560, 900))]
)
def test_a_disk_that_is_full_at_any_write_is_one_line_and_nothing_is_lost(tmp_path, recipe, whole, capsys, kilobytes):
    small = tmp_path / "small"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={kilobytes}k", "tmpfs", small]).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        out = small / "run"
        said = failing(capsys, "train", "--recipe", recipe, "--out", out)
        assert "No space left on device" in said and "make room" in said.lower()
        subprocess.run(["mount", "-o", "remount,size=50m", small], check=True)
        words = ["--resume", out] if "--resume" in said else ["--recipe", recipe, "--out", out]
        main(["train", *map(str, words)])
        same(out, whole)
    finally:
        subprocess.run(["umount", "-l", small], check=True)


def test_two_trainings_do_not_write_into_one_folder(tmp_path, recipe, whole, capsys):
    out = tmp_path / "run"
    main(["train", "--recipe", str(recipe), "--out", str(out)])
    with RunFolder(out).owned():
        for words in (["--resume", out], ["--recipe", recipe, "--out", out]):
            assert "another training is writing into it" in failing(capsys, "train", *words)
    same(out, whole)


def test_of_two_that_begin_at_once_one_goes_on(tmp_path, recipe, whole):
    both = [started("train", "--recipe", recipe, "--out", tmp_path / "run") for _ in range(2)]
    outputs = [process.communicate()[0] for process in both]
    codes = sorted(process.returncode for process in both)
    assert codes == [0, 1], outputs
    assert any("another training is writing into it" in text or "not empty" in text for text in outputs)
    same(tmp_path / "run", whole)


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_before_the_first_checkpoint_is_one_line_whose_advice_holds(tmp_path, recipe, whole, number):
    out = tmp_path / "run"
    process = started("train", "--recipe", recipe, "--out", out)
    while not (out / "log.txt").exists():
        assert process.poll() is None
        time.sleep(0.001)
    process.send_signal(number)
    output, _ = process.communicate()
    assert process.returncode != 0 and "Traceback" not in output
    assert output.strip().splitlines()[-1].endswith(f"--resume {out}"), output
    main(["train", "--resume", str(out)])
    same(out, whole)


@pytest.mark.parametrize("there", [[], ["log.txt"], ["log.txt", "recipe.yaml", "samples.png", "metrics.csv"]])
def test_a_folder_in_which_a_run_only_began_can_be_taken_over(tmp_path, recipe, whole, there):
    out = tmp_path / "run"
    out.mkdir()
    for name in there:
        (out / name).write_text("2026-01-01 12:00:00 data: x\n" if name == "log.txt" else "x")
    main(["train", "--recipe", str(recipe), "--out", str(out)])
    same(out, whole)


def test_a_run_that_cannot_begin_again_keeps_its_recipe(tmp_path, recipe, data, whole, monkeypatch):
    out = tmp_path / "run"
    out.mkdir()
    shutil.copy(recipe, out / "recipe.yaml")

    def fails(*args, **kwargs):
        raise RecipeError("no such device today")

    with monkeypatch.context() as today:
        today.setattr("supertokenvit.training.run.begin", fails)
        with pytest.raises(RecipeError, match="today"):
            resume(out)
    resume(out)
    same(out, whole)


@pytest.mark.parametrize("there", ["photo.png", "log.txt", "checkpoints/mine.pt", ".gitignore", "model/x"])
def test_a_folder_with_things_of_others_is_left_alone(tmp_path, recipe, capsys, there):
    path = tmp_path / "run" / there
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    said = failing(capsys, "train", "--recipe", recipe, "--out", tmp_path / "run")
    assert "not empty; choose another --out" in said and "--resume" not in said
    assert path.read_text() == "mine"


def test_a_failed_start_leaves_nothing(tmp_path, data, capsys):
    out = tmp_path / "run"
    with pytest.raises(RecipeError):
        train(data, **(TINY | {"out": str(out), "batch_size": 1000}))
    assert not out.exists()


def test_data_that_was_moved_is_named_and_checked(tmp_path, recipe, whole, data, capsys, monkeypatch):
    shutil.copytree(data, tmp_path / "here" / "d")
    monkeypatch.chdir(tmp_path / "here")
    train("d", out="run", **(OPTIONS | {"epochs": 1}))
    monkeypatch.chdir(tmp_path)
    resume("here/run")  # the relative path holds where the run was begun
    main(["evaluate", "--model", "here/run"])
    (tmp_path / "here" / "d").rename(tmp_path / "e")
    assert "say where they are with --data" in failing(capsys, "train", "--resume", "here/run")
    main(["train", "--resume", "here/run", "--data", "e"])
    make_folder(tmp_path / "f", per_class=19)
    with pytest.raises(RecipeError, match="not the data that this run began with"):
        resume("here/run", data="f")


def test_resume_from_python_is_guarded_as_the_command_is(tmp_path):
    with pytest.raises(RecipeError, match="lr cannot change .workers, cache"):
        resume(tmp_path, lr=0.5)
    with pytest.raises(RecipeError, match="no run to resume there"):
        resume(tmp_path)


@pytest.mark.parametrize("text", ["", "- 1", "model: [", "lr_of_tomorrow: 3", "\udcff"])
def test_a_damaged_recipe_of_a_run_is_one_line(tmp_path, text):
    (tmp_path / "recipe.yaml").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RecipeError, match="recipe.yaml: damaged, or of another version") as error:
        resume(tmp_path)
    assert "\n" not in str(error.value)


def test_a_damaged_checkpoint_says_how_to_go_on(tmp_path, recipe, whole):
    out = tmp_path / "run"
    main(["train", "--recipe", str(recipe), "--out", str(out)])
    (out / "checkpoints" / "last.pt").write_bytes(b"half")
    with pytest.raises(CheckpointError, match="with last.pt removed, --resume goes on from there"):
        resume(out)
    (out / "checkpoints" / "last.pt").unlink()
    resume(out)
    same(out, whole)


def test_a_file_at_the_place_of_the_folder_is_one_line(tmp_path):
    (tmp_path / "run").write_text("")
    with pytest.raises(RunFolderError, match="a file; choose another --out"):
        new_run_folder(str(tmp_path / "run"), "d")
