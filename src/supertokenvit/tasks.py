"""What a model is to answer: each task has its loss, its figures and its score, training knows no other difference."""

import math
from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from .errors import UserError


class FiguresError(UserError):
    """Answers that cannot be measured."""


@dataclass
class ClassFigures:
    """Figures of one class; None where they are not known."""

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
    loss: float
    """Mean loss of the labels."""
    top1: float | None = None
    """Classification: fraction of the images whose likeliest class is right."""
    top5: float | None = None
    """Classification with more than five classes: fraction of the images whose class is among the five likeliest."""
    mean_average_precision: float | None = None
    """Multi-label: mean over the labels of the area under the curve of precision over recall."""
    f1: float | None = None
    """Mean over the classes with images of the harmonic mean of precision and recall; of labels, at a probability of
    one half."""
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


@dataclass
class Task(ABC):
    """One kind of question to a model.

    Args:
        class_weights: Weight of each class in the loss [K], or None.
        smoothing: Label smoothing, where an image has one label.
    """

    class_weights: Tensor | None = None
    smoothing: float = 0.0

    name: ClassVar[str]
    """As a model card names the task."""
    score: ClassVar[str]
    """The field of Evaluation by which models are chosen; higher is better."""
    score_name: ClassVar[str]
    """The score as people call it."""
    short_name: ClassVar[str]
    """The score as people write it in short."""
    hits_name: ClassVar[str]
    """What `hits` counts, as people call it."""

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sums the loss over logits [N, K] and their targets, so that parts of a batch add up."""

    @abstractmethod
    def weight(self, targets: Tensor) -> float:
        """Returns what the summed loss is to be divided by for torch's mean."""

    @abstractmethod
    def hits(self, logits: Tensor, targets: Tensor) -> float:
        """Counts the images that are answered rightly, to be watched during training."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Turns logits [N, K] into probabilities [N, K]."""

    @abstractmethod
    def figures(self, logits: Tensor, targets: Tensor, classes: list[str]) -> Evaluation:
        """Measures logits [N, K] against hard targets.

        Raises:
            FiguresError: There is no image, or an answer is no number.
        """

    def temperature(self, logits: Tensor, targets: Tensor) -> float:
        """Returns by what logits are to be divided so that their probabilities fit hard targets; 1 changes nothing."""
        return 1.0

    def score_of(self, evaluation: Evaluation) -> float:
        """Returns the score by which models are chosen."""
        return getattr(evaluation, self.score)


