"""Writes docs/prediction.md from the rows that studies.prediction kept.

python -m studies.prediction_page
"""

import statistics
from collections.abc import Sequence

from . import common
from .common import read_rows, refuse_options

INTRO = """
How fast `supertokenvit predict` answers, and how fast the command starts. What is compared takes turns in one
process (a whole command is a process of its own); figures are medians over rounds with quartiles, and ratios are taken
within a round. The model is `stt_micro.cifar10` with its six views. *The model alone* answers for images that are
decoded already. Photographs of 12 megapixels were made by enlarging smaller ones.
"""


def table(rows: list[dict[str, str]], base: str) -> list[str]:
    """Writes the rows of a group as Markdown."""
    unit = rows[0]["unit"]
    lines = [f"| what | {unit} | quartiles | times {base} | quartiles |", "|---|---:|---|---:|---|"]
    for row in rows:
        value, low, high = (float(row[key]) for key in ("value", "q1", "q3"))
        form = ",.0f" if unit == "images/s" else ".2f"
        ratio, ratio_low, ratio_high = (float(row[f"ratio{end}"]) for end in ("", "_q1", "_q3"))
        cells = [row["what"], f"{value:{form}}", f"{low:{form}} to {high:{form}}", f"{ratio:.2f}"]
        lines.append("| " + " | ".join([*cells, f"{ratio_low:.2f} to {ratio_high:.2f}"]) + " |")
    return lines


def reductions(rows: list[dict[str, str]]) -> list[str]:
    """Writes what the decoder's reduction of JPEGs changes, as Markdown."""
    lines = ["| split | images | decoded whole | as `predict` does | same answer |", "|---|---:|---:|---:|---:|"]
    for row in rows:
        figures = [f"{100 * float(row[key]):.2f} %" for key in ("whole_top1", "reduced_top1", "same_answer")]
        lines.append("| " + " | ".join([row["split"], row["images"], *figures]) + " |")
    return lines


def before(rows: list[dict[str, str]]) -> list[str]:
    """Writes the whole command beside that of an earlier commit, taking turns, as Markdown."""
    lines = ["| files | commit before | before, images/s | now, images/s | times |", "|---|---|---:|---:|---:|"]
    for group in dict.fromkeys(row["group"] for row in rows):
        these = [row for row in rows if row["group"] == group]
        count, commit = int(these[0]["count"]), these[0]["commit_before"]
        rates = [
            statistics.median(count / float(row[key]) for row in these) for key in ("seconds_before", "seconds_now")
        ]
        times = statistics.median(float(row["seconds_before"]) / float(row["seconds_now"]) for row in these)
        lines.append(f"| {count:,} {group} | {commit} | {rates[0]:.1f} | {rates[1]:.1f} | {times:.2f} |")
    return lines


def write_page() -> None:
    """Writes the page."""
    folder = common.RESULTS / "prediction"
    rows, changed = read_rows(folder / "rows.csv"), read_rows(folder / "reduction.csv")
    first = rows[0]
    lines = ["# Prediction", "", "Written by `python -m studies.prediction_page` from `results/prediction`.", ""]
    lines += [INTRO.strip(), ""]
    lines += [f"{first['cpu']}, {first['threads']} threads, torch {first['torch']}, {first['date']} UTC."]
    for group in dict.fromkeys(row["group"] for row in rows):
        these = [row for row in rows if row["group"] == group]
        title = "Start of the command" if group == "start" else group[0].upper() + group[1:]
        count = "" if group == "start" else f", {int(these[0]['count']):,} of them"
        lines += ["", f"## {title}{count}", "", *table(these, these[0]["what"])]
    lines += [
        "",
        "## The whole command before and now, its start included",
        "",
        *before(read_rows(folder / "before.csv")),
    ]
    lines += ["", "## What decoding JPEGs smaller changes", ""]
    lines += [
        "A JPEG is decoded at a half, a quarter or an eighth of its size as long as its shorter side keeps three times "
        f"the pixels that the model sees ({changed[0]['side']} here). Accuracy of a model that was fine-tuned on "
        "flowers5 (photographs of 144 to 230 pixels, so that a half is the most):",
        "",
        *reductions(changed),
    ]
    (common.DOCS / "prediction.md").write_text("\n".join(lines) + "\n")


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page."""
    refuse_options(__doc__, argv)
    write_page()


if __name__ == "__main__":
    main()
