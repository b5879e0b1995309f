"""Measures how fast the arms of a queue train, then trains them one after the other; continues where it stopped.

python -m studies.dense.run segmentation FOLDER --speed [--rounds 15]
python -m studies.dense.run segmentation FOLDER [--group returns] [--arms stt_t] [--work DIR] [--minutes N] [--list]

`segmentation` and `detection` are files beside this one. FOLDER holds the data that they name: `camvid` with train, val
and test, each with images and masks; `bccd` with JPEGImages, Annotations and ImageSets/Main. Speeds are measured first,
alone on a quiet machine: they decide how many steps an arm of equal time makes, so that a busy machine costs time and
not truth.
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

from supertokenvit.data.splits import open_splits
from supertokenvit.dense import TASKS
from supertokenvit.machine import environment, keep_freed_memory
from supertokenvit.model.family import is_variant
from supertokenvit.model_folder import load_model
from supertokenvit.run_folder import RunFolder
from supertokenvit.training.assembly import to_train
from supertokenvit.training.pacing import random_images, recipe_step
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.report import read_metrics
from supertokenvit.training.run import reading_of, resume, train_recipe
from supertokenvit.training.starting_model import build

from .. import common
from ..common import add_row, commit, now, read_rows, write_rows
from ..train import claimed
from . import returns  # noqa: F401  registers the ways with timm

QUEUES = ("segmentation", "detection")
CPU = torch.device("cpu")
METRICS = {
    "segmentation": {"mIoU": "mean_iou", "pixel accuracy": "pixel_accuracy"},
    "detection": {"AP50": "average_precision_50", "mAP": "mean_average_precision"},
}
"""Figures of a row, by what people call them; the first is shown."""
OF_CLASS = {"segmentation": ("IoU", "iou"), "detection": ("AP50", "average_precision_50")}


def results(queue: dict[str, Any]) -> Path:
    """Returns the folder of a queue's rows."""
    return common.RESULTS / queue["page"]


def read_queue(name: str) -> dict[str, Any]:
    """Reads a queue."""
    return yaml.safe_load(Path(__file__).with_name(f"{name}.yaml").read_text())


def task_of(queue: dict[str, Any]) -> Any:
    """Makes the task of a queue."""
    return TASKS[queue["recipe"]["task"]]()


def recipe_of(queue: dict[str, Any], arm: dict[str, Any]) -> Recipe:
    """Returns the recipe of an arm, without data and length."""
    args = {key: value for key, value in arm.items() if key not in ("model", "recipe")}
    if not is_variant(arm["model"]) and arm["model"].startswith("stt_"):
        args["img_size"] = queue["recipe"]["img_size"]  # the package does so for models of its own family
    return Recipe(**queue["recipe"] | arm.get("recipe", {}), model=arm["model"], model_args=args)


