"""Writes docs/benchmarks.md and its plots from the rows that studies.benchmarks.run kept.

python -m studies.benchmarks.page
"""

import csv
from collections.abc import Sequence
from typing import Any

from supertokenvit.benchmarking.report import (
    curves_of,
    draw_sizes,
    draw_throughput,
    exponent,
    interval,
    label,
    number,
    read_rows,
)

from ..common import DOCS, RESULTS, STUDIES, refuse_options

ROWS = RESULTS / "benchmarks"
NOTES = STUDIES / "benchmarks" / "notes"
FOLDED = ":reparam=true"
SWIN, OURS = "swin_base_patch4_window7_224", "stt_s25"
CLAIM = 83.5  # the paper's abstract; not measured by us
INTRO = """
Each table of models is one run of `supertokenvit benchmark` in one process: every model takes a turn in every round,
ratios are taken within a round, and the figure is the median over rounds with its quartiles. *Share of products* sets
the FLOP/s against those of the model's own matrix products (same shapes, same precision, nothing between them),
measured in the same rounds. GMACs count attention. Accuracies are what the authors of each model publish for
ImageNet-1K (timm's results/results-imagenet.csv, commit aa4b5850), not ours; that of `stt_s25` is the claim of the
paper whose network it reconstructs, and no weights of that accuracy exist. *fused=false* is timm's attention without
torch's fused kernel; *reparam=true* is timm's `reparameterize_model`, which folds BatchNorm and LayerScale into the
weights before them.

Tables were measured on different machines of two cores, as each says, and those on AMD EPYC before the stem computed
in channels-last memory. `python -m studies.benchmarks.run` repeats them (about an hour),
`studies.benchmarks.attempts` and `.graphs` the other two (minutes), and `.page` writes this page. On a machine with a
GPU: `python -m studies.benchmarks.run gpu gpu-compile gpu-train`.
"""
SUITES = {
    "peers": "Inference beside the peers",
    "train": "A training step",
    "engines": "Engines",
    "latency": "Latency of one image",
    "sizes": "Image sizes",
    "large": "A large image in bounded memory",
    "gpu": "GPU, bf16",
    "gpu-compile": "GPU, bf16, compiled",
    "gpu-train": "GPU, training step",
}


def published() -> dict[str, dict[str, str]]:
    """Accuracies that others publish, by model."""
    with open(ROWS / "published.csv", newline="") as file:
        return {row["model"]: row for row in csv.DictReader(file)}


def table(rows: list[dict[str, Any]], accuracies: dict[str, dict[str, str]]) -> list[str]:
    """A Markdown table of one suite."""
    sweep = len({row["img_size"] for row in rows}) > 1
    head = ["model", "engine", *(["px"] if sweep else []), "top-1", "params", "GMACs", "images/s", "quartiles"]
    head += ["ratio", "quartiles", "ms", "peak memory", "share of products"]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for row in rows:
        base = row["model"].partition(":")[0]
        known = accuracies.get(base)
        top1 = f"{known['top1']}" if known else f"{CLAIM} (paper's claim)" if base == OURS else "-"
        cells = [row["model"], row["engine"], *([str(row["img_size"])] if sweep else []), top1]
        cells += [
            number(row["parameters"] and row["parameters"] / 1e6, ".1f", "M"),
            number(row["gmacs"], ".2f"),
            number(row["images_per_second"], ".2f"),
            interval(row["images_per_second_q1"], row["images_per_second_q3"]),
            number(row["ratio"], ".2f", "x"),
            interval(row["ratio_q1"], row["ratio_q3"]),
            number(row["ms"], ".0f"),
            number(row["peak_memory_mb"], ",.0f", " MB"),
            number(row["share_of_products"] and 100 * row["share_of_products"], ".0f", " %"),
        ]
        lines.append("| " + " | ".join(cells) + " |")
    return lines + [f"\n{row['model']} ({row['engine']}): {row['error']}" for row in rows if row["error"]]


def find(rows: list[dict[str, Any]] | None, model: str, **fields: Any) -> dict[str, Any] | None:
    """The row of a model with those fields, if it has figures; as it is rather than folded for inference."""
    found = [row for row in rows or [] if row["model"] in (model, model + FOLDED) and row["ms"] is not None]
    found = [row for row in found if all(row[key] == value for key, value in fields.items())]
    return min(found, key=lambda row: len(row["model"]), default=None)


