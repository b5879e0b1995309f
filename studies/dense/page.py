"""Writes docs/dense.md from the rows that studies.dense.run kept.

python -m studies.dense.page
"""

import json
from collections.abc import Sequence
from typing import Any

from .. import common
from ..common import read_rows, refuse_options, spread
from .run import done_of, jobs, read_queue, results

INTRO = """
Street scenes of CamVid, from scratch: a part of it, 93 images to train on, 26 for validation and 48 to test, of 480 x
360 pixels and 11 classes. Mean IoU is over classes, each summed over all images in the masks' own pixels. Choices
were made on the validation images. Figures are means over seeds with the lowest and the highest; a difference smaller
than the larger of two spreads is a tie. Published figures for CamVid are of the whole data set, and not comparable.
"""


def table(rows: dict[str, list[dict[str, str]]]) -> list[str]:
    """Writes a group as Markdown, a line for each arm."""
    tested = any(row["test_mean_iou"] for found in rows.values() for row in found)
    heads = ["arm", "parameters", "steps", "seeds", "validation mIoU", *(["test mIoU"] if tested else [])]
    lines = ["| " + " | ".join(heads) + " |", "|---|---:|---:|---:|---:|" + "---:|" * tested]
    for arm, found in rows.items():
        first = found[0]
        cells = [arm, f"{int(first['parameters']) / 1e6:.2f}M", first["steps"], str(len(found))]
        for key in ("val_mean_iou", *(["test_mean_iou"] if tested else [])):
            cells.append(spread([100 * float(row[key]) for row in found], 1))
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def per_class(rows: dict[str, list[dict[str, str]]], classes: list[str], split: str) -> list[str]:
    """Writes the IoU of each class, means over seeds, as Markdown."""
    lines = [f"IoU of each class on the {split} images, %:", "", "| class | " + " | ".join(rows) + " |"]
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


def page() -> str:
    """Returns the page."""
    queue = read_queue()
    lines = ["# Segmentation", "", "Written by `python -m studies.dense.page` from `results/dense`.", "", INTRO.strip()]
    for group, about in queue["groups"].items():
        rows = rows_by_arm(queue, group)
        if rows:
            lines += ["", f"## {about['title']}", "", about["about"].strip(), "", *table(rows)]
            lines += ["", *per_class(rows, queue["recipe"]["classes"], "test" if about.get("test") else "validation")]
    speeds = read_rows(results() / "speed.csv")
    if speeds:
        lines += ["", "## Speed of a training step", "", "| arm | seconds | quartiles |", "|---|---:|---|"]
        for row in speeds:
            middle, low, high = (float(row[key]) for key in ("seconds_per_step", "low", "high"))
            lines.append(f"| {row['arm']} | {middle:.3f} | {low:.3f} to {high:.3f} |")
    return "\n".join(lines) + "\n"


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page."""
    refuse_options(__doc__, argv)
    (common.DOCS / "dense.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
