"""Trains the arms of a queue one after the other and keeps a row of each; continues where it stopped.

python results/run_queue.py ablations --data FOLDER [--work runs/queue] [--minutes N] [--list]

The queue is results/ablations/queue.yaml, models of its own are in variants.py beside it, and the rows go to runs.csv.
An arm is the base model with some arguments changed, or with `model` that model of timm's; `recipe` changes the recipe,
also that of a whole group, and a group may have `data` and `base` of its own.
FOLDER holds the data sets by the names that the queue calls them (`data: cifar10`). Each has a folder `train` with one
folder of images for each class, of which a tenth is kept for validation. A folder `test` beside it (or `val`, if there
is no test) is opened only by queues that say `test: true`, once at the end of each run.

Small models train fastest with one thread: begin the same command once for each core (OMP_NUM_THREADS=1); each process
takes arms that no other one has.
"""

import argparse
import contextlib
import csv
import fcntl
import functools
import hashlib
import importlib.util
import json
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from supertokenvit.benchmarking.cost import cost_of
from supertokenvit.benchmarking.options import Contestant
from supertokenvit.machine import environment, keep_freed_memory
from supertokenvit.training.loop import TrainingStopped
from supertokenvit.training.run import resume, train_recipe
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.report import read_metrics

HERE = Path(__file__).parent


def register(folder: Path) -> None:
    """Makes timm know the models of a queue's own."""
    name = f"{folder.name}_variants"
    if name not in sys.modules and (folder / "variants.py").exists():
        spec = importlib.util.spec_from_file_location(name, folder / "variants.py")
        assert spec is not None and spec.loader is not None
        sys.modules[name] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def arguments(queue: dict[str, Any], about: dict[str, Any], changes: dict[str, Any]) -> str:
    """What makes an arm of a group itself, as JSON: arguments of the model, and `recipe` and `data` among them."""
    args = dict(changes) if "model" in changes else about.get("base", queue["base"]) | changes
    recipe = about.get("recipe", {}) | changes.get("recipe", {})
    args |= {"recipe": recipe} if recipe else {}
    args |= {"data": about["data"]} if "data" in about else {}
    return json.dumps(args, sort_keys=True)


def jobs(queue: dict[str, Any]) -> list[dict[str, Any]]:
    """Every arm with every seed, in the order of the queue; arms that are the same model are one job."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for group, about in queue["groups"].items():
        for arm, changes in about["arms"].items():
            args = arguments(queue, about, changes)
            for seed in about.get("seeds", queue["seeds"]):
                found.setdefault((args, seed), {"group": group, "arm": arm, "model_args": args, "seed": seed})
    return list(found.values())


def recipe_of(queue: dict[str, Any], model_args: str) -> str:
    """All of an arm's recipe, as JSON."""
    return json.dumps(queue["recipe"] | json.loads(model_args).get("recipe", {}), sort_keys=True)


def spec_of(queue: dict[str, Any], model_args: str) -> tuple[dict[str, Any], str]:
    """An arm's arguments of Recipe, with the model's among them, and the name of its data."""
    args = json.loads(model_args)
    recipe, data = queue["recipe"] | args.pop("recipe", {}), args.pop("data", queue["data"])
    return recipe | {"model": args.pop("model", recipe["model"]), "model_args": args}, data


