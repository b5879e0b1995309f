"""What a run leaves to look at: metrics.csv, curves, confusion matrix and a sample of the augmented batch."""

import csv
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from torch import Tensor

from ..evaluation import Evaluation
from ..run_folder import write_json

COLUMNS = (
    "step", "epoch", "lr", "train_loss", "train_accuracy", "val_loss", "val_top1", "images_per_second", "data_wait",
    "minutes",
)  # fmt: skip


def append_metrics(path: Path, row: dict[str, float]) -> None:
    """Adds a row to metrics.csv, with the header if the file is new."""
    new = not path.exists()
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        if new:
            writer.writeheader()
        writer.writerow({name: f"{row[name]:.6g}" for name in COLUMNS} | {"step": int(row["step"])})


def read_metrics(path: Path) -> list[dict[str, float]]:
    """The rows of metrics.csv; none if there is no file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
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


def write_report(folder: Path, parts: dict[str, Evaluation], measure: str) -> None:
    """What a finished run leaves to look at: evaluation.json, confusion.png and curves.png.

    Args:
        folder: The run folder, with metrics.csv in it.
        parts: Figures of "validation", and of "test" if there is one.
        measure: What top1 is called.
    """
    write_json(folder / "evaluation.json", {name: part.as_dict() for name, part in parts.items()})
    if parts["validation"].confusion:
        draw_confusion(folder / "confusion.png", parts["validation"].confusion, parts["validation"].classes)
    draw_curves(folder / "curves.png", read_metrics(folder / "metrics.csv"), measure)


def draw_curves(path: Path, rows: list[dict[str, float]], measure: str = "accuracy") -> None:
    """Loss and accuracy over the epochs, and the learning rate, as a PNG."""
    epochs = [row["epoch"] for row in rows]
    figure, axes = plt.subplots(1, 3, figsize=(13, 3.8), layout="constrained")
    for axis, title, names in zip(
        axes,
        ("Loss", f"{measure[0].upper()}{measure[1:]} (%)", "Learning rate"),
        (("train_loss", "val_loss"), (*(["train_accuracy"] if measure == "accuracy" else []), "val_top1"), ("lr",)),
        strict=True,
    ):
        scale = 100 if title.endswith("(%)") else 1
        for name in names:
            label = "training (augmented)" if name.startswith("train") else "validation"
            axis.plot(epochs, [scale * row[name] for row in rows], marker="o", markersize=3, label=label)
        axis.set(title=title, xlabel="epoch")
        axis.grid(alpha=0.3)
        if len(names) > 1:
            axis.legend()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_confusion(path: Path, confusion: Sequence[Sequence[int]], classes: list[str]) -> None:
    """Rows are true classes, columns predicted ones; shares of each row, with counts where they are readable."""
    counts = np.array(confusion)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    K = len(classes)
    side = min(16.0, max(4.5, 0.45 * K + 2))
    figure, axis = plt.subplots(figsize=(side + 1, side), layout="constrained")
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if K <= 50:
        axis.set_xticks(
            range(K), classes, rotation=45 if max(map(len, classes)) > 2 else 0, ha="right" if K > 2 else "center"
        )
        axis.set_yticks(range(K), classes)
    if K <= 25:
        for i, j in np.argwhere(counts > 0):
            color = "white" if shares[i, j] > 0.5 else "black"
            axis.text(j, i, str(counts[i, j]), ha="center", va="center", color=color, fontsize=8)
    axis.set(xlabel="predicted", ylabel="true", title="Confusion (counts; colour: share of the true class)")
    figure.colorbar(image, shrink=0.8)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def draw_samples(path: Path, images: Tensor, targets: Tensor, classes: list[str]) -> None:
    """The first images [N, 3, S, S] of an augmented batch with their labels, of targets [N] or [N, K]."""
    numbers = [target.nonzero().flatten().tolist() if target.ndim else [int(target)] for target in targets]
    titles = ["+".join(classes[i] for i in several) for several in numbers]
    n = min(len(images), 24)
    rows = -(-n // 8)
    figure, axes = plt.subplots(rows, 8, figsize=(13, 1.95 * rows), layout="constrained", squeeze=False)
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images[:n], titles[:n], strict=False):
        low, high = image.amin(), image.amax()
        axis.imshow(((image - low) / (high - low).clamp(min=1e-6)).permute(1, 2, 0).numpy())
        axis.set_title(title, fontsize=9)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def write_events(folder: Path, row: dict[str, float]) -> None:
    """TensorBoard events of an evaluation."""
    from torch.utils.tensorboard import SummaryWriter

    with SummaryWriter(str(folder)) as writer:
        for name, value in row.items():
            writer.add_scalar(name, value, int(row["step"]))
