"""Measures how fast the arms of queue.yaml train, then trains them one after the other; continues where it stopped.

python -m studies.dense.run FOLDER --speed [--rounds 15]
python -m studies.dense.run FOLDER [--group returns] [--work runs/dense] [--minutes N] [--list]

FOLDER holds `camvid` with train, val and test, each with images and masks. Speeds are measured first, alone on a quiet
machine: they decide how many steps an arm of equal time makes, so that a busy machine costs time and not truth.
Begin the second command once for each core (OMP_NUM_THREADS=1): each process takes arms that no other one has.
"""

import argparse
import json
import shutil
import signal
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from supertokenvit.dense import TASKS
from supertokenvit.machine import environment, keep_freed_memory
from supertokenvit.model.family import is_variant
from supertokenvit.model_folder import load_model
from supertokenvit.run_folder import RunFolder
from supertokenvit.training.assembly import to_train
from supertokenvit.training.pacing import random_images, recipe_step
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.report import read_metrics
from supertokenvit.training.run import resume, train_recipe
from supertokenvit.training.starting_model import build

from .. import common
from ..common import add_row, commit, now, read_rows, write_rows
from ..train import claimed
from . import returns  # noqa: F401  registers the ways with timm

QUEUE = Path(__file__).with_name("queue.yaml")
CPU = torch.device("cpu")


def results() -> Path:
    """Returns the folder of the rows."""
    return common.RESULTS / "dense"


def read_queue() -> dict[str, Any]:
    """Reads the queue."""
    return yaml.safe_load(QUEUE.read_text())


def recipe_of(queue: dict[str, Any], arm: dict[str, Any]) -> Recipe:
    """Returns the recipe of an arm, without data and length."""
    args = {key: value for key, value in arm.items() if key != "model"}
    if not is_variant(arm["model"]) and arm["model"].startswith("stt_"):
        args["img_size"] = queue["recipe"]["img_size"]  # the package does so for models of its own family
    return Recipe(**queue["recipe"], model=arm["model"], model_args=args)


