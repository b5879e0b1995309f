"""Measures what several views of an image add, on the validation images of a queue's runs and of the shipped model.

python results/views.py short --data FOLDER [--work runs/queue] [--arms ARM ...]

The rows go to views.csv beside the queue, anew for every run whose folder is there, and queue_page.py shows them.
"""

import argparse
import csv
from pathlib import Path

import yaml
from run_queue import HERE, folder_of, jobs, read_rows, register, spec_of, valid, view

from supertokenvit.data.splits import open_splits
from supertokenvit.evaluation import evaluate
from supertokenvit.machine import keep_freed_memory
from supertokenvit.prediction import Predictor
from supertokenvit.model_folder import load_model, shipped_model

VIEWS = ("none", "flip", "shift")


def measured(model: Path, data: Path) -> dict[str, str | int]:
    """Shares of a model's validation images that are right, by their views."""
    trained = load_model(model)
    source = open_splits(str(data), val_fraction=trained.about["val_fraction"], seed=trained.about["seed"]).val
    assert source is not None
    found: dict[str, str | int] = {"images": len(source)}
    for tta in VIEWS:
        trained.about["tta"] = tta
        found[tta] = f"{evaluate(Predictor(trained), source, batch_size=250, progress=False).top1:.4f}"
    return found


def main() -> None:
    """Measures every run that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queue", help="folder below results with a queue.yaml")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--work", type=Path, default=Path("runs/queue"))
    parser.add_argument("--arms", nargs="+", help="only these, by their names in the queue")
    args = parser.parse_args()
    folder = HERE / args.queue
    queue = yaml.safe_load((folder / "queue.yaml").read_text())
    keep_freed_memory()
    register(folder)
    done = {(row["model_args"], int(row["seed"])) for row in valid(queue, read_rows(folder / "runs.csv"))}
    rows = {(row["arm"], row["seed"]): row for row in read_rows(folder / "views.csv")}
    models = {("shipped model", ""): (shipped_model(), queue["data"])}
    for job in jobs(queue):
        run = args.work / folder_of(job, queue)
        if args.arms is not None and job["arm"] not in args.arms:
            continue
        if (job["model_args"], job["seed"]) in done and run.is_dir():
            models[f"{job['group']}: {job['arm']}", str(job["seed"])] = run, spec_of(queue, job["model_args"])[1]
    for (arm, seed), (model, data) in models.items():
        rows[arm, seed] = {"arm": arm, "seed": seed} | measured(model, view(queue, data, args.data, args.work))
        print(rows[arm, seed], flush=True)
    with open(folder / "views.csv", "w", newline="") as file:
        writer = csv.DictWriter(file, ["arm", "seed", "images", *VIEWS])
        writer.writeheader()
        writer.writerows(rows.values())


if __name__ == "__main__":
    main()