def quotient(a: dict[str, Any] | None, b: dict[str, Any] | None, key: str = "ratio") -> float | None:
    """a / b of one column: how many times as fast as b a is, from what each is to the first model of its round."""
    return None if a is None or b is None or not a[key] or not b[key] else a[key] / b[key]


def best(rows: list[dict[str, Any]] | None, model: str) -> dict[str, Any] | None:
    """The fastest row of a model, int8 left out: that is another precision."""
    found = [row for row in rows or [] if row["model"] in (model, model + FOLDED) and row["ms"]]
    found = [row for row in found if "int8" not in row["engine"]]
    return min(found, key=lambda row: row["ms"], default=None)


def targets(suites: dict[str, list[dict[str, Any]]]) -> list[tuple[str, str, float | None, float, bool]]:
    """What was aimed at, as ratios: (suite, what, measured, target, whether more is better)."""
    peers, train, engines, latency = (suites.get(name) for name in ("peers", "train", "engines", "latency"))
    sizes = suites.get("sizes")
    ours = find(peers, OURS)
    int8 = min(
        (
            row
            for row in engines or []
            if row["model"] in (OURS, OURS + FOLDED) and "int8" in row["engine"] and row["ms"]
        ),
        key=lambda row: row["ms"],
        default=None,
    )
    deit = "deit3_medium_patch16_224"
    large = {name: find(sizes, name, img_size=896) for name in (SWIN, OURS, deit)}
    growth = quotient(find(sizes, OURS, img_size=1792), find(sizes, OURS, img_size=224), "ms")
    accurate = [row for row in peers or [] if float(published().get(row["model"], {"top1": 0})["top1"]) >= 83.4]
    hardest = min((row for row in accurate if row["ms"]), key=lambda row: row["ms"], default=None)
    behind = f"fastest peer of 83.4 % or more{f' ({label(hardest)})' if hardest else ''}"
    steps = find(train, OURS), find(train, SWIN)
    at_least = [
        ("peers", "inference against Swin-B, batch 8", quotient(ours, find(peers, SWIN)), 2.8),
        ("peers", f"inference against the {behind}", quotient(ours, hardest), 1.0),
        ("train", "training step against Swin-B, batch 8", quotient(*steps), 2.5),
        ("engines", "best fp32 engine of each, batch 8", quotient(best(engines, OURS), best(engines, SWIN)), 2.5),
        (
            "latency",
            "latency of one image, best fp32 engine of each",
            quotient(best(latency, OURS), best(latency, SWIN)),
            2.5,
        ),
        ("engines", "int8 against its own best fp32 engine", quotient(int8, best(engines, OURS)), 1.8),
        ("peers", "share of the matrix products' own rate", ours["share_of_products"] if ours else None, 0.9),
        ("sizes", "896 px, one image, against Swin-B", quotient(large[OURS], large[SWIN]), 2.5),
        ("sizes", "896 px, one image, against DeiT-III-M", quotient(large[OURS], large[deit]), 2.2),
    ]
    at_most = [
        ("train", "peak memory of a training step, of Swin-B's", quotient(*steps, "peak_memory_mb"), 0.5),
        ("sizes", "cost per pixel, 1792 px against 224 px", growth and growth / 64, 1.1),
    ]
    return [(*row, True) for row in at_least] + [(*row, False) for row in at_most]


