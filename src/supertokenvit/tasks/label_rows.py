"""Every answer of an evaluation of labels: as a table, and the worst as a picture."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.decode import printable
from ..data.sources import Source
from ..run_folder import put_in_place
from .drawing import Panel, draw_panels, panel
from .task import Why

WORST = 24  # images in the picture of the worst answers
THUMBNAIL = 160  # pixels of a side there


@dataclass
class Row:
    """One answer of an evaluation."""

    index: int
    """Place of the image in the source."""
    file: str
    """Path of the image."""
    true: list[str]
    """Its label or labels."""
    predicted: list[str]
    """The likeliest class, or the labels with a probability of one half or more."""
    probability: float
    """Of the likeliest class, or of the least sure of the answers for the labels."""
    loss: float
    """Of this image."""


def rows_of(answers: Any, predictor: Any) -> Iterator[Row]:
    """Yields every answer with its label, in the order of the images."""
    probabilities = predictor.task.probabilities(answers.logits)
    losses = losses_of(answers.logits, answers.targets)
    for place, (p, target) in enumerate(zip(probabilities, answers.targets, strict=True)):
        index = int(answers.indices[place])
        if target.ndim:
            true, said = (target > 0.5).nonzero().flatten().tolist(), (p >= 0.5).nonzero().flatten().tolist()
            sure = torch.where(p >= 0.5, p, 1 - p).min()
        else:
            true, said, sure = [int(target)], [int(p.argmax())], p.max()
        labels, named = ([predictor.classes[k] for k in numbers] for numbers in (true, said))
        yield Row(index, printable(answers.source.name(index)), labels, named, float(sure), float(losses[place]))


def losses_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the loss of each image [N]."""
    if targets.ndim == 2:
        return F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none").mean(1)
    return F.cross_entropy(logits, targets, reduction="none")


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes answers as CSV: file, true, predicted, probability, loss; | separates several labels."""
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "true", "predicted", "probability", "loss"])
        for row in rows:
            figures = f"{row.probability:.6g}", f"{row.loss:.6g}"
            writer.writerow([row.file, "|".join(row.true), "|".join(row.predicted), *figures])
    put_in_place(temporary, path)


def draw_worst(path: Path, rows: Sequence[Row], source: Source, enough: int, why: Why | None = None) -> bool:
    """Draws the wrongly answered images with the largest losses, and says whether there are any.

    Args:
        path: Of the picture. An older one is removed if no answer is wrong.
        rows: Every answer.
        source: The images.
        enough: Pixels of the shorter side that are enough to explain an answer.
        why: Paints what spoke for an answer, to stand beside each image.
    """
    wrong = sorted((row for row in rows if row.true != row.predicted), key=lambda row: -row.loss)[:WORST]
    if not wrong:
        path.unlink(missing_ok=True)
        return False
    panels: list[Panel] = []
    for row in wrong:
        image = source.image(row.index, enough=max(THUMBNAIL, enough if why is not None else 0))
        true, said = (shortened("+".join(labels) or "none") for labels in (row.true, row.predicted))
        panels.append(panel(image, f"{true}\nfor {said} {100 * row.probability:.0f} %"))
        if why is not None and row.predicted:
            panels.append(panel(why(image, row.predicted[0]), f"why\n{shortened(row.predicted[0])}"))
        elif why is not None:
            panels.append(panel(image, "no label\nto explain"))
    columns = min(6, len(panels))
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    draw_panels(path, lines, "Largest losses of wrong answers: true class, for what it was taken, how surely")
    return True


def shortened(text: str, length: int = 22) -> str:
    """Returns a text of at most that many letters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."
