"""Writes docs/sizes.md and its plot from the rows that studies.sizes kept.

python -m studies.sizes_page
"""

import json
from collections.abc import Sequence

from matplotlib.figure import Figure

from . import common
from .common import read_rows, refuse_options

INTRO = """
How accurate a model is at image sizes other than that of its training, and what each size costs. All figures are of
CIFAR-10's test images (JPEG copies), one view of an image. *Whole picture*: the picture of 32 px is enlarged or reduced
to the size. *On a canvas*: it keeps its size in the middle of a canvas of the mean colour, so that it is a smaller
part of a larger image. Speeds are medians over rounds in which models and sizes took turns, in fp32, batches of 64.
"""


def table(rows: Sequence[dict[str, str]]) -> list[str]:
    """Writes the rows of a model as Markdown."""
    lines = [
        "| size | whole picture, % | on a canvas, % | images/s | quartiles | GMACs |",
        "|---|---|---:|---:|---|---:|",
    ]
    for row in rows:
        score = f"{100 * float(row['top1']):.2f} (± {100 * float(row['standard_error']):.2f})"
        canvas = f"{100 * float(row['canvas_top1']):.2f}" if row["canvas_top1"] else ""
        rate, low, high = (f"{float(row[key]):,.0f}" for key in ("images_per_second", "q1", "q3"))
        size = f"{row['img_size']} px" + (", its own" if row["img_size"] == row["own_size"] else "")
        cells = [size, score, canvas, rate, f"{low} to {high}", f"{float(row['gmacs']):.3f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def draw(by_model: dict[str, list[dict[str, str]]]) -> Figure:
    """Draws accuracy over speed, a line for each model and a dot for each size."""
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axis = figure.subplots()
    for number, (name, rows) in enumerate(by_model.items()):
        speeds = [float(row["images_per_second"]) for row in rows]
        scores = [100 * float(row["top1"]) for row in rows]
        axis.plot(speeds, scores, marker="o", label=name)
        for speed, score, row in zip(speeds, scores, rows, strict=True):
            above = 6 if number % 2 else -13  # labels of two lines shall not lie on each other
            axis.annotate(
                row["img_size"], (speed, score), (0, above), textcoords="offset points", ha="center", fontsize=8
            )
    axis.set(xlabel="images/s", ylabel="test accuracy (%)", title="Each dot is a size, in pixels")
    axis.grid(alpha=0.3)
    axis.legend(loc="lower right")
    return figure


def write_page() -> None:
    """Writes the page and its plot."""
    rows = read_rows(common.RESULTS / "sizes" / "rows.csv")
    first = rows[0]
    machine = json.loads(first["environment"])
    by_model = {name: [row for row in rows if row["model"] == name] for name in dict.fromkeys(r["model"] for r in rows)}
    lines = ["# Sizes", "", "Written by `python -m studies.sizes_page` from `results/sizes`.", "", INTRO.strip(), ""]
    lines += [
        f"{int(first['images']):,} images; {machine['cpu']}, {first['threads']} threads, {first['date']} UTC.",
        "",
    ]
    lines += ["![Accuracy over speed](figures/sizes.png)"]
    for name, those in by_model.items():
        lines += ["", f"## `{name}`", "", *table(those)]
    (common.DOCS / "figures").mkdir(parents=True, exist_ok=True)
    draw(by_model).savefig(common.DOCS / "figures" / "sizes.png", dpi=110)
    (common.DOCS / "sizes.md").write_text("\n".join(lines) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page."""
    refuse_options(__doc__, argv)
    write_page()


if __name__ == "__main__":
    main()