def write_page() -> None:
    """docs/benchmarks.md and its figures."""
    suites = {name: read_rows(ROWS / f"{name}.csv") for name in SUITES if (ROWS / f"{name}.csv").exists()}
    accuracies = published()
    lines = ["# Benchmarks", "", "Written by `python -m studies.benchmarks.page` from `results/benchmarks`.", ""]
    lines += INTRO.strip().splitlines()
    lines += ["", "## What was aimed at", "", "| what | target | measured | | on |", "|---|---|---|---|---|"]
    for suite, what, value, target, more in targets(suites):
        reached = "-" if value is None else "reached" if (value >= target) == more or value == target else "missed"
        sign = "at least" if more else "at most"
        where = suites[suite][0]["cpu"] if value is not None else "-"
        lines.append(f"| {what} | {sign} {target:g}x | {number(value, '.2f', 'x')} | {reached} | {where} |")
    for name, title in SUITES.items():
        lines += ["", f"## {title}", ""]
        if name not in suites:
            lines.append(f"Not measured. `python -m studies.benchmarks.run {name}` measures it.")
            continue
        rows = suites[name]
        first = rows[0]
        lines.append(
            f"{first['mode']}, batch {first['batch']}, {first['device']}, {first['threads']} threads, {first['cpu']}, "
            f"torch {first['torch']}, timm {first['timm']}, {first['date']} UTC. Ratios are to {label(first)}."
        )
        lines += ["", *table(rows, accuracies)]
        note = NOTES / f"{name}.md"
        lines += ["", note.read_text().strip()] if note.exists() else []
        lines += figures(name, rows)
        lines += attempts() if name == "peers" else graphs() if name == "engines" else []
    (DOCS / "benchmarks.md").write_text("\n".join(lines) + "\n")


def attempts() -> list[str]:
    """Writes what was tried to make eager torch faster."""
    if not (ROWS / "attempts.csv").exists():
        return []
    rows = read_rows(ROWS / "attempts.csv")
    lines = ["", "### What was tried in eager torch", ""]
    lines += [
        f"Each in turns with what it would replace, at the shapes of `{OURS}` and batch 8 ({rows[0]['cpu']}).",
        "",
    ]
    lines += ["| attempt | before | after | ratio | quartiles |", "|---|---|---|---|---|"]
    for row in rows:
        times = [f"{row[key]:.3g} ms" for key in ("before_ms", "after_ms")]
        quartiles = interval(row["ratio_q1"], row["ratio_q3"])
        lines.append(f"| {row['attempt']} | {' | '.join(times)} | {row['ratio']:.2f}x | {quartiles} |")
    note = NOTES / "attempts.md"
    return lines + (["", note.read_text().strip()] if note.exists() else [])


def graphs() -> list[str]:
    """Writes what the engines make of both networks, without what takes little time."""
    if not (ROWS / "graphs.csv").exists():
        return []
    rows = read_rows(ROWS / "graphs.csv")
    lines = [
        "",
        "### Inside the graphs",
        "",
        "Kinds of nodes after each engine's own fusion, and their share of the time",
    ]
    lines[-1] += f" (batch 8, {rows[0]['cpu']}; kinds below 0.5 % of both are left out)."
    for engine in ("eager", "onnx", "openvino"):
        kinds = dict.fromkeys(r["node"] for r in rows if r["engine"] == engine)
        found = {(r["model"], r["node"]): r for r in rows if r["engine"] == engine}
        lines += ["", f"| {engine} | {SWIN}: nodes | time | {OURS}: nodes | time |", "|---|---|---|---|---|"]
        for kind in kinds:
            pair = [found.get((model, kind)) for model in (SWIN, OURS)]
            if max(r["share"] for r in pair if r) >= 0.005:
                cells = [
                    cell for r in pair for cell in ((str(r["count"]), f"{100 * r['share']:.1f} %") if r else ("0", "-"))
                ]
                lines.append("| " + " | ".join([kind, *cells]) + " |")
    note = NOTES / "graphs.md"
    return lines + (["", note.read_text().strip()] if note.exists() else [])


def figures(name: str, rows: list[dict[str, Any]]) -> list[str]:
    """The plots of a suite, as Markdown; and the growth over sizes in words."""
    folder = DOCS / "figures"
    if name == "peers":
        draw_throughput(folder / "benchmark-peers.png", rows)
        return ["", "![images per second against parameters](figures/benchmark-peers.png)"]
    if name != "sizes":
        return []
    draw_sizes(folder / "benchmark-sizes.png", rows)
    grown = [f"{model} {exponent(curve):.2f}" for model, curve in curves_of(rows).items() if len(curve) > 1]
    words = f"Growth of the time, as a power of the side (2 is the area): {', '.join(grown)}."
    return ["", "![cost against size](figures/benchmark-sizes.png)", "", words]


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the page."""
    refuse_options(__doc__, argv)
    write_page()


if __name__ == "__main__":
    main()