def arms(queue: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns the arms of equal time, by name."""
    return {
        name: arm for about in queue["groups"].values() if "seconds" in about for name, arm in about["arms"].items()
    }


def measure_speed(queue: dict[str, Any], rounds: int) -> None:
    """Measures the seconds of a training step of each arm of equal time, in turns, and keeps a row of each."""
    torch.set_num_threads(1)
    K, (height, width) = len(queue["classes"]), queue["canvas"]
    steps: dict[str, Callable[[], object]] = {}
    for name, arm in arms(queue).items():
        recipe, task = recipe_of(queue, arm), task_of(queue)
        model = build(recipe, K, type(task)).train()
        to_train(model, recipe, CPU)
        step = recipe_step(model, recipe, CPU, task)
        images = random_images(recipe, CPU, max(height, width))[:, :, :height, :width]
        targets = task.blank_targets(len(images), min(height, width), K)
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
    write_rows(results(queue) / "speed.csv", rows)


def steps_of(queue: dict[str, Any], about: dict[str, Any], name: str, arm: dict[str, Any]) -> int | None:
    """Returns the steps that an arm makes; None if its speed has not been measured."""
    if "steps" in about:
        return about["steps"]
    args = json.dumps(arm, sort_keys=True)
    rows = [row for row in read_rows(results(queue) / "speed.csv") if (row["arm"], row["args"]) == (name, args)]
    return round(about["seconds"] / float(rows[-1]["seconds_per_step"])) if rows else None


def jobs(queue: dict[str, Any]) -> list[dict[str, Any]]:
    """Lists every arm with every seed, the first seed of all arms first."""
    found = []
    for seed in queue["seeds"]:
        for group, about in queue["groups"].items():
            for name, arm in about["arms"].items():
                steps = steps_of(queue, about, name, arm)
                args = json.dumps(queue["recipe"] | arm | {"steps": steps}, sort_keys=True)
                found.append({"group": group, "arm": name, "seed": seed, "steps": steps, "args": args})
    return found


def view(queue: dict[str, Any], group: str, data: Path, work: Path) -> Path:
    """Makes a folder with links to the splits that a group may see."""
    folder = work / "data" / group / queue["data"]
    folder.mkdir(parents=True, exist_ok=True)
    seen = ["train", "val", *(["test"] if queue["groups"][group].get("test") else [])]
    parts = seen
    if queue["recipe"]["task"] == "detection":  # Pascal VOC: the lists are the splits
        lists = [f"ImageSets/Main/{part}.txt" for part in seen]
        parts = ["JPEGImages", "Annotations", *lists]
    for part in parts:
        source = (data / queue["data"] / part).resolve(strict=True)
        (folder / part).parent.mkdir(parents=True, exist_ok=True)
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
        images = open_splits(str(where), reading=reading_of(recipe)).train
        per_epoch = len(images) // queue["recipe"]["batch_size"]
        recipe.data, recipe.out, recipe.seed = str(where), str(folder), job["seed"]
        recipe.epochs = job["steps"] / per_epoch
        train_recipe(recipe)
    found, trained = json.loads(folder.evaluation.read_text()), load_model(folder)
    test, task = found.get("test", {}), queue["recipe"]["task"]
    of_class = OF_CLASS[task][1]
    return job | {
        "parameters": sum(p.numel() for p in trained.model.parameters()),
        **{f"val_{name}": found["validation"][name] for name in METRICS[task].values()},
        **{f"test_{name}": test.get(name, "") for name in METRICS[task].values()},
        "per_class": json.dumps({k: f[of_class] for k, f in (test or found["validation"])["per_class"].items()}),
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
    return {(row["args"], int(row["seed"])): row for row in read_rows(results(queue) / "runs.csv")}


def main(argv: Sequence[str] | None = None) -> None:
    """Measures speeds, or works through the queue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queue", choices=QUEUES, help="name of the queue")
    parser.add_argument("data", type=Path, help="folder that holds its data")
    parser.add_argument("--speed", action="store_true", help="measure training speeds, and train nothing")
    parser.add_argument("--rounds", type=int, default=15, help="steps of each arm that are timed")
    parser.add_argument("--group", help="this group only")
    parser.add_argument("--arms", nargs="+", metavar="ARM", help="these arms only")
    parser.add_argument("--work", type=Path, default=Path("runs/dense"), help="folder for the run folders")
    parser.add_argument("--minutes", type=float, help="begin no run after so many")
    parser.add_argument("--list", action="store_true", help="say what is done and what is not")
    args = parser.parse_args(argv)
    queue, started = read_queue(args.queue), time.monotonic()
    keep_freed_memory()
    if args.speed:
        measure_speed(queue, args.rounds)
        return
    args.work.mkdir(parents=True, exist_ok=True)
    for job in jobs(queue):
        row = done_of(queue).get((job["args"], job["seed"]))
        name = f"{job['group']}: {job['arm']}, seed {job['seed']}"
        if args.list or job["steps"] is None:
            metric = next(iter(METRICS[queue["recipe"]["task"]].values()))
            state = f"{float(row[f'val_{metric}']):.4f}" if row else "not run yet"
            print(f"{name}: {state if job['steps'] else 'measure its speed first (--speed)'}")
        elif row is None and args.group in (None, job["group"]) and (args.arms is None or job["arm"] in args.arms):
            if args.minutes is not None and time.monotonic() - started > 60 * args.minutes:
                break
            with claimed(args.work, name_of(job)) as ours:
                if ours and (job["args"], job["seed"]) not in done_of(queue):
                    print(name, flush=True)
                    add_row(results(queue) / "runs.csv", train(job, queue, args.data, args.work))


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
