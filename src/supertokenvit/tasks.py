"""What a model is to answer: each task has its loss, its figures and its score, training knows no other difference."""

from abc import ABC, abstractmethod
from dataclasses import asdict, dataclass, field
from typing import Any, ClassVar

import torch.nn.functional as F
from torch import Tensor


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
    """Multi-label: mean over the labels of the harmonic mean of precision and recall, at a probability of one half."""
    calibration_error: float | None = None
    """Classification: expected calibration error over 15 bins."""
    classes: list[str] = field(default_factory=list)
    """Names in the order of the logits."""
    per_class: dict[str, float | None] = field(default_factory=dict)
    """The score of each class alone; None for a class without images."""
    confusion: list[list[int]] = field(default_factory=list)
    """Classification: counts of images by true class (rows) and predicted class (columns)."""
    missing_classes: list[str] = field(default_factory=list)
    """Classes without images."""
    left_out: list[str] = field(default_factory=list)
    """Images that could not be decoded, with the reasons."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures for JSON."""
        return asdict(self)


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
        """Measures logits [N, K] against hard targets."""

    def score_of(self, evaluation: Evaluation) -> float:
        """Returns the score by which models are chosen."""
        return getattr(evaluation, self.score)


class Classification(Task):
    """One label for each image: targets are class numbers [N], or in training mixtures of classes [N, K]."""

    name, score, score_name, hits_name = "classification", "top1", "accuracy", "accuracy"

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

    def figures(self, logits: Tensor, targets: Tensor, classes: list[str]) -> Evaluation:
        """Accuracy, calibration and confusion of logits [N, K] for class numbers [N]."""
        from torchmetrics.functional.classification import multiclass_calibration_error, multiclass_confusion_matrix

        K = len(classes)
        confusion = multiclass_confusion_matrix(logits, targets, num_classes=K)
        count = confusion.sum(1)
        per_class = {name: (confusion[i, i] / count[i]).item() if count[i] else None for i, name in enumerate(classes)}
        top5 = logits.topk(min(5, K)).indices.eq(targets[:, None]).any(1).float().mean().item() if K > 5 else None
        return Evaluation(
            images=len(targets),
            loss=F.cross_entropy(logits, targets).item(),
            top1=(confusion.diag().sum() / len(targets)).item(),
            top5=top5,
            calibration_error=multiclass_calibration_error(logits.softmax(1), targets, num_classes=K, n_bins=15).item(),
            classes=classes,
            per_class=per_class,
            confusion=confusion.tolist(),
            missing_classes=[name for name, score in per_class.items() if score is None],
        )


class MultiLabel(Task):
    """Any number of labels for each image: targets are 0 or 1 for each label [N, K]."""

    name, score = "multi-label", "mean_average_precision"
    score_name, hits_name = "mean average precision", "right labels"

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
        from torchmetrics.functional.classification import multilabel_average_precision, multilabel_f1_score

        K, labels = len(classes), targets.long()
        precision = multilabel_average_precision(logits, labels, num_labels=K, average="none")
        known = labels.sum(0) > 0
        return Evaluation(
            images=len(targets),
            loss=F.binary_cross_entropy_with_logits(logits, targets.float()).item(),
            mean_average_precision=precision[known].mean().item(),
            f1=multilabel_f1_score(logits.sigmoid(), labels, num_labels=K).item(),
            classes=classes,
            per_class={name: precision[i].item() if known[i] else None for i, name in enumerate(classes)},
            missing_classes=[name for i, name in enumerate(classes) if not known[i]],
        )


TASKS: dict[str, type[Task]] = {task.name: task for task in (Classification, MultiLabel)}


def task_of(targets: Any) -> type[Task]:
    """Returns the task that labels ask for: class numbers [N], or 0 or 1 for each label [N, K]."""
    return MultiLabel if targets.ndim == 2 else Classification
