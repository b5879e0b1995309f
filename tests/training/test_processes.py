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
import timm
import torch
import yaml
from rich.console import Console

from supertokenvit.data.sources import ProcessShare
from supertokenvit.data.splits import open_splits
from supertokenvit.evaluation import evaluate_source
from supertokenvit.model_folder import ModelCard, TrainedModel, load_model
from supertokenvit.prediction import Predictor
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.report import read_metrics
from supertokenvit.training.run import resume, train_recipe

from .conftest import make_folder

# a frozen stem: BatchNorm in training, like stochastic depth, would see the images of its own process only
OPTIONS = {
    "model": "stt_nano", "model_args": {"width": 32, "heads": 2, "global_layers": 2}, "freeze": "stem", "img_size": 32,
    "batch_size": 32, "epochs": 3, "lr": 1e-3, "hflip": 0.5, "device": "cpu", "precision": "fp32", "clip_grad": 1.0,
    "class_weights": {"cat": 3.0}, "mixup": 0.2, "cutmix": 0.5, "erasing": 0.25, "randaugment": 5,
}  # fmt: skip
HARD = {"mixup": 0.0, "cutmix": 0.0}  # labels as class numbers, for which class weights count
GRADIENTS = """
import sys, torch
from supertokenvit.cli import main
from supertokenvit.training import loop
begin = loop.Trainer.__init__
def init(self, *args, **named):
    begin(self, *args, **named)
    step, kept = self.optimizer.step, []
    def save(*args, **options):
        grads = {n: p.grad for n, p in self.run.model.named_parameters() if p.grad is not None}
        grads = {n: g.full_tensor() if hasattr(g, "full_tensor") else g for n, g in grads.items()}
        if self.processes.is_main and not kept:
            torch.save(grads, sys.argv[1])
        kept.append(True)
        return step(*args, **options)
    self.optimizer.step = save
loop.Trainer.__init__ = init
main(sys.argv[2:])
"""


def launched(*words, program=("-m", "supertokenvit.cli")):
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, *map(str, program), *map(str, words)]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)


def together(folder, data, **changes):
    """Trains on two processes."""
    recipe = folder.with_suffix(".yaml")
    recipe.write_text(yaml.safe_dump(asdict(Recipe(**(OPTIONS | changes)))))
    process = launched("train", "--recipe", recipe, "--data", data, "--out", folder)
    output, _ = process.communicate(timeout=200)
    assert process.returncode == 0, output[-3000:]
    assert "Warning" not in output, output[:3000]
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


def single(folder, data, **changes):
    """Trains on this process."""
    return train_recipe(
        Recipe(**(OPTIONS | {"data": str(data), "out": str(folder)} | changes)), console=Console(quiet=True)
    ).path


@pytest.fixture(scope="module")
def alone(data, tmp_path_factory):
    return single(tmp_path_factory.mktemp("alone") / "run", data)


@pytest.mark.parametrize(
    "changes",
    [{}, {"shard": True}, pytest.param({"accumulate": 2, "cache": "disk"}, marks=pytest.mark.slow)],
    ids=str,
)
def test_two_processes_train_what_one_trains(changes, alone, data, tmp_path):
    assert_same_run(alone, together(tmp_path / "run", data, **changes))


@pytest.mark.slow
def test_two_processes_train_on_the_sizes_that_one_trains_on(data, tmp_path):
    sizes = {"sizes": [24, 32, 40], "epochs": 2}
    assert_same_run(single(tmp_path / "alone", data, **sizes), together(tmp_path / "together", data, **sizes))


@pytest.mark.parametrize(
    "changes",
    [{}, pytest.param({"shard": True, "accumulate": 2}, marks=pytest.mark.slow)],
    ids=str,
)
def test_gradients_of_two_processes_are_those_of_one(changes, data, tmp_path, monkeypatch):
    """Losses and most optimisers do not show a wrong factor."""
    program = tmp_path / "gradients.py"
    program.write_text(GRADIENTS)
    options = OPTIONS | HARD | {"epochs": 0.5, "clip_grad": None}
    grads = []
    for name, extra in (("one", {}), ("two", changes)):
        recipe, kept = tmp_path / f"{name}.yaml", tmp_path / f"{name}.pt"
        recipe.write_text(yaml.safe_dump(options | extra))
        words = [kept, "train", "--recipe", recipe, "--data", data, "--out", tmp_path / name]
        if name == "one":
            subprocess.run([sys.executable, program, *map(str, words)], check=True, capture_output=True, timeout=200)
        else:
            process = launched(*words, program=(program,))
            output, _ = process.communicate(timeout=200)
            assert process.returncode == 0, output[-3000:]
        grads.append(torch.load(kept, weights_only=True))
    assert grads[0].keys() == grads[1].keys() and len(grads[0]) > 20
    for name, grad in grads[0].items():
        torch.testing.assert_close(grad, grads[1][name], rtol=1e-3, atol=1e-6, msg=name)


def test_each_validation_image_counts_once(tmp_path):
    source = open_splits(str(make_folder(tmp_path / "data", per_class=7))).train
    shares = [ProcessShare(source, rank, 5) for rank in range(5)]
    assert {len(share) for share in shares} == {3} and 5 * 3 > len(source)
    assert sorted({int(i) for share in shares for i in share.indices}) == list(range(len(source)))
    torch.manual_seed(0)
    model = timm.create_model("stt_nano", num_classes=2, width=32, heads=2)
    config = {"input_size": (3, 32, 32), "mean": (0.5,) * 3, "std": (0.25,) * 3, "interpolation": "bicubic"}
    config |= {"crop_pct": 1.0, "crop_mode": "center"}
    predictor = Predictor.of(TrainedModel(model, source.classes, config, ModelCard(), tmp_path))
    answers = []
    for share in shares[:-1]:
        evaluate_source(
            predictor, source, share=share, gather=lambda mine: answers.append(mine) or [mine], progress=False
        )
    shared = evaluate_source(predictor, source, share=shares[-1], gather=lambda mine: [mine, *answers], progress=False)
    whole = evaluate_source(predictor, source, progress=False)
    assert shared.images == whole.images == len(source) and shared.confusion == whole.confusion
    assert shared.loss == pytest.approx(whole.loss, rel=1e-5)


def checkpointed(folder, process):
    """Waits for a checkpoint."""
    while not (folder / "checkpoints" / "last.pt").exists():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.01)


@pytest.mark.slow
@pytest.mark.parametrize("shard", [False, True])
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
        assert_same_run(whole, resume(elsewhere, console=Console(quiet=True)).path)  # on one process
