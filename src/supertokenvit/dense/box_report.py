"""What `supertokenvit evaluate` prints and writes of a detector."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torchvision.ops import box_iou
from torchvision.transforms.v2 import functional as V

from ..data.boxes import Boxes
from ..data.decode import printable
from ..data.sources import Source
from ..run_folder import put_in_place
from .box_pictures import draw_grid, paint_small
from .detector import Found

OVERLAP = 0.5  # of an answer with a box, from which on the box is found
WORST = 8  # images in the picture of the worst ones


class Errors(NamedTuple):
    """What is wrong with the answer for an image."""

    missed: int
    """Boxes that are not found."""
    wrong: int
    """Answers that are no box, or one of another class."""


def errors_of(found: Found, target: Boxes) -> Errors:
    """Counts what is wrong with an answer: each box belongs to the surest answer of its class that overlaps with it."""
    boxes, labels = torch.as_tensor(target.boxes), torch.as_tensor(target.labels)
    crowd = torch.as_tensor(target.crowd)
    free = torch.ones(len(boxes), dtype=torch.bool)
    wrong = 0
    overlaps = box_iou(found.boxes, boxes) * (found.labels[:, None] == labels)
    for n in found.scores.argsort(descending=True, stable=True).tolist():
        mine = overlaps[n] * (free | crowd)
        if not len(boxes) or mine.max() < OVERLAP:
            wrong += 1
        else:
            free[mine.argmax()] = False
    return Errors(int((free & ~crowd).sum()), wrong)


def surest(found: Found, threshold: float) -> Found:
    """Returns the answers with at least that score."""
    kept = found.scores >= threshold
    return Found(found.boxes[kept], found.labels[kept], found.scores[kept])


def write_boxes(path: Path, rows: Sequence[tuple[str, Found]], classes: Sequence[str]) -> None:
    """Writes what was found as CSV, a line for each box: file, label, score, left, upper, right, lower.

    Args:
        path: Of the file.
        rows: Names of files, and what was found on each.
        classes: Names in the order of the class numbers.
    """
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "label", "score", "left", "upper", "right", "lower"])
        for name, found in rows:
            rows_of = (found.boxes.tolist(), found.labels.tolist(), found.scores.tolist())
            for box, label, score in zip(*rows_of, strict=True):
                writer.writerow([name, classes[label], f"{score:.4f}", *(f"{edge:.1f}" for edge in box)])
    put_in_place(temporary, path)


def draw_worst(
    path: Path, source: Source, indices: Sequence[int], found: Sequence[Found], truth: Sequence[Boxes],
    classes: Sequence[str], threshold: float,
) -> bool:  # fmt: skip
    """Draws the images with the most errors, the truth on the left and the answer on the right; says if there are any.

    Args:
        path: Of the picture. An older one is removed if there is no error.
        source: The images.
        indices: Their places in it.
        found: What was found on each of them.
        truth: The boxes of each of them.
        classes: Names in the order of the class numbers.
        threshold: Score from which on answers count.
    """
    shown = [surest(f, threshold) for f in found]
    errors = [errors_of(f, t) for f, t in zip(shown, truth, strict=True)]
    order = sorted((n for n, e in enumerate(errors) if sum(e)), key=lambda n: -sum(errors[n]))[:WORST]
    if not order:
        path.unlink(missing_ok=True)
        return False
    pictures, titles = [], list[str]()
    for n in order:
        image = V.pil_to_tensor(source.image(int(indices[n])))
        pictures += [paint_small(image, boxes, classes) for boxes in (truth[n], shown[n])]
        name = Path(printable(source.name(int(indices[n])))).name
        titles += [f"{name}: {len(truth[n].boxes)} boxes", f"{errors[n].missed} missed, {errors[n].wrong} wrong"]
    about = f"Most errors at a score of {threshold:g}: truth on the left, answers on the right"
    draw_grid(path, pictures, titles, classes, about)
    return True
