"""Measures how fast the arms of groups are, side by side in one process on one core; nothing else may run meanwhile.

python results/queue_speed.py peers "half the parameters, twice the speed" ...

The rows go to speed.csv beside the queue, those of a group that was there before are replaced, and queue_page.py shows
them. Inference is in fp32, a training step in the precision and with the batch of the queue's recipe.
"""

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from run_queue import HERE, arguments, read_rows, register

from supertoken.benchmarking.plan import Contestant, Plan
from supertoken.benchmarking.report import write_rows
from supertoken.benchmarking.table import benchmark
from supertoken.cpu import keep_freed_memory


def measured(queue: dict[str, Any], group: str) -> list[dict[str, str]]:
    """Rows of `supertoken benchmark` for every arm of a group, in inference and in training."""
    about = queue["groups"][group]
    recipe = queue["recipe"] | about.get("recipe", {})
    found = []
    for mode, dtype in (("inference", "fp32"), ("train", recipe["precision"])):
        rivals = []
        for changes in about["arms"].values():
            args = json.loads(arguments(queue, about, changes))
            args = {key: value for key, value in args.items() if key not in ("recipe", "data")} | {"num_classes": 10}
            model = args.pop("model", queue["recipe"]["model"])
            args |= {"img_size": recipe["img_size"]} if model.startswith("stt_") else {}
            rivals.append(Contestant(model, dtype=dtype, args=tuple(sorted(args.items()))))
        batch = recipe["batch_size"]
        plan = Plan(mode=mode, batch_size=batch, img_size=[recipe["img_size"]], dtype=dtype, threads=1, memory=False)
        rows = [row for part in benchmark(rivals, plan, Console()) for row in part]
        with tempfile.TemporaryDirectory() as folder:
            write_rows(Path(folder) / "rows.csv", rows)
            texts = read_rows(Path(folder) / "rows.csv")
        for arm, text in zip(about["arms"], texts, strict=True):
            found.append({"group": group, "arm": arm} | text)
            print(f"{arm}, {mode}: {text['images_per_second']} images/s, {text['ratio']} times the first's", flush=True)
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
    register(folder)
    for group in args.groups:
        path = folder / "speed.csv"
        rows = [row for row in read_rows(path) if row["group"] != group] + measured(queue, group)
        with open(path, "w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)


if __name__ == "__main__":
    main()
