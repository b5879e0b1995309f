"""Writes docs/dense.md and docs/boxes.md from the rows that studies.dense.run kept.

python -m studies.dense.page
"""

import json
from collections.abc import Sequence
from typing import Any

from .. import common
from ..common import read_rows, refuse_options, spread
from .run import METRICS, OF_CLASS, QUEUES, done_of, jobs, read_queue, results


def table(rows: dict[str, list[dict[str, str]]], task: str) -> list[str]:
    """Writes a group as Markdown, a line for each arm."""
    title, metric = next(iter(METRICS[task].items()))
    tested = any(row[f"test_{metric}"] for found in rows.values() for row in found)
    heads = ["arm", "parameters", "steps", "seeds", f"validation {title}", *([f"test {title}"] if tested else [])]
    lines = ["| " + " | ".join(heads) + " |", "|---|---:|---:|---:|---:|" + "---:|" * tested]
    for arm, found in rows.items():
        first = found[0]
        cells = [arm, f"{int(first['parameters']) / 1e6:.2f}M", first["steps"], str(len(found))]
        for key in (f"val_{metric}", *([f"test_{metric}"] if tested else [])):
            cells.append(spread([100 * float(row[key]) for row in found], 1))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def per_class(rows: dict[str, list[dict[str, str]]], classes: list[str], split: str, title: str) -> list[str]:
    """Writes the figure of each class, means over seeds, as Markdown."""
    lines = [f"{title} of each class on the {split} images, %:", "", "| class | " + " | ".join(rows) + " |"]
    lines += ["|---|" + "---:|" * len(rows)]
    for name in classes:
        cells = []
        for found in rows.values():
            values = [json.loads(row["per_class"])[name] or 0.0 for row in found]
            cells.append(f"{100 * sum(values) / len(values):.1f}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def rows_by_arm(queue: dict[str, Any], group: str) -> dict[str, list[dict[str, str]]]:
    """Returns the rows of a group by arm, in the order of the queue."""
    done, found = done_of(queue), dict[str, list[dict[str, str]]]()
    for job in jobs(queue):
        row = done.get((job["args"], job["seed"]))
        if job["group"] == group and row is not None:
            found.setdefault(job["arm"], []).append(row)
    return found


def page(queue: dict[str, Any]) -> str:
    """Returns the page of a queue."""
    task, folder = queue["recipe"]["task"], f"results/{queue['page']}"
    lines = [f"# {queue['title']}", "", f"Written by `python -m studies.dense.page` from `{folder}`.", ""]
    lines += [queue["intro"].strip()]
    for group, about in queue["groups"].items():
        rows = rows_by_arm(queue, group)
        if rows:
            split = "test" if about.get("test") else "validation"
            lines += ["", f"## {about['title']}", "", about["about"].strip(), "", *table(rows, task)]
            lines += ["", *per_class(rows, queue["classes"], split, OF_CLASS[task][0])]
    speeds = read_rows(results(queue) / "speed.csv")
    if speeds:
        lines += ["", "## Speed of a training step", "", "| arm | seconds | quartiles |", "|---|---:|---|"]
        for row in speeds:
            middle, low, high = (f"{float(row[key]):.3f}" for key in ("seconds_per_step", "low", "high"))
            lines.append(f"| {row['arm']} | {middle} | {low} to {high} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page of each queue that has rows."""
    refuse_options(__doc__, argv)
    for queue in map(read_queue, QUEUES):
        if read_rows(results(queue) / "runs.csv"):
            (common.DOCS / f"{queue['page']}.md").write_text(page(queue), encoding="utf-8")


if __name__ == "__main__":
    main()
