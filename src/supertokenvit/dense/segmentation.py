"""The task of segmentation: a class for each pixel."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..data.decode import BadImage
from ..data.joint import JointImages
from ..data.masks import IGNORED
from ..data.sources import Source
from ..tasks import ClassFigures, Evaluation, FiguresError, LogitsTask, Ragged
from ..tasks.drawing import visible
from ..tasks.figures import mean_of
from .headed import Headed
from .mask_answers import WORST, MaskPrediction, draw_worst, name_of, of_mask, write_rows
from .masks import MULTIPLE, Fit, KeepPair, Normalized, PairCrop, confusion_of, enlarged, overlay
from .segmenter import HEADS, Segmenter


@dataclass
class MaskFigures(ClassFigures):
    """Figures of one class, counted in pixels but for `images`."""

    iou: float | None = None
    """Intersection through union: pixels that are of the class and were answered so, as a fraction of those that are of
    the class or were answered so; None if there are none."""


@dataclass
class MaskEvaluation(Evaluation):
    """Figures of a model over images with masks; pixels are those of the masks."""

    mean_iou: float | None = None
    """Mean over the classes of intersection through union of truth and answer, each summed over all images."""
    pixel_accuracy: float | None = None
    """Fraction of the pixels that are answered rightly."""


class Seen(NamedTuple):
    """What a model answered for one image.

    Args:
        confusion: Pixels by true class (rows) and answered class (columns), int64 [K, K].
        loss: Summed over the pixels that count.
    """

    confusion: np.ndarray
    loss: float


class Segmentation(Headed, LogitsTask):
    """A class for each pixel: targets are class numbers [N, H, W], with IGNORED where nothing is to be learned."""

    name, score, score_name, short_name = "segmentation", "mean_iou", "mean IoU", "mIoU"
    hits_name = "pixel accuracy"
    network = Segmenter
    headline = {"mean IoU": "mean_iou", "pixel accuracy": "pixel_accuracy"}
    columns = {"IoU": "iou", "precision": "precision", "recall": "recall"}
    heads = HEADS
    not_for = (
        "resize", "crop_pct", "sizes", "randaugment", "erasing", "mixup", "cutmix", "weighted_sampling", "teacher",
        "layer_decay", "tta",
    )  # fmt: skip

    def usual(self, count: int, side: int, gpu: bool) -> dict[str, tuple[Any, str]]:
        """Chooses a larger size and smaller batches than for labels."""
        size = min(512 if gpu else 256, max(64, side // MULTIPLE * MULTIPLE))
        about = f"the images are about {side} px" + ("" if gpu else " and there is no GPU")
        batch = max(1, min(16 if gpu else 8, count // 4))
        return {
            "img_size": (size, about),
            "model": ("stt_s14" if gpu and count >= 10_000 else "stt_t", f"for {count:,} training images"),
            "head": (HEADS[0], "usual"),
            "batch_size": (batch, f"usual for masks of {count:,} images"),
            "crop": ("resized", "usual for masks"),
            "hflip": (0.5, "mirrored photographs are as likely"),
        }

    def samples(self, source: Source, recipe: Any, data_config: dict[str, Any], *, memory: bool) -> JointImages:
        """Makes square parts of images and masks."""
        load = KeepPair(source, round(recipe.img_size * 1.5))
        crop = PairCrop(recipe.crop, recipe.img_size, recipe.crop_scale)
        return JointImages(source, load, crop, _stacked, hflip=recipe.hflip, seed=recipe.seed, memory=memory)

    def augmentation(self, recipe: Any, data_config: dict[str, Any], num_classes: int) -> Normalized:
        """Normalises."""
        return Normalized(data_config)

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sums the cross-entropy of the pixels that count."""
        return F.cross_entropy(logits, targets, weight=self.class_weights, ignore_index=IGNORED, reduction="sum")

    def weight(self, targets: Tensor) -> float:
        """Counts the pixels, each by the weight of its class."""
        counted = targets[targets != IGNORED]
        return max(1e-9, self.class_weights[counted].sum().item() if self.class_weights is not None else len(counted))

    def hits(self, logits: Tensor, targets: Tensor) -> float:
        """Sums over the images the fraction of pixels that are right."""
        right = ((logits.argmax(1) == targets) & (targets != IGNORED)).flatten(1).sum(1)
        return (right / (targets != IGNORED).flatten(1).sum(1).clamp(min=1)).sum().item()

    def blank_targets(self, count: int, size: int, num_classes: int) -> Tensor:
        """Draws class numbers [count, size, size]."""
        return torch.randint(0, num_classes, (count, size, size))

    def class_counts(self, source: Source) -> np.ndarray:
        """Counts the pixels of each class; masks that cannot be used are left out, as in training."""
        counts = np.zeros(256, dtype=np.int64)
        for i in range(len(source)):
            try:
                counts += np.bincount(source.target(i).ravel(), minlength=256)
            except BadImage:
                continue
        return counts[: len(source.classes)]

    def preprocess(self, data_config: dict[str, Any]) -> Fit:
        """Shows the whole photograph in its own shape."""
        return Fit(data_config)

    def truth(self, source: Source, classes: list[str]) -> Tensor:
        """Returns nothing [N, 0]: masks are compared as they are read.

        Raises:
            FiguresError: The data has other classes than the model.
        """
        if source.classes != classes:
            raise FiguresError(
                f"the data has the classes {', '.join(source.classes[:5])} ..., and the model "
                f"{', '.join(classes[:5])} ...: the values of masks must mean the same"
            )
        return torch.zeros(len(source), 0)

    def found(self, predictor: Any, images: Any, source: Source, indices: list[int]) -> Ragged:
        """Compares answers with masks, in the masks' own pixels.

        Raises:
            BadImage: A mask cannot be used.
        """
        seen = Ragged()
        for i, logits in zip(indices, maps_of(predictor, images), strict=True):
            mask = torch.from_numpy(source.target(i)).long()
            logits = enlarged(logits, mask.shape)
            loss = F.cross_entropy(logits[None], mask[None], ignore_index=IGNORED, reduction="sum").item()
            seen.append(Seen(confusion_of(mask, logits.argmax(0), len(logits)).numpy(), loss))
        return seen

    def broken(self, answers: Ragged) -> list[int]:
        """Returns the places of answers whose loss is no number."""
        return [place for place, seen in enumerate(answers) if not np.isfinite(seen.loss)]

    def figures(self, answers: Ragged, truth: Any, classes: list[str]) -> Evaluation:
        """Sums pixels over all images, then takes the figures of each class and their mean."""
        if not answers:
            raise FiguresError("no image was answered")
        counts = sum(seen.confusion for seen in answers)
        pixels = int(counts.sum())
        if not pixels:
            raise FiguresError("no pixel has a class: all are ignored")
        shown = sum((seen.confusion.sum(1) > 0).astype(int) for seen in answers)
        found = [_class_figures(counts, k, int(shown[k])) for k in range(len(classes))]
        per_class: dict[str, ClassFigures] = dict(zip(classes, found, strict=True))
        return MaskEvaluation(
            images=len(answers),
            loss=sum(seen.loss for seen in answers) / pixels,
            mean_iou=mean_of([figures.iou for figures in found]),
            pixel_accuracy=int(np.trace(counts)) / pixels,
            f1=mean_of([figures.f1 for figures in found]),
            classes=classes,
            per_class=per_class,
            confusion=[(int(i), int(j), int(counts[i, j])) for i, j in np.argwhere(counts)],
            missing_classes=[name for name, figures in per_class.items() if not figures.images],
        )

    def write_answers(self, path: Path, answers: Any, predictor: Any) -> None:
        """Writes file, mean IoU over the classes that are seen, pixel accuracy and mean loss of a pixel."""
        write_rows(path, [(name_of(answers.source, index), *_figures_of(seen)) for index, seen in _pairs(answers)])

    def draw_worst(self, path: Path, answers: Any, predictor: Any, why: Any = None) -> bool:
        """Draws the images with the fewest right pixels: photograph, truth and answer."""
        worst = sorted(_pairs(answers), key=lambda pair: _figures_of(pair[1])[1])[:WORST]
        drawn = []
        for index, seen in worst:
            image, mask = answers.source.image(index), answers.source.target(index)
            with torch.inference_mode():
                said = enlarged(maps_of(predictor, [predictor.preprocess(image)])[0], mask.shape).argmax(0)
            title = f"{Path(name_of(answers.source, index)).name}: {100 * _figures_of(seen)[1]:.1f} % right"
            drawn.append((np.asarray(image), mask, said.numpy().astype(np.uint8), title))
        draw_worst(path, drawn, predictor.classes)
        return True

    def predictions(
        self, predictor: Any, names: list[str], images: list[Tensor], sizes: list[tuple[int, int]], topk: int
    ) -> list[MaskPrediction]:
        """Answers with masks in the photographs' own sizes."""
        found = []
        for name, logits, size in zip(names, maps_of(predictor, images), sizes, strict=True):
            if torch.isfinite(logits).all():
                found.append(of_mask(name, enlarged(logits, size[::-1]).argmax(0), predictor.classes))
            else:
                found.append(self.unanswered(name, "the network's answer is no number"))
        return found

    def unanswered(self, name: str, reason: str) -> MaskPrediction:
        """Gives no mask."""
        return MaskPrediction(name, None, error=reason)

    def draw_samples(self, path: Path, images: Tensor, targets: Tensor, classes: list[str]) -> None:
        """Draws augmented images with their masks painted over them."""
        from matplotlib.figure import Figure

        n = min(len(images), 16)
        figure = Figure(figsize=(13, 1.75 * -(-n // 8)), layout="constrained")
        axes = figure.subplots(-(-n // 8), 8, squeeze=False)
        for axis in axes.flat:
            axis.axis("off")
        for axis, image, mask in zip(axes.flat, images[:n], targets[:n], strict=False):
            pixels = (255 * visible(image)).astype(np.uint8)
            axis.imshow(overlay(pixels, mask.numpy().astype(np.uint8), len(classes)))
        figure.savefig(path, dpi=110)


def maps_of(predictor: Any, images: Any) -> list[Tensor]:
    """Answers for preprocessed images of any sizes: logits [K, h, w] for each; those of one size go together."""
    found: dict[int, Tensor] = {}
    for shape in dict.fromkeys(image.shape for image in images):
        places = [place for place, image in enumerate(images) if image.shape == shape]
        answers = predictor.logits(torch.stack([images[place] for place in places]))
        found.update(zip(places, answers, strict=True))
    return [found[place] for place in range(len(images))]


def _pairs(answers: Any) -> list[tuple[int, Seen]]:
    """Places of images in their source, with what was answered."""
    return [(int(index), seen) for index, seen in zip(answers.indices, answers.logits, strict=True)]


def _figures_of(seen: Seen) -> tuple[float, float, float]:
    """Mean IoU, pixel accuracy and mean loss of one image."""
    found = [_class_figures(seen.confusion, k, 1).iou for k in range(len(seen.confusion))]
    pixels = max(1, int(seen.confusion.sum()))
    return mean_of(found) or 0.0, int(np.trace(seen.confusion)) / pixels, seen.loss / pixels


def _stacked(masks: list[Tensor]) -> Tensor:
    """Masks of a batch, [N, S, S]."""
    return torch.stack(masks) if masks else torch.empty(0, 1, 1, dtype=torch.long)


def _class_figures(counts: np.ndarray, k: int, images: int) -> MaskFigures:
    """Figures of a class of a confusion matrix [K, K]."""
    right, true, said = int(counts[k, k]), int(counts[k].sum()), int(counts[:, k].sum())
    return MaskFigures(
        images,
        precision=right / said if said else None,
        recall=right / true if true else None,
        f1=2 * right / (true + said) if true else None,
        iou=right / (true + said - right) if true + said else None,
    )
