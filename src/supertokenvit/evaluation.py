"""Exact accuracy, calibration, confusion and per-class figures of a model on labelled images."""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.progress import track
from torch import Tensor
from torchmetrics.functional.classification import (
    multiclass_calibration_error,
    multiclass_confusion_matrix,
    multilabel_average_precision,
    multilabel_f1_score,
)

from .data.decode import BadImage
from .data.formats import ELSEWHERE, open_parts
from .data.loading import eval_batches
from .data.sources import (
    DataError,
    Source,
    Splits,
    Subset,
    fingerprint,
    open_splits,
    targets_by_name,
    unlabelled_images,
)
from .errors import UserError
from .prediction import Predictor


class EvaluationError(UserError):
    """Data that a model cannot be measured on."""


@dataclass
class Evaluation:
    """Figures over `images` images; shares from 0 to 1. Multi-label: top1 is the mean average precision."""

    images: int
    loss: float
    top1: float
    top5: float | None = None
    calibration_error: float | None = None
    classes: list[str] = field(default_factory=list)
    per_class: dict[str, float | None] = field(default_factory=dict)
    confusion: list[list[int]] = field(default_factory=list)
    missing_classes: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    f1: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def refusal(damaged: str) -> str:
    """What to do about a damaged image."""
    return f"{damaged}; mend or remove it, or leave damaged images out with --skip_damaged true"


def measure(logits: Tensor, targets: Tensor, classes: list[str]) -> Evaluation:
    """Figures from logits [N, K] and targets [N] (class numbers) or [N, K] (0 or 1 for each label)."""
    if targets.ndim == 2:
        return _measure_multi_label(logits, targets, classes)
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
        missing_classes=[name for name, share in per_class.items() if share is None],
    )


def _measure_multi_label(logits: Tensor, targets: Tensor, classes: list[str]) -> Evaluation:
    K, labels = len(classes), targets.long()
    precision = multilabel_average_precision(logits, labels, num_labels=K, average="none")
    known = labels.sum(0) > 0
    return Evaluation(
        images=len(targets),
        loss=F.binary_cross_entropy_with_logits(logits, targets.float()).item(),
        top1=precision[known].mean().item(),
        classes=classes,
        per_class={name: precision[i].item() if known[i] else None for i, name in enumerate(classes)},
        missing_classes=[name for i, name in enumerate(classes) if not known[i]],
        f1=multilabel_f1_score(logits.sigmoid(), labels, num_labels=K).item(),
    )


def open_part(data: str | None, split: str | None, about: dict[str, Any]) -> tuple[Source, str]:
    """The labelled images to measure a trained model on, and the name of the part that they are.

    Args:
        data: As in training, or None for what the model was trained on.
        split: Which part; by default test, else the validation images, else all that is there.
        about: What the training left of itself (TrainedModel.about).

    Raises:
        DataError: It cannot be read.
        EvaluationError: There is no such part, or the data has changed, so that its validation images are not known.
    """
    spec = data or about.get("data")
    if spec is None:
        raise EvaluationError("--data is missing: the model does not say what it was trained on")
    parts = {name: part for name, part in open_parts(spec).items() if not unlabelled_images(part)}
    parts.pop(ELSEWHERE, None)
    split = split or next((name for name in ("test", "val") if name in parts), None)
    if split in parts and (split != "train" or "val" in parts):
        return parts[split], split
    if split == "test" or "train" not in parts:
        raise EvaluationError(f"{spec}: there is no {split} part")
    splits = _as_trained(spec, about)
    if splits is not None and splits.val is not None:
        return (splits.train, "train") if split == "train" else (splits.val, "val")
    if data is None:
        raise EvaluationError(
            f"{spec}: no longer the images that the model was trained on (files or labels differ), so it is not known "
            "which were for validation; name others with --data"
        )
    if split == "val":
        raise EvaluationError(f"{spec}: there is no val part; without --split all images are measured")
    return parts["train"], "all"


def _as_trained(spec: str, about: dict[str, Any]) -> Splits | None:
    """The parts as a model's training had them, if it was trained on this data."""
    try:
        splits = open_splits(spec, val_fraction=about.get("val_fraction", 0.1), seed=about.get("seed", 0))
    except DataError:  # such as one class only, which can be measured, but not trained on
        return None
    return splits if fingerprint(splits.train) == about.get("data_fingerprint") else None


def known_targets(source: Source, classes: list[str]) -> np.ndarray:
    """The source's targets as numbers of the model's classes, matched by name.

    Raises:
        EvaluationError: The data has a class that the model does not know.
    """
    unknown = [name for name in source.classes if name not in classes]
    if unknown:
        raise EvaluationError(
            f"the data has classes that the model does not know: {', '.join(unknown[:5])}; "
            f"it knows {', '.join(classes[:10])}"
        )
    return targets_by_name(source, classes)


def evaluate(
    predictor: Predictor,
    source: Source,
    *,
    batches: Iterable | None = None,
    batch_size: int = 64,
    workers: int = 0,
    skip_damaged: bool = False,
    progress: bool = True,
    part: Subset | None = None,
    gather: Callable[[Any], list[Any]] = lambda answers: [answers],
) -> Evaluation:
    """Runs the model over a source; each image counts once.

    Args:
        predictor: Of the trained model.
        source: Labelled images; classes are matched by name.
        batches: From loading.eval_batches, when they are at hand already.
        batch_size: Images at once.
        workers: Processes that decode.
        skip_damaged: Leave damaged images out, named in the result, instead of stopping.
        progress: Show a bar.
        part: What of the source this process looks at, if several share it.
        gather: Takes this process's answers and returns those of all.

    Raises:
        EvaluationError: A damaged image (unless left out), no image or no label at all, a class that the model does not
            know, or several labels for each image where the model gives one, or the other way round.
    """
    if source.multi_label != predictor.trained.multi_label:
        of_data, of_model = ("several labels", "one") if source.multi_label else ("one label", "several")
        raise EvaluationError(f"the data has {of_data} for each image, and the model was trained for {of_model}")
    if source.multi_label and not source.targets.any():
        raise EvaluationError("no image of the data has a label, so nothing can be measured")
    classes = predictor.trained.classes
    targets = torch.as_tensor(known_targets(source, classes))
    if batches is None:
        batches = eval_batches(part or source, predictor.preprocess, batch_size, workers)
    if progress:
        batches = track(batches, "Evaluating", total=-(-len(part or source) // batch_size), transient=True)
    logits: list[Tensor] = []
    kept: list[int] = []
    damaged: list[BadImage] = []
    for images, indices, bad in batches:
        damaged += bad
        if bad and not skip_damaged:
            raise EvaluationError(refusal(str(bad[0])))
        if indices:
            logits.append(predictor.logits(images))
            kept += indices if part is None else part.indices[indices].tolist()
    mine = torch.cat(logits) if logits else torch.empty(0, len(classes))
    answers = gather((mine, kept, [str(error) for error in damaged]))
    whole = torch.cat([answer for answer, _, _ in answers])
    # in order, whoever answered; what two processes looked at counts once
    order, first = np.unique([i for _, indices, _ in answers for i in indices], return_index=True)
    if not len(order):
        raise EvaluationError("no image could be decoded")
    result = measure(whole[first], targets[order], classes)
    result.left_out = list(dict.fromkeys(line for _, _, lines in answers for line in lines))
    return result
