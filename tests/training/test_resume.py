"""A run that is killed and resumed ends with the very same weights as one that never stopped."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file

from .conftest import TINY, make_folder


def command(*words):
    return [sys.executable, "-m", "supertokenvit.cli", *map(str, words)]


def run(*words):
    done = subprocess.run(command(*words), capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-2000:]


def weights(run_folder):
    return load_file(Path(run_folder) / "model" / "model.safetensors")


@pytest.mark.parametrize("cache", [pytest.param("memory", marks=pytest.mark.slow), "disk"])
def test_killed_and_resumed_with_other_workers_equals_never_interrupted(tmp_path, cache):
    data = make_folder(tmp_path / "data", per_class=20)
    recipe = tmp_path / "recipe.yaml"
    # checkpoint_minutes below a step's time: a checkpoint after each step, so that a kill may fall inside a write
    recipe.write_text(
        yaml.safe_dump(
            TINY
            | {"data": str(data), "epochs": 8, "checkpoint_minutes": 1e-6, "cache": cache, "workers": 0}
            | {"sizes": [12, 16, 24]}
        )
    )
    run("train", "--recipe", recipe, "--out", tmp_path / "whole")

    killed = tmp_path / "killed"
    process = subprocess.Popen(
        command("train", "--recipe", recipe, "--out", killed), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    checkpoint = killed / "checkpoints" / "last.pt"
    while not checkpoint.exists():
        assert process.poll() is None, "ended before the first checkpoint"
        time.sleep(0.01)
    while not checkpoint.with_name(".last.pt").exists() and process.poll() is None:
        pass  # inside the writing of the next one
    assert process.poll() is None, "ended before it could be killed: make the run longer"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (killed / "model").exists()

    run("train", "--resume", killed, "--workers", "2" if cache == "disk" else "0")
    expected, resumed = weights(tmp_path / "whole"), weights(killed)
    assert expected.keys() == resumed.keys()
    for name, weight in expected.items():
        assert torch.equal(weight, resumed[name]), name
    columns = [Path(folder, "metrics.csv").read_text().splitlines() for folder in (tmp_path / "whole", killed)]
    assert [row.split(",")[:7] for row in columns[0]] == [row.split(",")[:7] for row in columns[1]]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)])
def test_a_signal_to_all_processes_saves_and_leaves_cleanly(number, tmp_path):
    """As a terminal sends Ctrl-C: to the workers that decode, too."""
    data = make_folder(tmp_path / "data", per_class=20)
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(yaml.safe_dump(TINY | {"data": str(data), "epochs": 400, "cache": "disk", "workers": 1}))
    out = tmp_path / "run"
    process = subprocess.Popen(
        command("train", "--recipe", recipe, "--out", out),
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    while not (out / "metrics.csv").exists():
        assert process.poll() is None
        time.sleep(0.02)
    os.killpg(process.pid, number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 1
    assert f"{number.name} at step" in errors and "--resume" in errors and "Traceback" not in errors
    assert (out / "checkpoints" / "last.pt").exists()
