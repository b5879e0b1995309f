"""What a run leaves to look at: metrics.csv, curves and confusion matrix."""

import csv
from pathlib import Path

from matplotlib.figure import Figure

from ..evaluation_report import draw_confusion
from ..run_folder import RunFolder, write_json
from ..tasks import Evaluation, Task


def append_metrics(path: Path, row: dict[str, float]) -> None:
    """Adds a row to metrics.csv, with the header if the file is new.

    Args:
        path: Of metrics.csv.
        row: Figures by name; the column of the score is called after the task's score ("val_top1").
    """
    new = not path.exists()
    with open(path, "a", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(row))
        if new:
            writer.writeheader()
        writer.writerow({name: f"{value:.6g}" for name, value in row.items()} | {"step": int(row["step"])})


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv; none if there is no file."""
    if not path.exists():
        return []
    with open(path, newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if None not in row.values()]  # a full disk may have cut the last
        return [{name: float(value) for name, value in row.items()} for row in rows]


def cut_metrics(path: Path, step: int) -> None:
    """Drops rows behind a step, which a resumed run will write again."""
    rows = [row for row in read_metrics(path) if row["step"] <= step]
    kept = path.with_name(f".{path.name}")
    kept.unlink(missing_ok=True)
    for row in rows:
        append_metrics(kept, row)
    if rows:
        kept.replace(path)
    else:
        path.unlink(missing_ok=True)


def write_report(folder: RunFolder, results: dict[str, Evaluation], task: Task) -> None:
    """Writes what a finished run leaves to look at: evaluation.json, confusion.png and curves.png.

    Args:
        folder: The run folder, with metrics.csv in it.
        results: Figures of "validation", and of "test" if there is one.
        task: What the model learned to answer.
    """
    write_json(folder.evaluation, {split: result.as_dict() for split, result in results.items()})
    if results["validation"].confusion:
        draw_confusion(folder.confusion, results["validation"])
    draw_curves(folder.curves, read_metrics(folder.metrics), task)


def draw_curves(path: Path, rows: list[dict[str, float]], task: Task) -> None:
    """Draws loss and score over the epochs, and the learning rate, as a PNG.

    Args:
        path: Of the picture.
        rows: From read_metrics.
        task: Names the score; what is counted in training is drawn beside it only if it is the same figure.
    """
    epochs = [row["epoch"] for row in rows]
    same = task.hits_name == task.score_name
    kept = {name: None for row in rows for name in row if name.startswith("val_") and name != "val_loss"}
    scores = (*(["train_accuracy"] if same else []), *kept)  # older versions called every score val_top1
    panels = {
        "Loss": tuple(name for name in ("train_loss", "val_loss") if all(name in row for row in rows)),
        f"{task.score_name[0].upper()}{task.score_name[1:]} (%)": scores,
        "Learning rate": ("lr",),
    }
    figure = Figure(figsize=(13, 3.8), layout="constrained")
    for axis, (title, names) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        scale = 100 if title.endswith("(%)") else 1
        for name in names:
            label = "training (augmented)" if name.startswith("train") else "validation"
            axis.plot(epochs, [scale * row[name] for row in rows], marker="o", markersize=3, label=label)
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend()
    figure.savefig(path, dpi=110)
