"""Writes docs/shipping.md from the rows that studies.shipping, studies.serving and studies.scale kept.

python -m studies.shipping_page
"""

import statistics
from collections.abc import Sequence

from . import common
from .common import read_rows, refuse_options

INTRO = """
What leaves the run folder, measured: exported files, int8, the server, the page in a browser, many processes. The model
is `stt_micro.cifar10` with its six views unless another one is named. *Wanted* is what was asked for before anything
was measured; a value that misses it is in bold. What is compared took turns in one process or in whole commands.
"""
EXPORTS = """
Each export is compared with its model in the engine that will run it: at 15 sizes, and on 32 photographs against
`predict`. An export that fails is refused and leaves no file. Models of timm's names have random weights here, spread
so that their logits on photographs have a standard deviation of 3.
"""
SERVER = """
`supertokenvit-runtime serve` with one worker, and clients on the same two cores. *Capacity* is the rate with 64
clients; in the overload twice as many requests arrive. Poison is a fifth of bodies that are no images. Medians over
rounds, with the lowest and the highest.
"""
SCALE = """
`supertokenvit predict` for a folder of small JPEGs, whole commands with their start in turns: the model in torch, its
exported file in ONNX Runtime, that with `--processes`, which writes its answers in parts that survive a killed process,
and an exported file in 8 bits. 1.6 times the model in torch was wanted of `--processes 2`; on two cores one process
keeps both busy already.
"""


def met(value: float, wanted: str) -> bool:
    """Says whether a value keeps what was wanted: "at least N", "at most N" or a number."""
    if not wanted:
        return True
    limit = float(wanted.split()[-1])
    if wanted.startswith("at least"):
        return value >= limit
    return value <= limit if wanted.startswith("at most") else value == limit


def shown(value: float, unit: str, wanted: str) -> str:
    """Writes a value with its unit, in bold where it misses what was wanted."""
    form = ",.0f" if abs(value) >= 100 or value == int(value) else ".3g"
    text = f"{value:{form}} {unit}".strip()
    return text if met(value, wanted) else f"**{text}**"


def table(rows: Sequence[dict[str, str]]) -> list[str]:
    """Writes rows as Markdown; those of several rounds as medians with the lowest and the highest."""
    lines = ["| what | measured | wanted |", "|---|---:|---:|"]
    for what in dict.fromkeys(row["what"] for row in rows):
        these = [row for row in rows if row["what"] == what]
        values, unit, wanted = [float(row["value"]) for row in these], these[0]["unit"], these[0]["wanted"]
        text = shown(statistics.median(values), unit, wanted)
        if len(set(values)) > 1:
            text += f" ({shown(min(values), '', '')} to {shown(max(values), '', '')})"
        lines.append(f"| {what} | {text} | {wanted} |")
    return lines


def exports(rows: Sequence[dict[str, str]]) -> list[str]:
    """Writes a line for each exported file."""
    lines = [
        "| model | format | checks | largest difference, of its limit | time, s | size, MB |",
        "|---|---|---|---|---|---|",
    ]
    for name, format in dict.fromkeys((row["model"], row["format"]) for row in rows):
        found = {row["what"]: row for row in rows if (row["model"], row["format"]) == (name, format)}
        refused = next((what for what in found if what.startswith("refused")), None)
        if refused is not None:
            lines.append(f"| {name} | {format} | {refused} | | | |")
            continue
        names = ("checks that passed", "largest difference", "time with its checks", "size")
        cells = [shown(float(found[what]["value"]), "", found[what]["wanted"]) for what in names]
        lines.append(f"| {name} | {format} | " + " | ".join(cells) + " |")
    return lines


def machine(rows: Sequence[dict[str, str]]) -> str:
    """Writes where rows come from."""
    first = rows[0]
    return f"{first['cpu']}, {first['cores']} cores, torch {first['torch']}, {first['date']} UTC."


def scale(rows: Sequence[dict[str, str]]) -> list[str]:
    """Writes the commands beside each other."""
    lines = ["| `predict` | images/s | times torch | quartiles |", "|---|---:|---:|---|"]
    for row in rows:
        ratios = [f"{float(row[f'ratio{end}']):.2f}" for end in ("", "_q1", "_q3")]
        lines.append(f"| {row['what']} | {float(row['value']):,.0f} | {ratios[0]} | {ratios[1]} to {ratios[2]} |")
    return lines


def write_page() -> None:
    """Writes the page."""
    shipping = read_rows(common.RESULTS / "shipping" / "rows.csv")
    lines = ["# What is shipped, measured", ""]
    lines += ["Written by `python -m studies.shipping_page` from `results/shipping`, `results/serving` and "]
    lines[-1] += "`results/scale`."
    lines += ["", INTRO.strip()]
    for part, title, text, write in (
        ("exports", "Exported files", EXPORTS, exports),
        ("int8", "8 bits", "OpenVINO on a processor with VNNI, calibrated on training images.", table),
        ("page", "The page", "`--format web` in Chromium, without a network.", table),
        ("runtime", "The runtime", "`supertokenvit-runtime` in an environment of its own.", table),
    ):
        rows = [row for row in shipping if row["part"] == part]
        if rows:
            lines += ["", f"## {title}", "", text.strip(), "", machine(rows), "", *write(rows)]
    for folder, title, text, write in (
        ("serving", "The server", SERVER, table),
        ("scale", "Many images", SCALE, scale),
    ):
        rows = read_rows(common.RESULTS / folder / "rows.csv")
        if rows:
            lines += ["", f"## {title}", "", text.strip(), "", machine(rows), "", *write(rows)]
    (common.DOCS / "shipping.md").write_text("\n".join(lines) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page."""
    refuse_options(__doc__, argv)
    write_page()


if __name__ == "__main__":
    main()
