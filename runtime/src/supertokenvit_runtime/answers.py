"""Answers for images without labels."""

from dataclasses import asdict, dataclass
from typing import Any

from PIL import Image


@dataclass
class Prediction:
    """The answer for one image: the likeliest classes with their probabilities, or what is wrong with it."""

    file: str
    """Path of the image, or "image N" for one that came without a path (N counts from 0)."""
    labels: list[str]
    """The likeliest classes, the likeliest first."""
    probabilities: list[float]
    """Their probabilities."""
    error: str | None = None
    """Why there is no answer."""

    def line(self, width: int) -> str:
        """Writes it as one line: file, likeliest class, and the others."""
        answers = [f"{label} {100 * p:.1f} %" for label, p in zip(self.labels, self.probabilities, strict=True)]
        rest = f"  then {', '.join(answers[1:])}" if len(answers) > 1 else ""
        return f"{self.file:<{width}}  {answers[0]:<20}{rest}".rstrip()

    def as_dict(self) -> dict[str, Any]:
        """Returns it for JSON."""
        return asdict(self)

    def pictures(self, photograph: Image.Image) -> dict[str, Image.Image]:
        """Returns no picture."""
        return {}