def read_rows(path: Path) -> list[dict[str, str]]:
    """What has been run; nothing if nothing has."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def valid(queue: dict[str, Any], rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """The rows that were trained by the recipe that the queue has now."""
    return [row for row in rows if row["recipe"] == recipe_of(queue, row["model_args"])]


def done_of(queue: dict[str, Any], path: Path) -> dict[tuple[str, int], dict[str, str]]:
    """The valid row of every arm and seed that has one."""
    return {(row["model_args"], int(row["seed"])): row for row in valid(queue, read_rows(path))}


@contextlib.contextmanager
def claimed(work: Path, name: str) -> Iterator[bool]:
    """Whether the run folder of that name is this process's alone; ends with the process, however that ends."""
    (work / "locks").mkdir(exist_ok=True)
    with open(work / "locks" / name, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def view(queue: dict[str, Any], name: str, data: Path, work: Path) -> Path:
    """A folder with links to the parts of a data set that this queue may see."""
    folder = work / "data" / queue["page"] / name
    folder.mkdir(parents=True, exist_ok=True)
    parts = {"train": data / name / "train"}
    if queue.get("test"):
        test = data / name / "test"
        parts["test"] = test if test.is_dir() else data / name / "val"
    for part, source in parts.items():
        if not source.is_dir():
            sys.exit(f"{source}: there is no such folder; --data is the folder that holds {name}")
        with contextlib.suppress(FileExistsError):  # another process of the queue may make it too
            (folder / part).symlink_to(source.resolve())
        if (folder / part).resolve() != source.resolve():
            sys.exit(f"{folder / part}: belongs to other data; remove it, or choose another --work")
    return folder


def folder_of(job: dict[str, Any], queue: dict[str, Any]) -> str:
    """Name of an arm's run folder; what changes the arm changes the name, so that no other run is gone on with."""
    all_of_it = json.dumps([job["model_args"], queue["recipe"], queue["data"]], sort_keys=True)
    words = "".join(c if c.isalnum() or c in "-." else "_" for c in f"{job['group']}-{job['arm']}-{job['seed']}")
    return f"{words}-{hashlib.sha256(all_of_it.encode()).hexdigest()[:8]}"


def run(job: dict[str, Any], queue: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    """Trains one arm, or goes on with it, and returns its row."""
    folder = work / folder_of(job, queue)
    if (folder / "checkpoints" / "last.pt").exists():
        resume(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        recipe, name = spec_of(queue, job["model_args"])
        train_recipe(Recipe(**recipe, data=str(view(queue, name, data, work)), out=str(folder), seed=job["seed"]))
    return job | figures(folder) | {"recipe": recipe_of(queue, job["model_args"])}


def figures(folder: Path) -> dict[str, Any]:
    """Of a finished run."""
    recipe = Recipe(**yaml.safe_load((folder / "recipe.yaml").read_text()))
    assert recipe.model is not None and recipe.img_size is not None
    metrics, found = read_metrics(folder / "metrics.csv"), json.loads((folder / "evaluation.json").read_text())
    last = metrics[-1]
    args = recipe.model_args | {"num_classes": len(found["validation"]["classes"])}
    if recipe.model.startswith("stt_"):
        args["img_size"] = recipe.img_size
    cost = cost_of(Contestant(recipe.model, args=tuple(sorted(args.items()))), recipe.img_size, 1)
    return {
        "parameters": cost.parameters,
        "mmacs": round(cost.macs / 1e6, 2),
        "epochs": recipe.epochs,
        "images": int(last["step"]) * (recipe.batch_size or 0),
        "val_top1": found["validation"]["top1"],
        "val_loss": found["validation"]["loss"],
        "images_per_second": last["images_per_second"],
        "minutes": last["minutes"],
        **({"test_top1": found["test"]["top1"]} if "test" in found else {}),
        "curve": json.dumps([[round(row["minutes"], 2), round(row["val_top1"], 4)] for row in metrics]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        "environment": json.dumps(environment() | {"commit": commit()}),
    }


@functools.cache  # it may change while the queue runs
def commit() -> str:
    """Of the code when it began to run; with -dirty behind it if that had been changed since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=HERE, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "../src", "*.py")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def keep(path: Path, row: dict[str, Any]) -> None:
    """Adds a row; a column that the first row does not have is an error."""
    columns = list(read_rows(path)[0]) if path.exists() else list(row)
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    """Works through the queue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queue", help="folder below results with a queue.yaml")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/queue"))
    parser.add_argument("--minutes", type=float, help="begin no run that would end later")
    parser.add_argument("--list", action="store_true", help="say what is done and what is not")
    args = parser.parse_args()
    folder = HERE / args.queue
    rows = folder / "runs.csv"
    if not (folder / "queue.yaml").exists():
        parser.error(f"{args.queue}: there is no {folder / 'queue.yaml'}")
    queue = yaml.safe_load((folder / "queue.yaml").read_text())
    done = done_of(queue, rows)
    todo = [job for job in jobs(queue) if (job["model_args"], job["seed"]) not in done]
    if args.list or args.data is None:
        for job in jobs(queue):
            row = done.get((job["model_args"], job["seed"]))
            print(f"{job['group']}: {job['arm']}, seed {job['seed']}: {row['val_top1'] if row else 'not run yet'}")
        return
    keep_freed_memory()
    commit()
    register(folder)
    for job in todo:  # what is missing is said before the first hour
        view(queue, spec_of(queue, job["model_args"])[1], args.data, args.work)
    started = time.monotonic()
    for number, job in enumerate(todo):
        spent = [float(row["minutes"]) for row in read_rows(rows)]
        longest = 1.2 * max(spent[-6:], default=0) + 0.5
        if args.minutes is not None and (time.monotonic() - started) / 60 + longest > args.minutes:
            break
        with claimed(args.work, folder_of(job, queue)) as ours:
            if not ours or (job["model_args"], job["seed"]) in done_of(queue, rows):
                continue
            print(f"[{number + 1}/{len(todo)}] {job['group']}: {job['arm']}, seed {job['seed']}", flush=True)
            try:
                keep(rows, run(job, queue, args.data, args.work))
            except TrainingStopped as stopped:
                sys.exit(f"stopped: {stopped}; the same command goes on")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
