"""Every answer of an evaluation of labels: as a table."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.decode import printable
from ..run_folder import put_in_place


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
