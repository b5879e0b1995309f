"""This module makes the table, the CSV with all rounds and the environment, and the plots."""

import csv
import importlib.metadata
import json
import math
import statistics
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.table import Column, Table

from ..machine import environment
from ..model.family import is_variant
from .benchmark import Measurement

ENGINE_PACKAGES = ("onnxruntime", "openvino", "nncf")


def quartiles(values: list[float]) -> tuple[float, float, float]:
    """Returns the first quartile, the median and the third quartile."""
    if len(values) < 2:
        return (values[0],) * 3
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return low, middle, high


def record(row: Measurement) -> dict[str, Any]:
    """Turns a measurement into named numbers, with None where there is no figure."""
    job, cost = row.job, row.cost
    about: dict[str, Any] = {
        "model": row.contestant.name(),
        "engine": row.contestant.engine,
        "mode": job.mode,
        "batch": job.batch,
        "img_size": job.img_size,
        "parameters": cost.parameters if cost else None,
        "gmacs": cost.macs / job.batch / 1e9 if cost else None,
    }
    names = ["images_per_second", "images_per_second_q1", "images_per_second_q3", "ms", "ms_q1", "ms_q3"]
    names += ["ratio", "ratio_q1", "ratio_q3", "gflops", "share_of_products"]
    figures: dict[str, float | None] = dict.fromkeys(names)
    if row.seconds:
        low, middle, high = quartiles(row.seconds)
        for suffix, value, rate in (("", middle, middle), ("_q1", low, high), ("_q3", high, low)):
            figures["ms" + suffix] = 1000 * value
            figures["images_per_second" + suffix] = job.batch / rate
        flops = row.flops_per_second
        figures["gflops"] = None if flops is None else flops / 1e9
        figures["share_of_products"] = row.share_of_products
    if row.ratios:
        figures["ratio_q1"], figures["ratio"], figures["ratio_q3"] = quartiles(row.ratios)
    tail = {
        "peak_memory_mb": row.memory / 1e6 if row.memory is not None else None,
        "error": row.error,
        "device": job.device,
        "threads": job.threads,
        "seconds": json.dumps([round(s, 6) for s in row.seconds]),
        "product_seconds": json.dumps([round(s, 6) for s in row.product_seconds]),
    }
    return about | figures | tail


def make_table(rows: list[Measurement], width: int) -> Table:
    """Makes the table for the screen; ratios are relative to the first row.

    Args:
        rows: The measurements of one job.
        width: Width of the screen in characters; a narrow one gets the most important columns.
    """
    job = rows[0].job
    what = {"train": "training step", "latency": "latency"}.get(job.mode, "inference")
    records = [record(row) for row in rows]
    models = [row.contestant.model for row in rows]
    settings = [r["model"].removeprefix(model).lstrip(":") for r, model in zip(records, models, strict=True)]
    shared = settings[0] if len(rows) > 1 and len(set(settings)) == 1 else ""
    title = f"{what}, batch {job.batch}, {job.img_size} px, {job.device}, {job.threads} threads"
    table = Table(Column("model", overflow="fold"), title=f"{title}, {shared}" if shared else title)
    shown = list(COLUMNS)
    if width < 140:
        engines = any(row.contestant.engine != "eager" for row in rows)
        dropped = ("params", "memory") if engines else ("engine",)
        shown = [column for column in COLUMNS if column[2] and column[0] not in dropped]
    for name, _, _ in shown:
        table.add_column(name, justify="left" if name == "engine" else "right", no_wrap=True)
    for r, model in zip(records, models, strict=True):
        table.add_row(model if shared else r["model"], *(cell(r) for _, cell, _ in shown))
    return table


def number(value: float | None, form: str, unit: str = "") -> str:
    """Formats a cell, or a dash where there is no figure."""
    return "-" if value is None else f"{value:{form}}{unit}"


def interval(low: float | None, high: float | None) -> str:
    """Formats two quartiles."""
    return "-" if low is None or high is None else f"{low:.2f}-{high:.2f}"


COLUMNS: list[
    tuple[str, Callable[[dict[str, Any]], str], bool]
] = [  # name, cell of a record, also if narrow (see make_table)
    ("engine", lambda r: r["engine"], True),
    ("params", lambda r: number(r["parameters"] and r["parameters"] / 1e6, ".1f", "M"), True),
    ("GMACs", lambda r: number(r["gmacs"], ".2f"), False),
    ("images/s", lambda r: number(r["images_per_second"], ".2f"), True),
    ("quartiles", lambda r: interval(r["images_per_second_q1"], r["images_per_second_q3"]), False),
    ("ratio", lambda r: number(r["ratio"], ".2f", "x"), True),
    ("quartiles", lambda r: interval(r["ratio_q1"], r["ratio_q3"]), False),
    ("ms", lambda r: number(r["ms"], ".0f" if (r["ms"] or 0) >= 100 else ".1f"), True),
    ("memory", lambda r: number(r["peak_memory_mb"], ",.0f", " MB"), True),
    ("GFLOP/s", lambda r: number(r["gflops"], ".0f"), False),
    ("share", lambda r: number(r["share_of_products"] and 100 * r["share_of_products"], ".0f", " %"), False),
]


