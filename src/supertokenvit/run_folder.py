"""What a training leaves on disk: one folder that knows the name of every file in it."""

import json
import os
from pathlib import Path
from typing import Any

from .errors import UserError


class RunFolderError(UserError):
    """A folder that is no run folder, or cannot become one."""


class RunFolder(os.PathLike):
    """The folder of one training run: everything about a trained model, so that moving it moves the model.

    Args:
        path: Of the folder; it need not exist yet.
    """

    def __init__(self, path: str | os.PathLike) -> None:
        self.path = Path(path)
        self.recipe = self.path / "recipe.yaml"
        self.environment = self.path / "environment.json"
        self.log = self.path / "log.txt"
        self.metrics = self.path / "metrics.csv"
        self.samples = self.path / "samples.png"
        self.curves = self.path / "curves.png"
        self.evaluation = self.path / "evaluation.json"
        self.confusion = self.path / "confusion.png"
        self.not_finite = self.path / "not_finite.txt"
        self.events = self.path / "events"
        self.checkpoints = self.path / "checkpoints"
        self.last = self.checkpoints / "last.pt"
        self.best = self.checkpoints / "best.pt"
        self.model = self.path / "model"

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"RunFolder({str(self.path)!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RunFolder) and self.path == other.path

    def __hash__(self) -> int:
        return hash(self.path)

    def evaluation_of(self, split: str) -> Path:
        """Path of the figures that `supertokenvit evaluate` writes for a split."""
        return self.path / f"evaluation-{split}.json"

    def confusion_of(self, split: str) -> Path:
        """Path of the picture of a split's confusion matrix."""
        return self.path / f"confusion-{split}.png"

    def add_to_log(self, line: str, when: str) -> None:
        """Adds a line to log.txt, with its time in front."""
        with open(self.log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{when} {line}\n")

    def remove_if_only_a_log(self) -> None:
        """Removes the folder of a run that failed before it made anything but a log."""
        if not any(path != self.log for path in self.path.iterdir()):
            self.log.unlink(missing_ok=True)
            self.path.rmdir()


def new_run_folder(wanted: str | None, data: str) -> RunFolder:
    """Makes an empty run folder: the one wanted, or runs/NAME of the data with a number behind it if taken.

    Args:
        wanted: Path of the folder, or None.
        data: Where the images come from, as in training.

    Raises:
        RunFolderError: The wanted folder has something in it.
    """
    if wanted is not None:
        path = Path(wanted)
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise RunFolderError(f"{path}: not empty; choose another --out, or go on with --resume {path}")
        return RunFolder(path)
    stem = Path(data.split("/", 1)[-1] if data.startswith(("wds/", "hfds/", "torch/")) else data).name
    stem = stem.split(".")[0] or "run"
    path = Path("runs") / stem
    number = 2
    while True:
        try:  # another run may begin at the same time
            path.mkdir(parents=True)
            return RunFolder(path)
        except FileExistsError:
            path, number = Path("runs") / f"{stem}-{number}", number + 1


def sync(path: Path) -> None:
    """Makes sure that a file's content is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """Writes JSON under a temporary name and renames it, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    sync(temporary)
    temporary.rename(path)
