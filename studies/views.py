"""Measures what several views of an image add, on the validation images of a queue's runs and of the shipped model.

python -m studies.views short --data FOLDER [--work runs/queue] [--arms ARM ...]

The rows go to views.csv beside those of the queue, anew for every run whose folder is there; studies.pages shows them.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from supertokenvit.data.splits import open_splits
from supertokenvit.evaluation import evaluate_source
from supertokenvit.machine import keep_freed_memory
from supertokenvit.model_folder import shipped_model
from supertokenvit.prediction import Views, load

from .common import read_rows, write_rows
from .queue import folder_of, jobs, open_queue, rows_of, spec_of, valid, view


def measured(model: Path, data: Path) -> dict[str, str | int]:
    """Returns the accuracy of a model on its validation images, by views."""
    card = load(model).card
    source = open_splits(str(data), val_fraction=card.val_fraction, seed=card.seed).val
    assert source is not None
    found: dict[str, str | int] = {"images": len(source)}
    for tta in get_args(Views):
        result = evaluate_source(load(model, tta=tta, device="cpu"), source, batch_size=250, progress=False)
        found[tta] = f"{result.top1:.4f}"
    return found


def main(argv: Sequence[str] | None = None) -> None:
    """Measures every run that is there."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queue", help="name of a file in studies/queues")
    parser.add_argument("--data", type=Path, required=True, help="folder that holds the data sets")
    parser.add_argument("--work", type=Path, default=Path("runs/queue"), help="folder with the run folders")
    parser.add_argument("--arms", nargs="+", help="only these, by their names in the queue")
    args = parser.parse_args(argv)
    queue, folder = open_queue(args.queue), rows_of(args.queue)
    keep_freed_memory()
    done = {(row["model_args"], int(row["seed"])) for row in valid(queue, read_rows(folder / "runs.csv"))}
    rows: dict[tuple[str, str], dict] = {(row["arm"], row["seed"]): row for row in read_rows(folder / "views.csv")}
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
    write_rows(folder / "views.csv", list(rows.values()))


if __name__ == "__main__":
    main()
