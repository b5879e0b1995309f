"""Writes docs/explanations.md from the rows that studies.explaining kept.

python -m studies.explaining_page
"""

import json
from collections.abc import Sequence
from itertools import groupby

from . import common
from .common import read_rows, refuse_options

INTRO = """
How faithful the maps of `supertokenvit explain` are. Each figure is a mean over images with its 95 % interval
(bootstrap over the images). `composed` is the default.

- *Grid game*: four test images of different classes, each of which the model answers rightly alone, side by side in one
  image of twice the size. Each of the four classes is explained. The figure is the share of the positive evidence
  that lies in the right quarter; chance is 25 %. The composites are larger than the images of the training, so the
  model itself is weaker on them.
- *One window*: a test image made as small as one window, on the blurred rest of another image, of those that are
  answered rightly. The figure is the share of the positive evidence in that window.
- *SRG*: patches are taken away, once the least important first and once the most important first. The figure is the
  area between the two curves of the probability of the answered class: higher is better. What is taken away becomes
  the mean colour; with *fill* it becomes what its neighbours hold, by diffusion; with *ROAD* it is imputed linearly
  with noise (arXiv 2202.00449).
- *SaCo* says whether groups of patches that are said to matter more do so (arXiv 2404.01415): from -1 to 1, higher is
  better.
- *Randomised* is the rank correlation of a map with that of the same network with random weights. A map that explains
  the weights is near 0.
- *Cost* is in forward passes of the same images, with quartiles over rounds that take turns.

`random` are random values, and `centre` is the same hill in the middle of every image: a method is worth something
where it is above both. `composed, mirrored` is the mean over an image and its mirror image: `explain` takes it where
the answer looks at mirror images too. `each head` and `gates free` are the default without one of its two parts.
Grad-CAM watches the map of Super tokens, with `patches` the last patch tokens that are read. RISE takes 128 masks.
`integrated` is better than the default in one window and where gaps are filled by diffusion, at fifteen times its cost,
and far worse in the grid game.
A dash is a figure that was not measured. Of ROAD, two fifths of the images were measured.
"""
MEASURES = {"grid game": 100.0, "one window": 100.0, "SRG": 1.0, "SRG fill": 1.0, "ROAD": 1.0, "SaCo": 1.0}
MEASURES |= {"randomised": 1.0, "cost": 1.0}


def cell(row: dict[str, str] | None) -> str:
    """Writes a figure with its interval."""
    if row is None:
        return "-"
    scale = MEASURES[row["measure"]]
    digits = 1 if scale > 1 or row["measure"] == "cost" else 3
    mean, low, high = (f"{scale * float(row[key]):.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def table(rows: Sequence[dict[str, str]]) -> list[str]:
    """Returns the lines of the table of one model."""
    named = list(MEASURES)
    shown = [f"{name}, %" if MEASURES[name] > 1 else name for name in named]
    lines = [f"| method | {' | '.join(shown)} |", "|---" * (1 + len(named)) + "|"]
    for method in dict.fromkeys(row["method"] for row in rows):
        these = {row["measure"]: row for row in rows if row["method"] == method}
        lines.append("| " + " | ".join([f"`{method}`", *(cell(these.get(what)) for what in named)]) + " |")
    return lines


def write_page() -> None:
    """Writes the page."""
    rows = read_rows(common.RESULTS / "explaining" / "rows.csv")
    lines = ["# Explanations", "", "Written by `python -m studies.explaining_page` from `results/explaining`.", ""]
    lines += [INTRO.strip(), ""]

    def question(row: dict[str, str]) -> tuple[str, str]:
        return row["model"], row["data"]

    for (model, data), group in groupby(sorted(rows, key=question, reverse=True), key=question):
        these = list(group)
        first = these[0]
        machine = json.loads(first["environment"])
        count = max(int(row["images"]) for row in these)
        lines += [f"## `{model}` on {data}", ""]
        lines += [
            f"Images of {first['img_size']} px, up to {count} for each figure; {machine['cpu']}, {first['date']} UTC."
        ]
        lines += ["", *table(these), ""]
    (common.DOCS / "explanations.md").write_text("\n".join(lines).rstrip() + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page."""
    refuse_options(__doc__, argv)
    write_page()


if __name__ == "__main__":
    main()
