"""Trains the arms of queue.yaml one after the other and keeps a row of each in runs.csv; continues where it stopped.

python results/ablations/run.py --data FOLDER [--work runs/ablations] [--seed N] [--minutes N] [--list]

FOLDER has a folder `train` with one folder of images for each class. Only that is seen: a tenth of it is kept for
validation, and a test split beside it is not opened.

Small models train fastest with one thread: on two cores, one process for each of two seeds (OMP_NUM_THREADS=1).
"""

import argparse
import csv
import importlib.util
import json
import shutil
import signal
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from supertoken.benchmarking.cost import cost_of
from supertoken.benchmarking.plan import Contestant
from supertoken.memory import keep_freed_memory
from supertoken.run_folder import environment
from supertoken.training.loop import TrainingStopped, resume, train
from supertoken.training.recipe import Recipe
from supertoken.training.report import read_metrics

HERE = Path(__file__).parent
ROWS = HERE / "runs.csv"


def register() -> None:
    """Makes timm know stt_ablation."""
    if "ablation_variants" not in sys.modules:
        spec = importlib.util.spec_from_file_location("ablation_variants", HERE / "variants.py")
        assert spec is not None and spec.loader is not None
        sys.modules["ablation_variants"] = module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)


def jobs(queue: dict[str, Any]) -> list[dict[str, Any]]:
    """Every arm with every seed, in the order of the queue; arms that are the same model are one job."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for group, about in queue["groups"].items():
        for arm, changes in about["arms"].items():
            args = json.dumps(queue["base"] | changes, sort_keys=True)
            for seed in queue["seeds"]:
                found.setdefault((args, seed), {"group": group, "arm": arm, "model_args": args, "seed": seed})
    return list(found.values())


def read_rows(path: Path) -> list[dict[str, str]]:
    """What has been run; nothing if nothing has."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def run(job: dict[str, Any], queue: dict[str, Any], data: Path, work: Path) -> dict[str, Any]:
    """Trains one arm, or goes on with it, and returns its row."""
    folder = work / f"{job['group']}-{job['arm']}-{job['seed']}".replace(" ", "_").replace(",", "").replace(":", "")
    if (folder / "checkpoints" / "last.pt").exists():
        resume(folder)
    else:
        shutil.rmtree(folder, ignore_errors=True)
        args = json.loads(job["model_args"])
        train(Recipe(**queue["recipe"], model_args=args, data=str(data), out=str(folder), seed=job["seed"]))
    last = read_metrics(folder / "metrics.csv")[-1]
    spec = Contestant("stt_ablation", args=tuple(sorted(json.loads(job["model_args"]).items())))
    cost = cost_of(spec, queue["recipe"]["img_size"], 1)
    figures = {
        "parameters": cost.parameters,
        "mmacs": round(cost.macs / 1e6, 2),
        "epochs": queue["recipe"].get("epochs"),
        "val_top1": last["val_top1"],
        "val_loss": last["val_loss"],
        "images_per_second": last["images_per_second"],
        "minutes": last["minutes"],
    }
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    return job | figures | {"date": now, "environment": json.dumps(environment())}


def keep(path: Path, row: dict[str, Any]) -> None:
    """Adds a row."""
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow(row)


def main() -> None:
    """Works through the queue."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, default=Path("runs/ablations"))
    parser.add_argument("--seed", type=int, help="only this one of the queue's seeds")
    parser.add_argument("--minutes", type=float, help="begin no run that would end later")
    parser.add_argument("--list", action="store_true", help="say what is done and what is not")
    args = parser.parse_args()
    queue = yaml.safe_load((HERE / "queue.yaml").read_text())
    done = {(row["model_args"], int(row["seed"])): row for row in read_rows(ROWS)}
    todo = [job for job in jobs(queue) if (job["model_args"], job["seed"]) not in done]
    todo = [job for job in todo if args.seed in (None, job["seed"])]
    if args.list or args.data is None:
        for job in jobs(queue):
            row = done.get((job["model_args"], job["seed"]))
            print(f"{job['group']}: {job['arm']}, seed {job['seed']}: {row['val_top1'] if row else 'not run yet'}")
        return
    if not (args.data / "train").is_dir():
        sys.exit(f"{args.data}: there is no folder train in it")
    keep_freed_memory()
    register()
    view = args.work / "data"
    view.mkdir(parents=True, exist_ok=True)
    if not (view / "train").exists():
        (view / "train").symlink_to((args.data / "train").resolve())
    started = time.monotonic()
    for number, job in enumerate(todo):
        spent = [float(row["minutes"]) for row in read_rows(ROWS)]
        longest = 1.2 * max(spent[-6:], default=0) + 0.5
        if args.minutes is not None and (time.monotonic() - started) / 60 + longest > args.minutes:
            break
        print(f"[{number + 1}/{len(todo)}] {job['group']}: {job['arm']}, seed {job['seed']}", flush=True)
        try:
            keep(ROWS, run(job, queue, view, args.work))
        except TrainingStopped as stopped:
            sys.exit(f"stopped: {stopped}; the same command goes on")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    main()
