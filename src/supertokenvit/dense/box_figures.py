"""Figures of found boxes: average precision as COCO defines it, and the score from which on boxes are shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.boxes import Boxes
from ..tasks import ClassFigures, Evaluation
from .detector import Found

# COCO's own numbers: those of torchmetrics are rounded to float32, which moves some points of a curve
OVERLAPS = np.linspace(0.5, 0.95, 10).tolist()
RECALLS = np.linspace(0, 1, 101).tolist()
THRESHOLDS = np.linspace(0.05, 0.95, 91)
USUAL = 0.3  # the threshold if nothing can be measured


@dataclass
class ClassBoxes(ClassFigures):
    """Figures of the boxes of one class: precision and recall are those of answers above the threshold."""

    boxes: int = 0
    """Boxes of the class; `images` are those with at least one."""
    average_precision_50: float | None = None
    """Area under the curve of precision over recall at an overlap (intersection over union) of 0.5;
    `average_precision` is the mean over overlaps of 0.5 to 0.95."""


@dataclass
class BoxFigures(Evaluation):
    """Figures of a detector over images with boxes; `mean_average_precision` is COCO's mAP."""

    average_precision_50: float = 0.0
    """AP50: mean over classes at an overlap of 0.5."""
    average_precision_75: float = 0.0
    """AP75: at 0.75."""


def box_figures(
    found: Sequence[Found], targets: Sequence[Boxes], classes: list[str], threshold: float | None = None
) -> BoxFigures:
    """Measures what was found on images.

    Args:
        found: On each image.
        targets: The boxes of each image, in the same pixels.
        classes: Names in the order of the class numbers.
        threshold: Score from which on answers count for precision and recall; the one with the best mean F1 if None.
    """
    from torchmetrics.detection import MeanAveragePrecision

    # answers of all processes are here already, and only the main one measures: a Metric would wait for the others
    metric = MeanAveragePrecision(
        iou_thresholds=OVERLAPS,
        rec_thresholds=RECALLS,
        extended_summary=True,
        backend="pycocotools",
        sync_on_compute=False,
    )
    metric.update([_answer(f) for f in found], [_truth(t) for t in targets])
    result = metric.compute()
    seen = [int(k) for k in torch.atleast_1d(result["classes"])]  # of truth or answers
    # precision and score over [overlap, recall, class, area, number of answers]; -1 where a class has no box
    precision, score = result["precision"][..., 0, -1].numpy(), result["scores"][..., 0, -1].numpy()
    labels = [label for target in targets for label in target.labels[~target.crowd]]
    counts = np.bincount(np.array(labels, dtype=np.int64), minlength=len(classes))
    known = [(n, k) for n, k in enumerate(seen) if counts[k]]
    points = {k: Curve(precision[0, :, n], score[0, :, n]) for n, k in known}
    threshold = best_threshold(list(points.values())) if threshold is None else threshold
    images = sum((np.isin(range(len(classes)), t.labels[~t.crowd]) for t in targets), np.zeros(len(classes), dtype=int))
    each = [ClassBoxes(int(shown), boxes=int(count)) for shown, count in zip(images, counts, strict=True)]
    for n, k in known:
        figures = each[k]
        figures.average_precision = float(precision[:, :, n].mean())
        figures.average_precision_50 = float(precision[0, :, n].mean())
        figures.precision, figures.recall = points[k].at(threshold)
    total, at_50, at_75 = (max(0.0, result[name].item()) for name in ("map", "map_50", "map_75"))
    return BoxFigures(
        images=len(found),
        loss=None,
        mean_average_precision=total,
        average_precision_50=at_50,
        average_precision_75=at_75,
        threshold=threshold,
        classes=classes,
        per_class=dict(zip(classes, each, strict=True)),
        missing_classes=[name for name, figures in zip(classes, each, strict=True) if not figures.boxes],
    )


class Curve:
    """Precision over recall of one class.

    Args:
        precision: At each recall of 0, 0.01, ... 1; 0 where no answer reaches that.
        score: The least score of the answers that reach it.
    """

    def __init__(self, precision: np.ndarray, score: np.ndarray) -> None:
        self.precision, self.score = precision, score
        self.recall = np.linspace(0, 1, len(precision))

    def at(self, threshold: float) -> tuple[float, float]:
        """Precision and recall of the answers with at least that score."""
        reached = np.flatnonzero((self.score >= threshold) & (self.precision > 0))
        return (float(self.precision[reached[-1]]), float(self.recall[reached[-1]])) if len(reached) else (0.0, 0.0)


def best_threshold(curves: Sequence[Curve]) -> float:
    """Returns the score with the best F1, mean over the classes."""

    def f1(threshold: float) -> float:
        pairs = [curve.at(threshold) for curve in curves]
        return float(np.mean([2 * p * r / (p + r) if p + r else 0.0 for p, r in pairs]))

    scores = [f1(threshold) for threshold in THRESHOLDS] if curves else [0.0]
    return round(float(THRESHOLDS[int(np.argmax(scores))]), 2) if max(scores) else USUAL


def _answer(found: Found) -> dict[str, Tensor]:
    return {"boxes": found.boxes.float(), "scores": found.scores.float(), "labels": found.labels}


def _truth(target: Boxes) -> dict[str, Any]:
    return {
        "boxes": torch.as_tensor(target.boxes),
        "labels": torch.as_tensor(target.labels),
        "iscrowd": torch.as_tensor(target.crowd).long(),
    }
