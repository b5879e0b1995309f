"""Writes docs/ablations.md and its plot from runs.csv and queue.yaml.

python results/ablations/page.py
"""

import csv
import json
import statistics
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import yaml

HERE = Path(__file__).parent
DOCS = HERE.parent.parent / "docs"
INTRO = """
Which geometry and which parts? Each arm is the base model with one change, trained by the same short recipe on CIFAR-10
(JPEG copies of its training images, 45,000 to train on, 5,000 to choose by; the test images are not opened). Accuracies
are validation means over seeds with the lowest and the highest; a difference smaller than the larger of the two spreads
is a tie, and the cheaper wins a tie. MMACs are per image. Speed is images/s of the training itself on two cores, which
wavers with the machine: the MACs are exact, the speed is a hint. What such short trainings of small models say about
long ones of large models is a guess.
"""


def summary(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Figures of one arm over its seeds."""
    values = [100 * float(row["val_top1"]) for row in rows]
    return {
        "mean": statistics.mean(values),
        "low": min(values),
        "high": max(values),
        "seeds": len(values),
        "parameters": int(rows[0]["parameters"]),
        "mmacs": float(rows[0]["mmacs"]),
        "rate": statistics.median(float(row["images_per_second"]) for row in rows),
        "minutes": statistics.mean(float(row["minutes"]) for row in rows),
    }


def verdicts(arms: dict[str, dict[str, Any]]) -> dict[str, str]:
    """For each arm: best, tie (and the cheaper of those: chosen), worse."""
    if not arms:
        return {}
    top = max(arms, key=lambda name: arms[name]["mean"])

    def spread(name: str) -> float:
        return arms[name]["high"] - arms[name]["low"]

    equal = [n for n in arms if arms[top]["mean"] - arms[n]["mean"] < max(spread(n), spread(top)) or n == top]
    cheapest = min(equal, key=lambda name: arms[name]["mmacs"])
    words = {name: "tie" if name in equal else "worse" for name in arms}
    words[top] = "best"
    words[cheapest] = words[cheapest] + ", cheapest of these" if len(equal) > 1 else words[cheapest]
    return words


def results(queue: dict[str, Any], rows: list[dict[str, str]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Summaries by group and arm; an arm that is the same model as another group's has the same rows."""
    by_args: dict[str, list[dict[str, str]]] = {}
    for row in rows:
        by_args.setdefault(row["model_args"], []).append(row)
    found: dict[str, dict[str, dict[str, Any]]] = {}
    for group, about in queue["groups"].items():
        args = {arm: json.dumps(queue["base"] | changes, sort_keys=True) for arm, changes in about["arms"].items()}
        found[group] = {arm: summary(by_args[key]) for arm, key in args.items() if key in by_args}
    return found


def section(group: str, about: dict[str, Any], arms: dict[str, dict[str, Any]]) -> list[str]:
    """One group as Markdown."""
    lines = [f"## {group[0].upper()}{group[1:]}", "", " ".join(about["question"].split()), ""]
    lines += ["| arm | parameters | MMACs | accuracy | seeds | images/s | verdict |", "|---|---|---|---|---|---|---|"]
    said = verdicts(arms)
    for arm in about["arms"]:
        if arm not in arms:
            lines.append(f"| {arm} | | | not run yet | | | |")
            continue
        r = arms[arm]
        accuracy = f"{r['mean']:.2f} % ({r['low']:.2f} to {r['high']:.2f})"
        size = f"{r['parameters'] / 1e3:,.0f}k | {r['mmacs']:.1f}"
        lines.append(f"| {arm} | {size} | {accuracy} | {r['seeds']} | {r['rate']:.0f} | {said[arm]} |")
    return lines + [""]


def draw(path: Path, arms: dict[str, dict[str, Any]]) -> None:
    """Accuracy against training time, one point for each arm of the geometry."""
    figure, axis = plt.subplots(figsize=(8, 5), layout="constrained")
    for name, r in arms.items():
        axis.errorbar(
            r["minutes"], r["mean"], yerr=[[r["mean"] - r["low"]], [r["high"] - r["mean"]]], fmt="o", capsize=3
        )
        axis.annotate(name, (r["minutes"], r["mean"]), xytext=(6, 4), textcoords="offset points", fontsize=7)
    axis.set(xlabel="minutes of training (two cores)", ylabel="validation accuracy (%)")
    axis.margins(x=0.3)
    axis.grid(alpha=0.3)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def write_page() -> None:
    """docs/ablations.md and docs/figures/ablations.png."""
    queue = yaml.safe_load((HERE / "queue.yaml").read_text())
    rows: list[dict[str, str]] = []
    if (HERE / "runs.csv").exists():
        with open(HERE / "runs.csv", newline="") as file:
            rows = list(csv.DictReader(file))
    found = results(queue, rows)
    base = ", ".join(f"{key} {value}" for key, value in queue["base"].items())
    recipe = ", ".join(f"{key} {value}" for key, value in queue["recipe"].items() if key != "model")
    lines = [
        "# Ablations",
        "",
        "Written by `results/ablations/page.py` from `results/ablations/runs.csv`.",
        "",
        INTRO.strip(),
    ]
    lines += ["", f"Base: {base}.", "", f"Recipe: {recipe}.", ""]
    for group, about in queue["groups"].items():
        lines += section(group, about, found[group])
        if group == "geometry" and found[group]:
            draw(DOCS / "figures" / "ablations.png", found[group])
            lines += ["![accuracy against training time](figures/ablations.png)", ""]
    (DOCS / "ablations.md").write_text("\n".join(lines))


if __name__ == "__main__":
    write_page()
