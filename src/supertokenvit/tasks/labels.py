"""Questions to an image as a whole: which class it is of, or which labels it has."""

import math
from abc import abstractmethod
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
import torch.nn.functional as F
from timm.models import save_for_hf
from torch import Tensor, nn

from supertokenvit_runtime.answers import Prediction

from ..data.augmentation import BatchAugmentation, Crop
from ..data.loading import Keep, KeepSquare, TrainImages
from ..data.sources import Source, targets_by_name, unknown_classes
from ..preprocessing import Preprocess, together
from .drawing import draw_titled
from .figures import Evaluation, FiguresError, class_figures, mean_of
from .label_rows import draw_worst, rows_of, write_rows
from .task import LogitsTask, Why


class Labels(LogitsTask):
    """Questions to an image as a whole: answers are logits [N, K], targets class numbers [N] or values [N, K]."""

    not_for = ("classes", "ignore")

    @classmethod
    def create(cls, name: str, num_classes: int, head: str | None, **options: Any) -> nn.Module:
        """Makes timm's model with a new classifier."""
        return timm.create_model(name, num_classes=num_classes, **options)

    @classmethod
    def write(cls, model: nn.Module, folder: Path, classes: list[str], data_config: dict[str, Any]) -> None:
        """Writes what timm's `local-dir:` reads."""
        labels = {"label_names": classes}
        save_for_hf(model, str(folder), model_config=labels, safe_serialization=True, data_config=data_config)

    @classmethod
    def read(cls, folder: Path, content: dict[str, Any], **sized: Any) -> nn.Module:
        """Reads it with timm."""
        return timm.create_model(f"local-dir:{folder}", pretrained=True, **sized)

    def samples(self, source: Source, recipe: Any, data_config: dict[str, Any], *, memory: bool) -> TrainImages:
        """Makes images with their labels, those of a batch of one size."""
        crop = Crop(recipe.crop, recipe.crop_scale, data_config["interpolation"])
        side = round(max(recipe.training_sizes) * (1.5 if recipe.crop == "resized" else 1))
        prepare: Keep | KeepSquare | Preprocess = Preprocess(data_config)
        if recipe.crop == "resized":
            prepare = Keep(side)
        elif recipe.sizes:
            prepare = KeepSquare(data_config, side)
        return TrainImages(source, prepare, crop, hflip=recipe.hflip, seed=recipe.seed, memory=memory)

    def augmentation(self, recipe: Any, data_config: dict[str, Any], num_classes: int) -> BatchAugmentation:
        """Makes operations, erasing and mixtures, as the recipe asks for them."""
        return BatchAugmentation(
            data_config["mean"],
            data_config["std"],
            num_classes=num_classes,
            randaugment=recipe.randaugment,
            erasing=recipe.erasing,
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
        )

    def blank_targets(self, count: int, size: int, num_classes: int) -> Tensor:
        """Draws class numbers [count]."""
        return torch.randint(0, num_classes, (count,))

    def class_counts(self, source: Source) -> np.ndarray:
        """Counts the images of each class."""
        if source.multi_label:
            return source.targets.sum(0)
        return np.bincount(source.targets, minlength=len(source.classes))

    def draw_samples(self, path: Path, images: Tensor, targets: Tensor, classes: list[str]) -> None:
        """Draws the images with the names of their labels."""
        numbers = [target.nonzero().flatten().tolist() if target.ndim else [int(target)] for target in targets]
        draw_titled(path, images, ["+".join(classes[i] for i in several) for several in numbers])

    def preprocess(self, data_config: dict[str, Any]) -> Preprocess:
        """Makes squares."""
        return Preprocess(data_config)

    def truth(self, source: Source, classes: list[str]) -> Tensor:
        """Returns class numbers [N], or labels [N, K], matched by name."""
        check_classes(source, classes)
        return torch.as_tensor(targets_by_name(source, classes))

    def found(self, predictor: Any, images: Tensor, source: Source, indices: list[int]) -> Tensor:
        """Returns logits [n, K]."""
        return predictor.logits(images)

    def broken(self, answers: Tensor) -> list[int]:
        """Returns the places of logits that are infinite or no numbers."""
        return (~torch.isfinite(answers).all(1)).nonzero().flatten().tolist()

    def write_answers(self, path: Path, answers: Any, predictor: Any) -> None:
        """Writes file, true, predicted, probability and loss; | separates several labels."""
        write_rows(path, list(rows_of(answers, predictor)))

    def draw_worst(self, path: Path, answers: Any, predictor: Any, why: Why | None = None) -> bool:
        """Draws the wrongly answered images with the largest losses."""
        return draw_worst(path, list(rows_of(answers, predictor)), answers.source, predictor.preprocess.enough, why)

    def predictions(
        self, predictor: Any, names: list[str], images: list[Tensor], sizes: list[tuple[int, int]], topk: int
    ) -> list[Prediction]:
        """Names the likeliest classes."""
        top = self.probabilities(predictor.logits(together(images))).topk(topk)
        answers = []
        for name, indices, values in zip(names, top.indices.tolist(), top.values.tolist(), strict=True):
            if all(map(math.isfinite, values)):
                answers.append(Prediction(name, [predictor.classes[i] for i in indices], values))
            else:
                answers.append(self.unanswered(name, "the network's answer is no number"))
        return answers

    def unanswered(self, name: str, reason: str) -> Prediction:
        """Names no class."""
        return Prediction(name, [], [], reason)

    @abstractmethod
    def logits_of(self, probabilities: Tensor) -> Tensor:
        """Turns probabilities [N, K] into logits that have them."""

    @abstractmethod
    def probabilities(self, logits: Tensor) -> Tensor:
        """Turns logits [N, K] into probabilities [N, K]."""


class Classification(Labels):
    """One label for each image: targets are class numbers [N], or in training mixtures of classes [N, K]."""

    name, score, score_name, hits_name = "classification", "top1", "accuracy", "accuracy"
    short_name = "accuracy"
    headline = {"top-1": "top1", "top-5": "top5", "F1": "f1", "expected calibration error": "calibration_error"}
    columns = {"precision": "precision", "recall": "recall", "F1": "f1"}

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

    def logits_of(self, probabilities: Tensor) -> Tensor:
        """Takes the logarithm; a probability of 0 becomes the smallest that float32 holds."""
        return probabilities.clamp(min=torch.finfo(torch.float32).tiny).log()

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


class MultiLabel(Labels):
    """Any number of labels for each image: targets are 0 or 1 for each label [N, K]."""

    name, score = "multi-label", "mean_average_precision"
    score_name, short_name, hits_name = "mean average precision", "mAP", "right labels"
    headline = {"mean average precision": "mean_average_precision", "F1": "f1"}
    columns = {"precision": "precision", "recall": "recall", "F1": "f1", "average precision": "average_precision"}

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

    def logits_of(self, probabilities: Tensor) -> Tensor:
        """Inverts the sigmoid; probabilities of 0 and 1 become the nearest ones that have logits."""
        return probabilities.double().logit(eps=1e-12).float()

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


def check_classes(source: Source, classes: list[str]) -> None:
    """Refuses data with classes that a model does not know.

    Raises:
        FiguresError: There is one.
    """
    unknown = unknown_classes(source, classes)
    if unknown:
        raise FiguresError(
            f"the data has classes that the model does not know: {', '.join(unknown[:5])}; "
            f"it knows {', '.join(classes[:10])}"
        )
