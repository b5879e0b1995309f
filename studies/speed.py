"""Measures how fast the arms of groups are, side by side in one process on one core; nothing else may run meanwhile.

python -m studies.speed peers "half the parameters, twice the speed" ...

The rows go to speed.csv beside those of the queue; those of a group that was there before are replaced, and
studies.pages shows them. A training step is the one that the arm's recipe made (its optimizer, precision, batch and
layout in memory), without loading and augmentation; inference is in fp32.
"""

import argparse
import json
import statistics
from collections.abc import Callable, Sequence
from typing import Any

import torch

from supertokenvit.benchmarking.report import quartiles
from supertokenvit.benchmarking.timing import take_turns
from supertokenvit.machine import environment, keep_freed_memory
from supertokenvit.tasks import Classification
from supertokenvit.training.assembly import to_train
from supertokenvit.training.pacing import random_images, recipe_step
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.starting_model import build

from .common import commit, now, read_rows, write_rows
from .queue import arguments, open_queue, rows_of, spec_of

CPU, CLASSES = torch.device("cpu"), 10
ROUNDS, SECONDS = 15, 1.0


def call_of(recipe: Recipe, mode: str) -> Callable[[], Any]:
    """Makes one training step or one inference of a batch."""
    torch.manual_seed(0)
    model = build(recipe, CLASSES)
    to_train(model, recipe, CPU)
    images = random_images(recipe, CPU, max(recipe.training_sizes))
    if mode == "train":
        step, targets = (
            recipe_step(model.train(), recipe, CPU, Classification()),
            torch.randint(0, CLASSES, (len(images),)),
        )
        return lambda: step(images, targets, lr=recipe.lr or 0.0)
    model.eval()

    def infer() -> None:
        with torch.inference_mode():
            model(images)

    return infer


def measured(queue: dict[str, Any], group: str) -> list[dict[str, Any]]:
    """Measures every arm of a group, in inference and in training, and returns the rows."""
    about = queue["groups"][group]
    args = {arm: arguments(queue, about, changes) for arm, changes in about["arms"].items()}
    recipes = {arm: Recipe(**spec_of(queue, text)[0]) for arm, text in args.items()}
    here = {"date": now(), "commit": commit(), **environment()}
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


def main(argv: Sequence[str] | None = None) -> None:
    """Measures the groups named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queue", help="name of a file in studies/queues")
    parser.add_argument("groups", nargs="+", help="groups of it")
    args = parser.parse_args(argv)
    queue, path = open_queue(args.queue), rows_of(args.queue) / "speed.csv"
    keep_freed_memory()
    torch.set_num_threads(1)
    for group in args.groups:
        write_rows(path, [row for row in read_rows(path) if row["group"] != group] + measured(queue, group))


if __name__ == "__main__":
    main()
