"""Queues of trainings: what an arm is, which rows belong to it, and where its run folder is.

A queue is a file of queues/. An arm is the base model with some arguments changed, or with `model` that model of
timm's; `recipe` changes the recipe, also that of a whole group, and a group may have `data` and `base` of its own.
"""

import contextlib
import hashlib
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import yaml

from . import common
from .common import read_rows

QUEUES = common.STUDIES / "queues"


def names() -> list[str]:
    """Returns the names of all queues."""
    return sorted(path.stem for path in QUEUES.glob("*.yaml"))


def open_queue(name: str) -> dict[str, Any]:
    """Reads a queue and registers the networks that it needs with timm."""
    path = QUEUES / f"{name}.yaml"
    if not path.exists():
        sys.exit(f"{name}: there is no such queue; there are {', '.join(names())}")
    queue = yaml.safe_load(path.read_text())
    import_module(f"{__package__}.networks.{queue['networks']}")
    return queue


def rows_of(name: str) -> Path:
    """Returns the folder that holds the rows of a queue."""
    return common.RESULTS / name


def arguments(queue: dict[str, Any], about: dict[str, Any], changes: dict[str, Any]) -> str:
    """Returns what makes an arm of a group itself, as JSON: arguments of the model, with `recipe` and `data`."""
    args = dict(changes) if "model" in changes else about.get("base", queue["base"]) | changes
    recipe = about.get("recipe", {}) | changes.get("recipe", {})
    args |= {"recipe": recipe} if recipe else {}
    args |= {"data": about["data"]} if "data" in about else {}
    return json.dumps(args, sort_keys=True)


def jobs(queue: dict[str, Any]) -> list[dict[str, Any]]:
    """Lists every arm with every seed, in the order of the queue; arms that are the same model are one job."""
    found: dict[tuple[str, int], dict[str, Any]] = {}
    for group, about in queue["groups"].items():
        for arm, changes in about["arms"].items():
            args = arguments(queue, about, changes)
            for seed in about.get("seeds", queue["seeds"]):
                found.setdefault((args, seed), {"group": group, "arm": arm, "model_args": args, "seed": seed})
    return list(found.values())


def recipe_of(queue: dict[str, Any], model_args: str) -> str:
    """Returns the whole recipe of an arm, as JSON."""
    return json.dumps(queue["recipe"] | json.loads(model_args).get("recipe", {}), sort_keys=True)


def spec_of(queue: dict[str, Any], model_args: str) -> tuple[dict[str, Any], str]:
    """Returns an arm's arguments of Recipe, with the model's among them, and the name of its data."""
    args = json.loads(model_args)
    recipe, data = queue["recipe"] | args.pop("recipe", {}), args.pop("data", queue["data"])
    return recipe | {"model": args.pop("model", recipe["model"]), "model_args": args}, data


def valid(queue: dict[str, Any], rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Returns the rows that were trained by the recipe that the queue has now."""
    return [row for row in rows if row["recipe"] == recipe_of(queue, row["model_args"])]


def done_of(queue: dict[str, Any], path: Path) -> dict[tuple[str, int], dict[str, str]]:
    """Returns the valid row of every arm and seed that has one."""
    return {(row["model_args"], int(row["seed"])): row for row in valid(queue, read_rows(path))}


def view(queue: dict[str, Any], name: str, data: Path, work: Path) -> Path:
    """Makes a folder with links to the splits of a data set that this queue may see."""
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
    """Names an arm's run folder; what changes the arm changes the name, so that no other run is gone on with."""
    all_of_it = json.dumps([job["model_args"], queue["recipe"], queue["data"]], sort_keys=True)
    words = "".join(c if c.isalnum() or c in "-." else "_" for c in f"{job['group']}-{job['arm']}-{job['seed']}")
    return f"{words}-{hashlib.sha256(all_of_it.encode()).hexdigest()[:8]}"
