"""The task of detection: boxes around things, with their classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..data.box_geometry import BoxCrop, KeepBoxes, Whole, scaled
from ..data.boxes import Boxes, known_size, size_of
from ..data.decode import printable
from ..data.joint import JointImages
from ..data.sources import Source, class_name
from ..errors import UsageError
from ..tasks import FiguresError, Ragged
from ..tasks.drawing import visible
from ..tasks.labels import check_classes
from .box_answers import BoxPrediction
from .box_figures import USUAL, BoxFigures, box_figures
from .box_pictures import draw_grid, paint_small
from .box_report import draw_worst, write_boxes
from .detector import HEADS, MULTIPLE, Detector, Found, found_in
from .headed import Headed
from .masks import Normalized
from .segmentation import maps_of

ALIKE = 0.15  # by which the shapes of photographs may differ from the median to be taken for one shape


class Detection(Headed):
    """Boxes around things: targets are "boxes" [n, 4] in pixels and their "labels" [n] for each image."""

    name, score, score_name, short_name = "detection", "mean_average_precision", "mean average precision", "mAP"
    hits_name = ""
    network = Detector
    headline = {"mAP": "mean_average_precision", "AP50": "average_precision_50", "AP75": "average_precision_75"}
    columns = {"AP": "average_precision", "AP50": "average_precision_50", "precision": "precision", "recall": "recall"}
    counted = "boxes"
    heads = tuple(HEADS)
    not_for = (
        "resize", "crop_pct", "randaugment", "erasing", "mixup", "cutmix", "class_weights", "weighted_sampling",
        "teacher", "layer_decay", "tta", "sizes", "classes", "ignore",
    )  # fmt: skip

    def usual(self, count: int, side: int, gpu: bool) -> dict[str, tuple[Any, str]]:
        """Chooses a larger size and smaller batches than for labels."""
        size = min(640 if gpu else 256, max(64, -(-side // MULTIPLE) * MULTIPLE))
        about = f"the images are about {side} px" + ("" if gpu else " and there is no GPU")
        batch = max(1, min(16 if gpu else 8, count // 4))
        return {
            "img_size": (size, about),
            "model": ("stt_s14" if gpu and count >= 10_000 else "stt_t", f"for {count:,} training images"),
            "head": (self.heads[0], "usual"),
            "batch_size": (batch, f"usual for boxes of {count:,} images"),
            "crop": ("resized", "usual for boxes"),
            "hflip": (0.5, "mirrored photographs are as likely"),
        }

    def samples(self, source: Source, recipe: Any, data_config: dict[str, Any], *, memory: bool) -> JointImages:
        """Makes parts of images with their boxes.

        Raises:
            UsageError: The size is no multiple of MULTIPLE.
        """
        if recipe.img_size % MULTIPLE:
            raise UsageError(f"img_size={recipe.img_size}: must be a multiple of {MULTIPLE} for detection")
        fill = tuple(round(255 * value) for value in data_config["mean"])
        crop = BoxCrop(recipe.crop, canvas_of(source, Whole(data_config, MULTIPLE)), recipe.crop_scale, fill)
        load = KeepBoxes(source, round(recipe.img_size * 1.5))
        return JointImages(source, load, crop, _targets, hflip=recipe.hflip, seed=recipe.seed, memory=memory)

    def augmentation(self, recipe: Any, data_config: dict[str, Any], num_classes: int) -> Normalized:
        """Normalises."""
        return Normalized(data_config)

    def learn(self, model: Any, images: Tensor, targets: Ragged) -> tuple[Tensor, float, None]:
        """Sums the loss that the head defines; each part of it is a mean over the boxes of the batch."""
        losses = model(images, targets)
        return torch.stack(list(losses.values())).sum() * len(images), 0.0, None

    def weight(self, targets: Ragged) -> float:
        """Counts the images."""
        return len(targets)

    def blank_targets(self, count: int, size: int, num_classes: int) -> Ragged:
        """Draws ten boxes for each image."""
        corners = torch.rand(count, 10, 2) * size * 0.8
        boxes = torch.cat([corners, corners + size * 0.1], 2)
        return Ragged({"boxes": b, "labels": torch.randint(0, num_classes, (10,))} for b in boxes)

    def class_counts(self, source: Source) -> np.ndarray:
        """Counts the boxes of each class."""
        labels = [label for i in range(len(source)) for label in source.target(i).labels]
        return np.bincount(np.array(labels, dtype=np.int64), minlength=len(source.classes))

    def preprocess(self, data_config: dict[str, Any]) -> Whole:
        """Shows the whole photograph in its own shape."""
        return Whole(data_config, MULTIPLE)

    def truth(self, source: Source, classes: list[str]) -> Ragged:
        """Returns the boxes of each image with the model's class numbers.

        Raises:
            FiguresError: The data has a class that the model does not know.
        """
        check_classes(source, classes)
        number = {class_name(name): k for k, name in enumerate(classes)}
        order = np.array([number[class_name(name)] for name in source.classes], dtype=np.int64)
        targets = map(source.target, range(len(source)))
        return Ragged(target._replace(labels=order[target.labels]) for target in targets)

    def found(self, predictor: Any, images: Any, source: Source, indices: Sequence[int]) -> Ragged:
        """Returns what is found on each image (Found), in pixels of the photograph."""
        rows = maps_of(predictor, images)
        return Ragged(
            in_photograph(found_in(r), image.shape, size_of(source, i))
            for r, image, i in zip(rows, images, indices, strict=True)
        )

    def broken(self, answers: Ragged) -> list[int]:
        """Returns the places of answers that are no numbers."""
        return [place for place, found in enumerate(answers) if not torch.isfinite(found.scores).all()]

    def figures(self, answers: Ragged, truth: Ragged, classes: list[str]) -> BoxFigures:
        """COCO's average precision."""
        if not answers:
            raise FiguresError("no image was answered")
        return box_figures(answers, truth, classes, self.threshold)

    def write_answers(self, path: Path, answers: Any, predictor: Any) -> None:
        """Writes file, label, score and edges of everything that was found, whatever its score."""
        names = [printable(answers.source.name(int(index))) for index in answers.indices]
        write_boxes(path, list(zip(names, answers.logits, strict=True)), predictor.classes)

    def draw_worst(self, path: Path, answers: Any, predictor: Any, why: Any = None) -> bool:
        """Draws the images with the most boxes that are missed or wrong."""
        found, truth = answers.logits, answers.targets
        return draw_worst(path, answers.source, answers.indices, found, truth, predictor.classes, self.least_score)

    def predictions(
        self, predictor: Any, names: list[str], images: list[Tensor], sizes: list[tuple[int, int]], topk: int
    ) -> list[BoxPrediction]:
        """Answers with the boxes whose score reaches the threshold."""
        rows = zip(names, maps_of(predictor, images), images, sizes, strict=True)
        found = [(name, in_photograph(found_in(r), image.shape, size)) for name, r, image, size in rows]
        return [BoxPrediction.of(name, each, predictor.classes, self.least_score) for name, each in found]

    def unanswered(self, name: str, reason: str) -> BoxPrediction:
        """Gives no boxes."""
        return BoxPrediction(name, error=reason)

    @property
    def least_score(self) -> float:
        """Score from which on boxes are shown."""
        return USUAL if self.threshold is None else self.threshold

    def draw_samples(self, path: Path, images: Tensor, targets: Ragged, classes: list[str]) -> None:
        """Draws augmented images with their boxes."""
        pixels = [torch.as_tensor((255 * visible(image)).astype(np.uint8)).permute(2, 0, 1) for image in images[:16]]
        painted = [paint_small(image, _boxes(target), classes) for image, target in zip(pixels, targets, strict=False)]
        draw_grid(path, painted, [""] * len(painted), classes)