def write_rows(path: Path, rows: list[Measurement]) -> None:
    """Writes all rows with their rounds and the environment as CSV."""
    packages = {}
    for package in ENGINE_PACKAGES:
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            packages[package] = ""
    here = {"date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M"), **environment(), **packages}
    here.pop("threads")
    records = [record(row) | here for row in rows]
    with open(path, "w", newline="") as file:
        writer = csv.DictWriter(file, list(records[0]))
        writer.writeheader()
        writer.writerows(records)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads what write_rows wrote: numbers as numbers, and None where there was no figure."""
    with open(path, newline="") as file:
        return [{key: _value(text) for key, text in row.items()} for row in csv.DictReader(file)]


def _value(text: str) -> Any:
    if text == "":
        return None
    try:
        return json.loads(text) if text[0] in "-0123456789[" else text
    except json.JSONDecodeError:
        return text


def label(row: dict[str, Any]) -> str:
    """Names the model, and the engine if it is not eager torch."""
    return row["model"] if row["engine"] == "eager" else f"{row['model']} {row['engine']}"


def draw_throughput(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draws images per second against parameters, with one named point for each record that has figures."""
    from matplotlib.figure import Figure  # slow to import

    found = [row for row in rows if row["images_per_second"] is not None and row["parameters"] is not None]
    found.sort(key=lambda row: row["images_per_second"])
    figure = Figure(figsize=(10, 6), layout="constrained")
    axis = figure.subplots()
    axis.set(xlabel="parameters (millions)", ylabel="images/s", yscale="log")
    points = [(row["parameters"] / 1e6, row["images_per_second"]) for row in found]
    colors = ["C3" if is_variant(row["model"].partition(":")[0]) else "C0" for row in found]
    axis.scatter([x for x, _ in points], [y for _, y in points], color=colors, zorder=3)
    axis.set_xlim(0, None)
    axis.yaxis.set_major_formatter("{x:g}")
    axis.yaxis.set_minor_formatter("{x:g}")
    axis.grid(alpha=0.3, which="both")
    to_axes = axis.transData + axis.transAxes.inverted()
    heights = spread_out([to_axes.transform(point)[1] for point in points], gap=0.042)
    for row, point, height, color in zip(found, points, heights, colors, strict=True):
        axis.annotate(
            f"{row['images_per_second']:.3g}  {label(row)}",
            point,
            xytext=(1.04, height),
            textcoords="axes fraction",
            va="center",
            fontsize=8,
            color=color,
            arrowprops={"arrowstyle": "-", "relpos": (0, 0.5), "color": "0.75", "linewidth": 0.6},
        )
    figure.savefig(path, dpi=150)


def spread_out(values: list[float], gap: float) -> list[float]:
    """Moves rising numbers up and down until they are at least `gap` apart."""
    up: list[float] = []
    for value in values:
        up.append(max(value, up[-1] + gap) if up else value)
    down: list[float] = []
    for value in reversed(values):
        down.append(min(value, down[-1] - gap) if down else value)
    return [(a + b) / 2 for a, b in zip(up, reversed(down), strict=True)]


def curves_of(rows: list[dict[str, Any]]) -> dict[str, dict[int, float]]:
    """Collects milliseconds per image by side of the image, for each model and engine."""
    curves: dict[str, dict[int, float]] = {}
    for row in rows:
        if row["images_per_second"] is not None:
            curves.setdefault(label(row), {})[row["img_size"]] = 1000 / row["images_per_second"]
    return curves


def draw_sizes(path: Path, rows: list[dict[str, Any]]) -> None:
    """Draws milliseconds per image against its side, and marks the sizes at which two models cost the same."""
    from matplotlib.figure import Figure

    curves = curves_of(rows)
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    for name, curve in curves.items():
        axis.plot(list(curve), list(curve.values()), marker="o", markersize=4, label=name)
    names = list(curves)
    for i, name in enumerate(names):
        for other in names[i + 1 :]:
            for size, ms in crossings(curves[name], curves[other]):
                axis.scatter(size, ms, marker="x", color="black", zorder=4)
                axis.annotate(f"{size:.0f} px", (size, ms), xytext=(4, -10), textcoords="offset points", fontsize=7)
    sizes = sorted({size for curve in curves.values() for size in curve})
    axis.set(xscale="log", yscale="log", xlabel="side of the image (px)", ylabel="ms per image")
    axis.set_xticks(sizes, [str(size) for size in sizes])
    axis.minorticks_off()
    axis.legend(fontsize=8)
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=150)


def crossings(one: dict[int, float], other: dict[int, float]) -> list[tuple[float, float]]:
    """Finds where two curves of cost over size cross, with straight lines between points on logarithmic scales."""
    sizes = sorted(set(one) & set(other))
    found = []
    for a, b in zip(sizes, sizes[1:], strict=False):
        before, after = math.log(one[a] / other[a]), math.log(one[b] / other[b])
        if before * after < 0:
            t = before / (before - after)
            found.append((a * (b / a) ** t, one[a] * (one[b] / one[a]) ** t))
    return found


def exponent(curve: dict[int, float]) -> float:
    """Returns the exponent of cost in the side of the image, smallest to largest; 2 is proportional to the area."""
    a, b = min(curve), max(curve)
    return math.log(curve[b] / curve[a]) / math.log(b / a)
