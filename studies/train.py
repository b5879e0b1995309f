"""Trains the arms of a queue one after the other and keeps a row of each; continues where it stopped.

python -m studies.train ablations --data FOLDER [--work runs/queue] [--minutes N] [--list]

FOLDER holds the data sets by the names that the queue calls them (`data: cifar10`). Each has a folder `train` with one
folder of images for each class, of which a tenth is kept for validation. A folder `test` beside it (or `val`, if there
is no test) is opened only by queues that say `test: true`, once at the end of each run.

Small models train fastest with one thread: begin the same command once for each core (OMP_NUM_THREADS=1); each process
takes arms that no other one has.
"""

import argparse
import contextlib
import fcntl
import json
import shutil
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from supertokenvit.benchmarking.cost import cost_of
from supertokenvit.benchmarking.options import Contestant
from supertokenvit.machine import environment, keep_freed_memory
from supertokenvit.model.family import is_variant
from supertokenvit.run_folder import RunFolder
from supertokenvit.training.loop import TrainingStopped
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.report import read_metrics
from supertokenvit.training.run import resume, train_recipe

from .common import add_row, commit, now, read_rows
from .queue import done_of, folder_of, jobs, open_queue, recipe_of, rows_of, spec_of, view


@contextlib.contextmanager
def claimed(work: Path, name: str) -> Iterator[bool]:
    """Claims the run folder of a name for this process, and says whether it could; the claim ends with the process."""
    (work / "locks").mkdir(exist_ok=True)
    with open(work / "locks" / name, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def run(job: dict[str, Any], queue: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    """Trains one arm, or goes on with it, and returns its row."""
    folder = RunFolder(work / folder_of(job, queue))
    if folder.last.exists():
        resume(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        recipe, name = spec_of(queue, job["model_args"])
        train_recipe(Recipe(**recipe, data=str(view(queue, name, data, work)), out=str(folder), seed=job["seed"]))
    return job | figures(folder) | {"recipe": recipe_of(queue, job["model_args"])}


def figures(folder: RunFolder) -> dict[str, Any]:
    """Returns the row of a finished run."""
    recipe = Recipe(**yaml.safe_load(folder.recipe.read_text()))
    assert recipe.model is not None and recipe.img_size is not None
    metrics, found = read_metrics(folder.metrics), json.loads(folder.evaluation.read_text())
    last = metrics[-1]
    args = recipe.model_args | {"num_classes": len(found["validation"]["classes"])}
    if is_variant(recipe.model):
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
        "date": now(),
        "environment": json.dumps(environment() | {"commit": commit()}),
    }


def main(argv: Sequence[str] | None = None) -> None:
    """Works through the queue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queue", help="name of a file in studies/queues")
    parser.add_argument("--data", type=Path, help="folder that holds the data sets")
    parser.add_argument("--work", type=Path, default=Path("runs/queue"), help="folder for the run folders")
    parser.add_argument("--minutes", type=float, help="begin no run that would end later")
    parser.add_argument("--list", action="store_true", help="say what is done and what is not")
    args = parser.parse_args(argv)
    queue, rows = open_queue(args.queue), rows_of(args.queue) / "runs.csv"
    done = done_of(queue, rows)
    todo = [job for job in jobs(queue) if (job["model_args"], job["seed"]) not in done]
    if args.list or args.data is None:
        for job in jobs(queue):
            row = done.get((job["model_args"], job["seed"]))
            print(f"{job['group']}: {job['arm']}, seed {job['seed']}: {row['val_top1'] if row else 'not run yet'}")
        return
    keep_freed_memory()
    commit()
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
                add_row(rows, run(job, queue, args.data, args.work))
            except TrainingStopped as stopped:
                sys.exit(f"stopped: {stopped}; the same command goes on")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
