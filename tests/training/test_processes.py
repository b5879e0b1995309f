"""Two processes, started as a user starts them, train what one trains; and survive what one survives."""

import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict

import psutil
import pytest
import torch
import yaml
from rich.console import Console

from supertoken.run_folder import load_model
from supertoken.training.loop import resume, train
from supertoken.training.recipe import Recipe
from supertoken.training.report import read_metrics

from .conftest import make_folder

# no BatchNorm and no stochastic depth: those see their process's images only
OPTIONS = {
    "model": "test_vit", "model_args": {"img_size": 32}, "img_size": 32, "batch_size": 32, "epochs": 3, "lr": 1e-3,
    "mixup": 0.2, "cutmix": 0.5, "erasing": 0.25, "randaugment": 5, "hflip": 0.5, "device": "cpu", "clip_grad": 1.0,
    "class_weights": {"cat": 3.0},
}  # fmt: skip


def launched(*words, processes=2):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [*launcher, "-m", "supertoken.cli", *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def together(folder, data, **changes):
    """Trains on two processes."""
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(asdict(Recipe(**(OPTIONS | changes)))))
    process = launched("train", "--recipe", recipe, "--data", data, "--out", folder)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output[-3000:]
    return folder


def assert_same_run(one, other):
    for row, row2 in zip(read_metrics(one / "metrics.csv"), read_metrics(other / "metrics.csv"), strict=True):
        for name in ("step", "train_loss", "train_accuracy", "val_loss", "val_top1"):
            assert row[name] == pytest.approx(row2[name], rel=2e-3, abs=2e-3), name
    weights = load_model(other).model.state_dict()
    for name, weight in load_model(one).model.state_dict().items():
        torch.testing.assert_close(weight, weights[name], rtol=1e-2, atol=1e-4, msg=name)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("data") / "animals", per_class=37)


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    out = tmp_path_factory.mktemp("alone") / "run"
    return train(Recipe(**(OPTIONS | {"data": str(data), "out": str(out)})), Console(quiet=True))


@pytest.mark.parametrize(
    "changes",
    [{}, {"shard": True}, pytest.param({"accumulate": 2, "cache": "disk"}, marks=pytest.mark.slow)],
    ids=str,
)
def test_two_processes_train_what_one_trains(changes, alone, data, tmp_path):
    assert_same_run(alone, together(tmp_path / "run", data, **changes))


def checkpointed(folder, process):
    """Waits for a checkpoint."""
    while not (folder / "checkpoints" / "last.pt").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)


@pytest.mark.parametrize("shard", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_lost_process_ends_the_run_and_it_goes_on_to_the_same_end(shard, data, tmp_path):
    changes = {"epochs": 20, "checkpoint_minutes": 1e-6, "shard": shard}
    whole = together(tmp_path / "whole", data, **changes)
    killed = tmp_path / "killed"
    recipe = tmp_path / "whole.yaml"
    process = launched("train", "--recipe", recipe, "--data", data, "--out", killed)
    checkpointed(killed, process)
    child = psutil.Process(process.pid).children()[-1]
    child.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=60)
    assert process.returncode != 0 and not (killed / "model").exists()
    assert "another process of this run is gone" in output and "--resume" in output

    elsewhere = shutil.copytree(killed, tmp_path / "elsewhere")
    process = launched("train", "--resume", killed)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output[-3000:]
    expected, resumed = load_model(whole).model.state_dict(), load_model(killed).model.state_dict()
    assert all(torch.equal(weight, resumed[name]) for name, weight in expected.items())
    if not shard:
        assert_same_run(whole, resume(elsewhere, Console(quiet=True)))  # on one process