def in_photograph(found: Found, canvas: Sequence[int], size: tuple[int, int]) -> Found:
    """Returns what was found on an image [3, H, W] in pixels of its photograph of that width and height."""
    boxes = scaled(found.boxes.numpy(), (canvas[2], canvas[1]), size)
    return found._replace(boxes=torch.from_numpy(np.clip(boxes, 0, [*size, *size]).astype(np.float32)))


def canvas_of(source: Source, whole: Whole) -> tuple[int, int]:
    """Returns height and width of training images: the shape of the photographs if they are alike, else a square."""
    sizes = np.array([s for i in range(len(source)) if (s := known_size(source, i)) is not None]).reshape(-1, 2)
    if len(sizes):
        shapes = sizes[:, 0] / sizes[:, 1]
        usual = np.median(shapes)
        if (np.abs(shapes / usual - 1) < ALIKE).mean() > 0.9:
            width, height = whole.size_of(tuple(sizes[np.argmin(np.abs(shapes - usual))].tolist()))
            return height, width
    return whole.size_of((1, 1))


def _boxes(target: dict[str, Tensor]) -> Boxes:
    """Boxes to be painted."""
    return Boxes(target["boxes"].numpy(), target["labels"].numpy(), np.zeros(len(target["labels"]), dtype=bool))


def _targets(boxes: list[Boxes]) -> Ragged:
    """Boxes of a batch as a Detector takes them."""
    return Ragged({"boxes": torch.from_numpy(b.boxes), "labels": torch.from_numpy(b.labels)} for b in boxes)