def arms(queue: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the arms of equal time, by name."""
    return {
        name: arm for about in queue["groups"].values() if "seconds" in about for name, arm in about["arms"].items()
    }


def measure_speed(queue: dict[str, Any], rounds: int) -> None:
    """Measures the seconds of a training step of each arm of equal time, in turns, and keeps a row of each."""
    torch.set_num_threads(1)
    K = len(queue["recipe"]["classes"])
    steps: dict[str, Callable[[], object]] = {}
    for name, arm in arms(queue).items():
        recipe, task = recipe_of(queue, arm), TASKS["segmentation"]()
        model = build(recipe, K, type(task)).train()
        to_train(model, recipe, CPU)
        step, images = recipe_step(model, recipe, CPU, task), random_images(recipe, CPU, queue["recipe"]["img_size"])
        targets = task.blank_targets(len(images), images.shape[-1], K)
        steps[name] = lambda step=step, images=images, targets=targets: step(images, targets, lr=1e-3)  # type: ignore[misc]
    times: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, make in steps.items():
            began = time.perf_counter()
            make()
            if turn:  # the first one warms up
                times[name].append(time.perf_counter() - began)
    rows = []
    for name, found in times.items():
        low, middle, high = statistics.quantiles(found, n=4)
        rows.append(
            {
                "arm": name, "args": json.dumps(arms(queue)[name], sort_keys=True), "seconds_per_step": middle,
                "low": low, "high": high, "rounds": rounds, "date": now(),
                "environment": json.dumps(environment() | {"commit": commit()}),
            }
        )  # fmt: skip
        print(f"{name}: {middle:.3f} s a step ({low:.3f} to {high:.3f})")
    write_rows(results() / "speed.csv", rows)


def steps_of(about: dict[str, Any], name: str, arm: dict[str, Any]) -> int | None:
    """Returns the steps that an arm makes; None if its speed has not been measured."""
    if "steps" in about:
        return about["steps"]
    args = json.dumps(arm, sort_keys=True)
    rows = [row for row in read_rows(results() / "speed.csv") if (row["arm"], row["args"]) == (name, args)]
    return round(about["seconds"] / float(rows[-1]["seconds_per_step"])) if rows else None


def jobs(queue: dict[str, Any]) -> list[dict[str, Any]]:
    """Lists every arm with every seed, the first seed of all arms first."""
    found = []
    for seed in queue["seeds"]:
        for group, about in queue["groups"].items():
            for name, arm in about["arms"].items():
                steps = steps_of(about, name, arm)
                args = json.dumps(queue["recipe"] | arm | {"steps": steps}, sort_keys=True)
                found.append({"group": group, "arm": name, "seed": seed, "steps": steps, "args": args})
    return found


def view(queue: dict[str, Any], group: str, data: Path, work: Path) -> Path:
    """Makes a folder with links to the splits that a group may see."""
    folder = work / "data" / group / queue["data"]
    folder.mkdir(parents=True, exist_ok=True)
    for part in ("train", "val", *(["test"] if queue["groups"][group].get("test") else [])):
        source = (data / queue["data"] / part).resolve(strict=True)
        if not (folder / part).is_symlink():
            (folder / part).symlink_to(source)
    return folder


def train(job: dict[str, Any], queue: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    """Trains one arm, or goes on with it, and returns its row."""
    folder = RunFolder(work / name_of(job))
    arm = queue["groups"][job["group"]]["arms"][job["arm"]]
    if folder.last.exists():
        resume(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        where = view(queue, job["group"], data, work)
        recipe = recipe_of(queue, arm)
        per_epoch = len(list((where / "train" / "images").iterdir())) // queue["recipe"]["batch_size"]
        recipe.data, recipe.out, recipe.seed = str(where), str(folder), job["seed"]
        recipe.epochs = job["steps"] / per_epoch
        train_recipe(recipe)
    found, trained = json.loads(folder.evaluation.read_text()), load_model(folder)
    test = found.get("test", {})
    return job | {
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        "val_mean_iou": found["validation"]["mean_iou"],
        "val_pixel_accuracy": found["validation"]["pixel_accuracy"],
        "test_mean_iou": test.get("mean_iou", ""),
        "test_pixel_accuracy": test.get("pixel_accuracy", ""),
        "per_class": json.dumps({k: f["iou"] for k, f in (test or found["validation"])["per_class"].items()}),
        "minutes": read_metrics(folder.metrics)[-1]["minutes"],
        "date": now(),
        "environment": json.dumps(environment() | {"commit": commit()}),
    }


def name_of(job: dict[str, Any]) -> str:
    """Names the run folder of an arm; another number of steps is another run."""
    words = "".join(c if c.isalnum() else "_" for c in f"{job['group']}-{job['arm']}")
    return f"{words}-{job['steps']}-{job['seed']}"


def done_of(queue: dict[str, Any]) -> dict[tuple[str, int], dict[str, str]]:
    """Returns the row of every arm and seed that has one for the present queue."""
    return {(row["args"], int(row["seed"])): row for row in read_rows(results() / "runs.csv")}


def main(argv: Sequence[str] | None = None) -> None:
    """Measures speeds, or works through the queue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds camvid")
    parser.add_argument("--speed", action="store_true", help="measure training speeds, and train nothing")
    parser.add_argument("--rounds", type=int, default=15, help="steps of each arm that are timed")
    parser.add_argument("--group", help="this group only")
    parser.add_argument("--work", type=Path, default=Path("runs/dense"), help="folder for the run folders")
    parser.add_argument("--minutes", type=float, help="begin no run after so many")
    parser.add_argument("--list", action="store_true", help="say what is done and what is not")
    args = parser.parse_args(argv)
    queue, started = read_queue(), time.monotonic()
    keep_freed_memory()
    if args.speed:
        measure_speed(queue, args.rounds)
        return
    args.work.mkdir(parents=True, exist_ok=True)
    for job in jobs(queue):
        row = done_of(queue).get((job["args"], job["seed"]))
        name = f"{job['group']}: {job['arm']}, seed {job['seed']}"
        if args.list or job["steps"] is None:
            state = f"{float(row['val_mean_iou']):.4f}" if row else "not run yet"
            print(f"{name}: {state if job['steps'] else 'measure its speed first (--speed)'}")
        elif row is None and args.group in (None, job["group"]):
            if args.minutes is not None and time.monotonic() - started > 60 * args.minutes:
                break
            with claimed(args.work, name_of(job)) as ours:
                if ours and (job["args"], job["seed"]) not in done_of(queue):
                    print(name, flush=True)
                    add_row(results() / "runs.csv", train(job, queue, args.data, args.work))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
