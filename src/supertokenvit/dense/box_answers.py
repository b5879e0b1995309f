"""What `supertokenvit predict` and `load(run)(images)` answer of a detector."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from PIL import Image

from .box_pictures import paint_photograph
from .box_report import surest
from .detector import Found


@dataclass
class Box:
    """A thing that was found."""

    label: str
    """Its class."""
    score: float
    """How sure the model is, 0 to 1."""
    box: tuple[float, float, float, float]
    """Left, upper, right and lower edge in pixels of the upright photograph."""


@dataclass
class BoxPrediction:
    """The answer for one image: the things that were found, the surest first, or what is wrong with it."""

    file: str
    """Path of the image, or "image N" for one that came without a path (N counts from 0)."""
    boxes: list[Box] = field(default_factory=list)
    """What was found."""
    error: str | None = None
    """Why there is no answer."""
    found: Found | None = field(default=None, repr=False, compare=False)
    """The same as tensors."""
    classes: Sequence[str] = field(default=(), repr=False, compare=False)
    """Names in the order of the class numbers."""

    @classmethod
    def of(cls, file: str, found: Found, classes: Sequence[str], threshold: float) -> "BoxPrediction":
        """Makes an answer of what was found with at least a score.

        Args:
            file: Name of the image.
            found: In pixels of the photograph.
            classes: Names in the order of the class numbers.
            threshold: The score.
        """
        if not found.scores.isfinite().all():
            return cls(file, error="the network's answer is no number")
        shown = surest(found, threshold)
        rows = zip(shown.labels.tolist(), shown.scores.tolist(), shown.boxes.tolist(), strict=True)
        boxes = [Box(classes[k], score, tuple(edges)) for k, score, edges in rows]
        return cls(file, boxes, found=shown, classes=classes)

    def line(self, width: int) -> str:
        """Writes the answer as one line: file, and how many things of each class there are."""
        counts = Counter(box.label for box in self.boxes)
        said = ", ".join(f"{count} {label}" for label, count in counts.most_common()) or "nothing"
        return f"{self.file:<{width}}  {said}"

    def as_dict(self) -> dict[str, Any]:
        """Returns the answer for JSON, edges to a tenth of a pixel."""
        boxes = [asdict(box) | {"box": [round(edge, 1) for edge in box.box]} for box in self.boxes]
        return {"file": self.file, "boxes": boxes, "error": self.error}

    def pictures(self, photograph: Image.Image) -> dict[str, Image.Image]:
        """Paints the answer on the photograph; the keys end the names of files."""
        assert self.found is not None
        return {"": paint_photograph(photograph, self.found, self.classes)}
