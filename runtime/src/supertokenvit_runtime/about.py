"""What an exported file says about itself, in its own metadata."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from .errors import UserError

KEY = "supertokenvit"
FORMAT = 1
TASKS = ("classification", "multi-label")
EXPLANATION = "explanation"  # of a graph of heat maps, which stands beside a model


class AboutError(UserError):
    """A file that does not say what is needed to use it."""


@dataclass(frozen=True)
class About:
    """A model as its users see it."""

    name: str
    """What people call it."""
    classes: list[str]
    """Names in the order of the probabilities."""
    task: str = "classification"
    """classification: probabilities of one image sum to 1; multi-label: each class has its own."""
    pixels: int = 0
    """Side of the square that the network sees."""
    enough: int | None = None
    """Pixels of a JPEG's shorter side that are enough, so that it may be decoded at a part of its size."""
    data_license: str | None = None
    """Licence of the images of the training."""
    card: dict[str, Any] = field(default_factory=dict)
    """What else the training wrote down and others may know: its scores."""
    explains: bool = False
    """Whether answers can be explained."""

    def as_dict(self) -> dict[str, Any]:
        """Returns it for JSON."""
        return asdict(self)


def read_note(text: str | None, path: Path) -> dict[str, Any]:
    """Reads what `export` wrote into a file's metadata.

    Args:
        text: JSON under KEY, or None if there is nothing under it.
        path: Of the file, for messages.

    Raises:
        AboutError: The file was not exported, or by a newer version.
    """
    if text is None:
        raise AboutError(f"{path}: supertokenvit export did not write it, so its classes are not known")
    try:
        found = json.loads(text)
        if found["format"] > FORMAT:
            raise AboutError(f"{path}: a newer version wrote it; update supertokenvit")
        if found.get("task") == EXPLANATION:
            raise AboutError(f"{path}: makes heat maps for the page and answers nothing; name the model beside it")
        return found
    except (KeyError, TypeError, ValueError) as error:
        raise AboutError(f"{path}: its metadata cannot be read ({type(error).__name__}: {error})") from None


def read_about(text: str | None, path: Path) -> About:
    """Reads the metadata of an exported file.

    Args:
        text: JSON under KEY, or None if there is nothing under it.
        path: Of the file, for messages.

    Raises:
        AboutError: The file was not exported, or by a newer version, or in a way that is not for photographs.
    """
    found = read_note(text, path)
    try:
        if found["input"] != "photo":
            raise AboutError(f"{path}: takes {found['input']}, not photographs; export it anew for photographs")
        if found["task"] not in TASKS:
            raise AboutError(f"{path}: its task is {found['task']}; this version knows {' and '.join(TASKS)}")
        named = ("name", "classes", "task", "pixels", "enough", "data_license")
        scores = (found.get("card") or {}).get("scores", {})  # what else is there may name folders of another machine
        return About(**{key: found[key] for key in named}, card={"scores": scores})
    except (KeyError, TypeError, ValueError) as error:
        raise AboutError(f"{path}: its metadata cannot be read ({type(error).__name__}: {error})") from None