class Classification(Task):
    """One label for each image: targets are class numbers [N], or in training mixtures of classes [N, K]."""

    name, score, score_name, hits_name = "classification", "top1", "accuracy", "accuracy"
    short_name = "accuracy"

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sums the cross-entropy."""
        return F.cross_entropy(
            logits, targets, weight=self.class_weights, label_smoothing=self.smoothing, reduction="sum"
        )

    def weight(self, targets: Tensor) -> float:
        """Counts the images, each by the weight of its class."""
        if self.class_weights is None or targets.ndim == 2:
            return len(targets)
        return self.class_weights[targets].sum().item()

    def hits(self, logits: Tensor, targets: Tensor) -> float:
        """Counts the images whose likeliest class is right; of a mixture, its larger part."""
        return (logits.argmax(1) == (targets.argmax(1) if targets.ndim == 2 else targets)).sum().item()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Softmax."""
        return logits.softmax(-1)

    def temperature(self, logits: Tensor, targets: Tensor) -> float:
        """Finds the temperature of the smallest cross-entropy (Guo et al., arXiv 1706.04599, section 4.2).

        A few images that are all answered rightly would ask for a temperature of 0, so that of 1 is taken for likelier
        beforehand: its logarithm has a normal distribution of standard deviation 1.
        """
        from scipy.optimize import minimize_scalar

        def cost(log_temperature: float) -> float:
            scaled = logits.double() / math.exp(log_temperature)
            return F.cross_entropy(scaled, targets, reduction="sum").item() + log_temperature**2 / 2

        return math.exp(minimize_scalar(cost, bounds=(-3, 3), method="bounded").x)

    def figures(self, logits: Tensor, targets: Tensor, classes: list[str]) -> Evaluation:
        """Accuracy, calibration and confusion of logits [N, K] for class numbers [N]."""
        from torchmetrics.functional.classification import multiclass_calibration_error

        check(logits)
        K, answered = len(classes), logits.argmax(1)
        pairs, counts = np.unique((targets * K + answered).numpy(), return_counts=True)
        confusion = [(int(pair) // K, int(pair) % K, int(n)) for pair, n in zip(pairs, counts, strict=True)]
        hits = torch.bincount(targets[answered == targets], minlength=K)
        found = class_figures(hits, targets.bincount(minlength=K), answered.bincount(minlength=K))
        per_class = dict(zip(classes, found, strict=True))
        top5 = logits.topk(min(5, K)).indices.eq(targets[:, None]).any(1).double().mean().item() if K > 5 else None
        return Evaluation(
            images=len(targets),
            loss=F.cross_entropy(logits.double(), targets).item(),
            top1=hits.sum().item() / len(targets),
            top5=top5,
            f1=mean_of([figures.f1 for figures in found]),
            calibration_error=multiclass_calibration_error(logits.softmax(1), targets, num_classes=K, n_bins=15).item(),
            classes=classes,
            per_class=per_class,
            confusion=confusion,
            missing_classes=[name for name, figures in per_class.items() if not figures.images],
        )


class MultiLabel(Task):
    """Any number of labels for each image: targets are 0 or 1 for each label [N, K]."""

    name, score = "multi-label", "mean_average_precision"
    score_name, short_name, hits_name = "mean average precision", "mAP", "right labels"

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sums the binary cross-entropy of each label; class weights count the labels that are there."""
        w = self.class_weights
        return F.binary_cross_entropy_with_logits(logits, targets.float(), pos_weight=w, reduction="sum")

    def weight(self, targets: Tensor) -> float:
        """Counts the labels of all images."""
        return targets.numel()

    def hits(self, logits: Tensor, targets: Tensor) -> float:
        """Sums over the images the fraction of labels that are right."""
        return ((logits > 0) == (targets > 0.5)).float().mean(1).sum().item()

    def probabilities(self, logits: Tensor) -> Tensor:
        """Sigmoid of each label."""
        return logits.sigmoid()

    def figures(self, logits: Tensor, targets: Tensor, classes: list[str]) -> Evaluation:
        """Average precision and F1 of logits [N, K] for labels [N, K] of 0 or 1."""
        from sklearn.metrics import average_precision_score

        check(logits)
        labels, answered = targets > 0.5, logits > 0
        found = class_figures((labels & answered).sum(0), labels.sum(0), answered.sum(0))
        for k, figures in enumerate(found):
            if figures.images:  # by the logits: of probabilities in float32, all large ones are 1
                figures.average_precision = float(average_precision_score(labels[:, k], logits[:, k].double()))
        per_class = dict(zip(classes, found, strict=True))
        return Evaluation(
            images=len(targets),
            loss=F.binary_cross_entropy_with_logits(logits.double(), targets.double()).item(),
            mean_average_precision=mean_of([figures.average_precision for figures in found]),
            f1=mean_of([figures.f1 for figures in found]),
            classes=classes,
            per_class=per_class,
            missing_classes=[name for name, figures in per_class.items() if not figures.images],
        )


def check(logits: Tensor) -> None:
    """Refuses answers that are none.

    Raises:
        FiguresError: There are none, or some are no numbers.
    """
    odd = int((~torch.isfinite(logits).all(1)).sum())
    if odd or not len(logits):
        raise FiguresError(f"{odd} of {len(logits)} answers are no numbers" if odd else "no image was answered")


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


TASKS: dict[str, type[Task]] = {task.name: task for task in (Classification, MultiLabel)}


def task_of(targets: Any) -> type[Task]:
    """Returns the task that labels ask for: class numbers [N], or 0 or 1 for each label [N, K]."""
    return MultiLabel if targets.ndim == 2 else Classification
