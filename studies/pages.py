"""Writes the page of a queue, and its plot, from the queue and its rows.

python -m studies.pages ablations
"""

import argparse
import json
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from . import common
from .common import read_rows, spread
from .queue import arguments, names, open_queue, rows_of, valid


def summary(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Returns the figures of one arm over its seeds."""
    values = [100 * float(row["val_top1"]) for row in rows]
    tests = [100 * float(row["test_top1"]) for row in rows if row.get("test_top1")]
    mmacs, images = float(rows[0]["mmacs"]), int(rows[0]["images"])
    cpus = {json.loads(row["environment"])["cpu"] for row in rows}
    judged = tests or values
    return {
        "judged": dict(zip((row["seed"] for row in rows), judged, strict=True)),
        "mean": statistics.mean(judged),
        "low": min(judged),
        "high": max(judged),
        "validation": spread(values),
        "seeds": len(values),
        "parameters": int(rows[0]["parameters"]),
        "mmacs": mmacs,
        "images": images,
        "petaflops": 6 * mmacs * 1e6 * images / 1e15,  # forward and twice as much backward, two for each MAC
        "test": spread(tests) if tests else "",
        "rate": statistics.median(float(row["images_per_second"]) for row in rows),
        "cpus": cpus,
        "minutes": statistics.mean(float(row["minutes"]) for row in rows),
        "curves": [json.loads(row["curve"]) for row in rows if row.get("curve")],
    }


def verdicts(arms: dict[str, dict[str, Any]]) -> dict[str, str]:
    """Calls each arm best, tie (and the one of those that is cheaper than all others) or worse; nothing with one seed.

    Two arms are compared on the seeds that both have: more seeds of one than of the other would widen its range only.
    """
    several = {name: r for name, r in arms.items() if len(r["judged"]) > 1}
    seeds = set[str].intersection(*(set(r["judged"]) for r in several.values())) if several else set[str]()
    if len(several) < 2 or len(seeds) < 2:
        return dict.fromkeys(arms, "")

    def mean(name: str, shared: set[str]) -> float:
        return statistics.mean(arms[name]["judged"][seed] for seed in shared)

    def width(name: str, shared: set[str]) -> float:
        values = [arms[name]["judged"][seed] for seed in shared]
        return max(values) - min(values)

    top = max(several, key=lambda name: mean(name, seeds))

    def ties(name: str) -> bool:
        shared = set(arms[name]["judged"]) & set(arms[top]["judged"])
        return mean(top, shared) - mean(name, shared) < max(width(name, shared), width(top, shared))

    equal = [name for name in several if name == top or ties(name)]
    words = {name: "tie" if name in equal else "worse" if name in several else "" for name in arms}
    words[top] = "best"
    cheapest, *others = sorted(equal, key=lambda name: arms[name]["mmacs"])
    if others and arms[cheapest]["mmacs"] < arms[others[0]]["mmacs"]:
        words[cheapest] += ", cheapest of these"
    return words


def at_rate(found: dict[str, Any], rate: float | None) -> dict[str, Any]:
    """Returns a summary as if its steps had been made at that many images/s; without a rate if none was measured."""
    if rate is None:
        return found | {"rate": None}
    minutes = found["images"] / rate / 60
    curves = [[[minutes * at / curve[-1][0], value] for at, value in curve] for curve in found["curves"]]
    return found | {"rate": rate, "minutes": minutes, "curves": curves, "cpus": set()}  # all on one machine


def results(
    queue: dict[str, Any], rows: list[dict[str, str]], speed: list[dict[str, str]]
) -> dict[str, dict[str, dict[str, Any]]]:
    """Returns summaries by group and arm; an arm that is the same model as another group's has the same rows.

    Args:
        queue: From queue.yaml.
        rows: From runs.csv.
        speed: From speed.csv. If there is any, speeds side by side alone are shown: those of the runs hang on what else
            the machine did, and on the version of the code.
    """
    rates = {(row["group"], row["arm"]): float(row["images_per_second"]) for row in speed if row["mode"] == "train"}
    by_args: dict[str, list[dict[str, str]]] = {}
    for row in valid(queue, rows):
        by_args.setdefault(row["model_args"], []).append(row)
    found: dict[str, dict[str, dict[str, Any]]] = {}

    def seeds(about: dict[str, Any]) -> list[int]:
        return about.get("seeds", queue["seeds"])

    for group, about in queue["groups"].items():
        found[group] = {}
        for arm, changes in about["arms"].items():
            kept = [
                row for row in by_args.get(arguments(queue, about, changes), []) if int(row["seed"]) in seeds(about)
            ]
            if kept:
                found[group][arm] = summary(kept)
        if speed:
            found[group] = {arm: at_rate(r, rates.get((group, arm))) for arm, r in found[group].items()}
    return found


def listed(settings: dict[str, Any] | None) -> str:
    """Writes names and values in a row."""
    return ", ".join(f"{key} {value}" for key, value in (settings or {}).items())


def section(group: str, about: dict[str, Any], arms: dict[str, dict[str, Any]]) -> list[str]:
    """Writes one group as Markdown."""
    lines = [f"## {group[0].upper()}{group[1:]}", "", " ".join(about["question"].split()), ""]
    own = {"Data": about.get("data"), "Base": listed(about.get("base")), "Recipe": listed(about.get("recipe"))}
    lines += [f"{what} of this group: {text}.\n" for what, text in own.items() if text]
    tested = any(r["test"] for r in arms.values())
    one_machine = len(set[str]().union(*(r["cpus"] for r in arms.values()))) < 2
    timed = bool(arms) and one_machine and all(r["rate"] for r in arms.values())
    head = ["arm", "parameters", "MMACs", "validation", *(["test"] if tested else []), "seeds"]
    head += [*(["images/s"] if timed else []), "PFLOP", *(["points per PFLOP"] if tested else [])]
    lines += ["| " + " | ".join([*head, "verdict"]) + " |", "|---" * (len(head) + 1) + "|"]
    said = verdicts(arms)
    for arm in about["arms"]:
        if arm not in arms:
            lines.append(f"| {arm} |" + " |" * 2 + " not run yet |" + " |" * (len(head) - 3))
            continue
        r = arms[arm]
        cells = [arm, f"{r['parameters'] / 1e3:,.0f}k", f"{r['mmacs']:.1f}"]
        cells += [r["validation"], *([r["test"]] if tested else [])]
        cells += [str(r["seeds"]), *([f"{r['rate']:.0f}"] if timed else []), f"{r['petaflops']:.3f}"]
        cells += [f"{r['mean'] / r['petaflops']:,.0f}"] if tested else []
        lines.append("| " + " | ".join([*cells, said[arm]]) + " |")
    return lines + [""]


def speeds(rows: list[dict[str, str]]) -> list[str]:
    """Writes what studies.speed measured of a group, as Markdown."""
    if not rows:
        return []
    cells: dict[str, list[str]] = {}
    for row in rows:
        low, middle, high = (float(row[f"ratio{part}"]) for part in ("_q1", "", "_q3"))
        rate = float(row["images_per_second"])
        cells.setdefault(row["arm"], [row["arm"]]).extend([f"{rate:,.0f}", f"{middle:.2f} ({low:.2f} to {high:.2f})"])
    first, train = rows[0], next(row for row in rows if row["mode"] == "train")
    head = [f"batch {first['batch']}, one core", "inference, images/s", f"times {first['arm']}'s"]
    head += ["training, images/s", f"times {first['arm']}'s"]
    where = f"{first['cpu']}, {first['date'][:10]}; inference in fp32, a training step as the arm's recipe has it"
    where += f", in {train['precision']}"
    lines = [f"Side by side in one process, taking turns (medians, quartiles of the ratio; {where}):", ""]
    lines += ["| " + " | ".join(head) + " |", "|---|" + "---:|" * 4]
    return lines + ["| " + " | ".join(row) + " |" for row in cells.values()] + [""]


def views(rows: list[dict[str, str]]) -> list[str]:
    """Writes what studies.views measured, as Markdown."""
    if not rows:
        return []
    names = {"none": "one", "flip": "two, also mirrored", "shift": "six, also moved by a 32nd of the side"}
    runs = [row for row in rows if row["seed"]]
    shipped = [row for row in rows if not row["seed"]]
    lines = [
        "## Views",
        "",
        "What does the mean over several views of an image add, when it is asked for an answer?",
        "",
    ]
    arms = " and ".join(dict.fromkeys(row["arm"].partition(": ")[2] for row in runs))
    head = ["views", f"mean of {len(runs)} runs ({arms})", "against one view (lowest to highest)"]
    head += [f"{row['arm']}, {row['images']} validation images" for row in shipped]
    lines += ["| " + " | ".join(head) + " |", "|---" * len(head) + "|"]
    for key, name in names.items():
        gains = [100 * (float(row[key]) - float(row["none"])) for row in runs]
        mean = statistics.mean(100 * float(row[key]) for row in runs)
        cells = [name, f"{mean:.2f} %", f"{statistics.mean(gains):+.2f} ({min(gains):+.2f} to {max(gains):+.2f})"]
        cells += [f"{100 * float(row[key]):.2f} %" for row in shipped]
        lines.append("| " + " | ".join(cells) + " |")
    return lines + [""]


def draw(path: Path, arms: dict[str, dict[str, Any]]) -> None:
    """Draws accuracy against training time: a point for each arm, and the way of each seed to it where it was kept."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    axis = figure.subplots()
    curves = all(r["curves"] for r in arms.values())
    for name, r in arms.items():
        spans = [[r["mean"] - r["low"]], [r["high"] - r["mean"]]]
        point = axis.errorbar(r["minutes"], r["mean"], yerr=spans, fmt="o", capsize=3, label=name)
        for curve in r["curves"] if curves else []:
            minutes, accuracy = zip(*curve, strict=True)
            axis.plot(minutes, [100 * value for value in accuracy], color=point[0].get_color(), alpha=0.5, linewidth=1)
    tested = any(r["test"] for r in arms.values())
    judged = f"{'test' if tested else 'validation'} accuracy (%)"
    axis.set(xlabel="minutes of training (one core)", ylabel=f"{judged}; lines: validation" if curves else judged)
    axis.grid(alpha=0.3)
    figure.legend(loc="outside lower center", fontsize=8)
    figure.savefig(path, dpi=150)


def write_page(queue_name: str) -> None:
    """Writes docs/NAME.md and docs/figures/NAME.png, as the queue calls its page."""
    queue, folder = open_queue(queue_name), rows_of(queue_name)
    name = queue["page"]
    speed = read_rows(folder / "speed.csv")
    found = results(queue, read_rows(folder / "runs.csv"), speed)
    base = listed(queue["base"])
    recipe = listed({key: value for key, value in queue["recipe"].items() if key != "model"})
    lines = [
        f"# {queue['title']}",
        "",
        f"Written by `python -m studies.pages {queue_name}` from `results/{queue_name}`.",
        "",
    ]
    lines += [queue["intro"].strip(), "", f"Base: {base}.", "", f"Recipe: {recipe}.", ""]
    for group, about in queue["groups"].items():
        lines += section(group, about, found[group])
        lines += speeds([row for row in speed if row["group"] == group])
        if group == queue["plot"] and found[group]:
            draw(common.DOCS / "figures" / f"{name}.png", found[group])
            lines += [f"![accuracy against training time](figures/{name}.png)", ""]
    lines += views(read_rows(folder / "views.csv"))
    (common.DOCS / f"{name}.md").write_text("\n".join(lines))


def main(argv: Sequence[str] | None = None) -> None:
    """Writes the pages of queues."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("queues", nargs="*", help="names of files in studies/queues; all of them by default")
    for name in parser.parse_args(argv).queues or names():
        write_page(name)


if __name__ == "__main__":
    main()
