"""What is measured of a model's answers."""

from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from torch import Tensor

from ..errors import UserError


class FiguresError(UserError):
    """Answers that cannot be measured."""


@dataclass
class ClassFigures:
    """Figures of one class, counted in images, or in pixels of masks; None where they are not known."""

    images: int
    """Images of the class."""
    precision: float | None = None
    """Fraction of the images for which the class was answered that are of it; None if it was never answered."""
    recall: float | None = None
    """Fraction of its images for which it was answered; None without images."""
    f1: float | None = None
    """Harmonic mean of precision and recall, 0 if no answer is right; None without images."""
    average_precision: float | None = None
    """Multi-label: area under the curve of precision over recall; None without images."""


@dataclass
class Evaluation:
    """Figures of a model over labelled images; fractions are from 0 to 1, and what a task does not know is None."""

    images: int
    """Images that were measured."""
    loss: float | None
    """Mean loss of the labels; detection has none."""
    top1: float | None = None
    """Classification: fraction of the images whose likeliest class is right."""
    top5: float | None = None
    """Classification with more than five classes: fraction of the images whose class is among the five likeliest."""
    mean_average_precision: float | None = None
    """Multi-label: mean over the labels of the area under the curve of precision over recall."""
    f1: float | None = None
    """Mean over the classes with images of the harmonic mean of precision and recall; of labels, at a probability of
    one half."""
    threshold: float | None = None
    """Detection: score from which on answers count for precision and recall."""
    calibration_error: float | None = None
    """Classification: expected calibration error over 15 bins."""
    classes: list[str] = field(default_factory=list)
    """Names in the order of the logits."""
    per_class: dict[str, ClassFigures] = field(default_factory=dict)
    """Figures of each class."""
    confusion: list[tuple[int, int, int]] = field(default_factory=list)
    """Classification: true class, predicted class and number of images, for each pair that occurs (see
    confusion_matrix)."""
    missing_classes: list[str] = field(default_factory=list)
    """Classes without images."""
    left_out: list[str] = field(default_factory=list)
    """Images that could not be decoded, with the reasons."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures for JSON."""
        return asdict(self)

    def confusion_matrix(self) -> np.ndarray:
        """Returns the counts of images by true class (rows) and predicted class (columns), int64 [K, K]."""
        matrix = np.zeros((len(self.classes), len(self.classes)), dtype=np.int64)
        for true, predicted, count in self.confusion:
            matrix[true, predicted] = count
        return matrix


def class_figures(hits: Tensor, images: Tensor, answered: Tensor) -> list[ClassFigures]:
    """Returns the figures of each class from its numbers of right answers, of images and of answers, each [K]."""
    found = []
    for right, there, said in zip(hits.tolist(), images.tolist(), answered.tolist(), strict=True):
        precision, recall = right / said if said else None, right / there if there else None
        found.append(ClassFigures(there, precision, recall, 2 * right / (there + said) if there else None))
    return found


def mean_of(values: list[float | None]) -> float | None:
    """Returns the mean of the values that are known; None if none is."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None
