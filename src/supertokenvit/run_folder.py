"""What a training leaves on disk: one folder that knows the name of every file in it."""

import contextlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Set
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from .errors import UserError

PREDICTIONS = "predictions.jsonl"  # all answers, in a folder of answers that are pictures
LOG_BEGINS = re.compile(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d ")  # as RunFolder.add_to_log writes lines


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
        self.validation = self.path / "validation.txt"
        self.lock = self.path / ".lock"

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

    def evaluation_of(self, name: str) -> Path:
        """Path of the figures of `supertokenvit evaluate`; the name is that of the split, maybe with a number."""
        return self.path / f"evaluation-{name}.json"

    def answers_of(self, name: str) -> Path:
        """Path of the table of every answer behind those figures."""
        return self.path / f"evaluation-{name}.csv"

    def confusion_of(self, name: str) -> Path:
        """Path of the picture of their confusion matrix."""
        return self.path / f"confusion-{name}.png"

    def worst_of(self, name: str) -> Path:
        """Path of the picture of the most confidently wrong images."""
        return self.path / f"worst-{name}.png"

    def add_to_log(self, line: str, when: str) -> None:
        """Adds a line to log.txt, with its time in front."""
        with open(self.log, "a", encoding="utf-8", errors="backslashreplace") as file:
            file.write(f"{when} {line}\n")

    @property
    def checkpoint(self) -> Path | None:
        """The checkpoint to go on from, if there is one."""
        return next((path for path in (self.last, self.best) if path.exists()), None)

    @property
    def holds_a_start_only(self) -> bool:
        """Whether nothing but the beginnings of a run is in it: all of that is made again when the run begins again."""
        there = {path for path in self._everything() if not self._is_temporary(path)} - {self.lock, self.checkpoints}
        beginnings = {self.recipe, self.environment, self.log, self.metrics, self.samples, self.events}
        text = self.log.read_text("utf-8", "replace") if self.log.is_file() else ""
        ours = not there or LOG_BEGINS.match(text) is not None
        return ours and there <= beginnings | {self.validation, self.not_finite}

    def clear(self, *kept: Path) -> None:
        """Removes what is in it, but for the lock and what is named."""
        for path in set(self.path.iterdir()) - {self.lock, *kept}:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink()

    def remove_temporary(self) -> None:
        """Removes what a killed process left half written; an older model that was being replaced comes back."""
        old = _old(self.model)
        if old.exists() and not self.model.exists():
            old.rename(self.model)
        for path in filter(self._is_temporary, self._everything()):
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def _everything(self) -> list[Path]:
        """What is in it, and in the folder of its checkpoints."""
        return [*self.path.iterdir(), *(self.checkpoints.iterdir() if self.checkpoints.is_dir() else ())]

    def _is_temporary(self, path: Path) -> bool:
        """Whether a path is one at which something is written before it gets its own name."""
        hidden = path.with_name(path.name[1:])
        ours = hidden in vars(self).values() or is_output({hidden.name}) or path.name.startswith(f".{self.model.name}-")
        return path.name.startswith(".") and ours

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Keeps every other training out of the folder while this lasts, also when this process is killed.

        Raises:
            RunFolderError: Another training is in it.
        """
        lock = FileLock(self.lock)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise RunFolderError(
                f"{self}: another training is writing into it; wait for its end, or choose another --out"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def must_be_free(self) -> None:
        """Makes it empty if it holds the beginnings of a run only.

        Raises:
            RunFolderError: There is something else in it.
        """
        if self.holds_a_start_only:
            self.clear()
        else:
            advice = f", or go on with --resume {self}" if self.checkpoint and self.recipe.exists() else ""
            raise RunFolderError(f"{self}: not empty; choose another --out{advice}")

    def remove(self) -> None:
        """Removes it with everything in it."""
        self.clear()
        self.lock.unlink(missing_ok=True)
        self.path.rmdir()

    def working_directory(self) -> str | None:
        """The folder in which the run was begun, if it is written down: relative paths of the recipe hold there."""
        try:
            return json.loads(self.environment.read_text(encoding="utf-8")).get("working_directory")
        except (OSError, ValueError, AttributeError):
            return None

    def kept_for_validation(self) -> frozenset[str]:
        """Keys of the images that the run cut off for validation (data.sources.Source.key); none if unknown."""
        if not self.validation.exists():
            return frozenset()
        return frozenset(json.loads(line) for line in self.validation.read_text(encoding="utf-8").splitlines())

    def keep_for_validation(self, keys: list[str]) -> None:
        """Writes down which images were cut off for validation, one JSON string a line."""
        write_text(self.validation, "".join(f"{json.dumps(key)}\n" for key in keys))


def _old(path: Path) -> Path:
    """The name of a folder while it is being replaced."""
    return path.with_name(f".{path.name}-old")


def is_output(names: Set[str]) -> bool:
    """Says whether a folder with files of these names was written by a verb of the command, so that its pictures are no
    data.

    Args:
        names: What is in the folder.
    """
    if PREDICTIONS in names or "explanations.png" in names or {"rows.csv", "throughput.png"} <= names:  # of other verbs
        return True
    run = "recipe.yaml" in names and not names.isdisjoint({"log.txt", "environment.json", "checkpoints"})
    return run or any(name.startswith("evaluation") and name.endswith((".json", ".csv")) for name in names)


def new_run_folder(wanted: str | None, data: str) -> RunFolder:
    """Makes the folder for a run: the one wanted, or runs/NAME of the data with a number behind it if taken.

    Args:
        wanted: Path of the folder, or None.
        data: Where the images come from, as in training.

    Raises:
        RunFolderError: There is a file at the wanted path.
    """
    if wanted is not None:
        path = Path(wanted)
        if path.exists() and not path.is_dir():
            raise RunFolderError(f"{path}: a file; choose another --out")
        path.mkdir(parents=True, exist_ok=True)
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
    """Makes sure that the content of a file, or the list of files of a folder, is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError:
        if not path.is_dir():  # some file systems cannot do it for folders
            raise
    finally:
        os.close(descriptor)


def put_in_place(temporary: Path, path: Path) -> None:
    """Gives a file that is complete its own name, in the place of an older one, also if the power fails now."""
    sync(temporary)
    os.replace(temporary, path)
    if os.name != "nt":  # there folders cannot be opened
        sync(path.parent)


def replace_folder(fresh: Path, folder: Path) -> None:
    """Puts a folder that is complete in the place of an older one."""
    old = _old(folder)
    for path in fresh.rglob("*"):
        if path.is_file() or os.name != "nt":
            sync(path)
    if folder.exists():
        shutil.rmtree(old, ignore_errors=True)
        folder.rename(old)
    fresh.rename(folder)
    if os.name != "nt":
        sync(folder.parent)
    shutil.rmtree(old, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Writes text under a temporary name and renames it, so that a reader never sees half of it."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(text, encoding="utf-8")
    put_in_place(temporary, path)


def write_json(path: Path, content: Any) -> None:
    """Writes JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2) + "\n")
