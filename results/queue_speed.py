"""Measures how fast the arms of groups are, side by side in one process on one core; nothing else may run meanwhile.

python results/queue_speed.py peers "half the parameters, twice the speed" ...

The rows go to speed.csv beside the queue, those of a group that was there before are replaced, and queue_page.py shows
them. A training step is the one that the arm's recipe made (its optimizer, precision, batch and layout in memory),
without loading and augmentation; inference is in fp32.
"""

import argparse
import csv
import io
import json
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import torch
import yaml
from run_queue import HERE, arguments, commit, read_rows, register, spec_of

from supertokenvit.benchmarking.timing import take_turns
from supertokenvit.benchmarking.report import quartiles
from supertokenvit.machine import environment, keep_freed_memory
from supertokenvit.training.pacing import random_images, recipe_step
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.assembly import to_train
from supertokenvit.training.starting_model import build

CPU, CLASSES = torch.device("cpu"), 10
ROUNDS, SECONDS = 15, 1.0


def call_of(recipe: Recipe, mode: str) -> Callable[[], Any]:
    """One training step or one inference of a batch."""
    torch.manual_seed(0)
    model = build(recipe, CLASSES)
    to_train(model, recipe, CPU)
    if mode == "train":
        return training_step(model.train(), recipe, CPU, CLASSES)
    model.eval()
    images = random_images(recipe, CPU)

    def infer() -> None:
        with torch.inference_mode():
            model(images)

    return infer


def measured(queue: dict[str, Any], group: str) -> list[dict[str, Any]]:
    """Rows of every arm of a group, in inference and in training."""
    about = queue["groups"][group]
    args = {arm: arguments(queue, about, changes) for arm, changes in about["arms"].items()}
    recipes = {arm: Recipe(**spec_of(queue, text)[0]) for arm, text in args.items()}
    here = {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), "commit": commit(), **environment()}
    if any(recipe.precision == "auto" for recipe in recipes.values()):
        raise SystemExit(f"{group}: its recipe leaves the precision to the machine; name one")
    found: list[dict[str, Any]] = []
    for mode in ("inference", "train"):
        calls = {arm: call_of(recipe, mode) for arm, recipe in recipes.items()}
        times, errors = take_turns(calls, rounds=ROUNDS, seconds=SECONDS)
        if errors:
            raise SystemExit(f"{group}: {errors}")
        each = {arm: [value / (recipes[arm].batch_size or 1) for value in seconds] for arm, seconds in times.items()}
        first = next(iter(each.values()))
        for arm, seconds in each.items():
            row: dict[str, Any] = {"group": group, "arm": arm, "model_args": args[arm], "mode": mode}
            row |= {"precision": recipes[arm].precision if mode == "train" else "fp32"}
            row |= {"batch": recipes[arm].batch_size}
            row |= {"images_per_second": 1 / statistics.median(seconds)}
            ratios = quartiles([a / b for a, b in zip(first, seconds, strict=True)])
            row |= dict(zip(("ratio_q1", "ratio", "ratio_q3"), ratios, strict=True))
            found.append(row | {"seconds": json.dumps([round(value, 5) for value in times[arm]])} | here)
            print(f"{arm}, {mode}: {row['images_per_second']:.0f} images/s, {row['ratio']:.2f} times", flush=True)
    return found


def main() -> None:
    """Measures the groups named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queue", help="folder below results with a queue.yaml")
    parser.add_argument("groups", nargs="+", help="groups of it")
    args = parser.parse_args()
    folder = HERE / args.queue
    queue = yaml.safe_load((folder / "queue.yaml").read_text())
    keep_freed_memory()
    torch.set_num_threads(1)
    register(folder)
    for group in args.groups:
        path = folder / "speed.csv"
        rows = [row for row in read_rows(path) if row["group"] != group] + measured(queue, group)
        text = io.StringIO(newline="")
        writer = csv.DictWriter(text, list(rows[-1]))
        writer.writeheader()
        writer.writerows(rows)  # an error here leaves the file as it was
        path.write_text(text.getvalue(), newline="")


if __name__ == "__main__":
    main()
