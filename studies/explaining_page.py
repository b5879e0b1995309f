"""Writes docs/explanations.md from the rows that studies.explaining kept.

python -m studies.explaining_page
"""

import json
from collections.abc import Sequence

from . import common
from .common import read_rows, refuse_options

INTRO = """
How faithful the maps of `supertokenvit explain` are, on CIFAR-10's test images with the weights that come with the
package. Each figure is a mean over images with its 95 % interval (bootstrap over the images).

- *Grid game*: four test images of different classes, each of which the model answers rightly alone, side by side in one
  image of twice the size. Each of the four classes is explained. The figure is the share of the positive evidence
  that lies in the right quarter; chance is 25 %.
- *SRG*: patches are taken away, once the least important first and once the most important first. The figure is the
  area between the two curves of the probability of the answered class: higher is better. What is taken away becomes
  the mean colour; with *fill* it becomes what its neighbours hold, by diffusion.
- *Cost* is in forward passes of the same images.

`random` are random values, and `centre` is the same hill in the middle of every image: a method is worth something
where it is above both.
"""
MEASURES = {"grid game": 100.0, "SRG": 1.0, "SRG fill": 1.0}


def cell(row: dict[str, str]) -> str:
    """Writes a figure with its interval."""
    scale = MEASURES[row["measure"]]
    digits = 1 if scale > 1 else 3
    mean, low, high = (f"{scale * float(row[key]):.{digits}f}" for key in ("mean", "low", "high"))
    return f"{mean} [{low}, {high}]"


def write_page() -> None:
    """Writes the page."""
    rows = read_rows(common.RESULTS / "explaining" / "rows.csv")
    first = rows[0]
    machine = json.loads(first["environment"])
    lines = ["# Explanations", "", "Written by `python -m studies.explaining_page` from `results/explaining`.", ""]
    lines += [INTRO.strip(), ""]
    lines += [f"`{first['model']}`, {first['images']} images each; {machine['cpu']}, {first['date']} UTC.", ""]
    lines += ["| method | grid game, % | SRG | SRG fill | cost |", "|---|---|---|---|---:|"]
    for method in dict.fromkeys(row["method"] for row in rows):
        these = {row["measure"]: row for row in rows if row["method"] == method}
        cost = f"{float(these['SRG']['forward_passes']):.1f}"
        lines.append("| " + " | ".join([f"`{method}`", *(cell(these[what]) for what in MEASURES), cost]) + " |")
    (common.DOCS / "explanations.md").write_text("\n".join(lines) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page."""
    refuse_options(__doc__, argv)
    write_page()


if __name__ == "__main__":
    main()
