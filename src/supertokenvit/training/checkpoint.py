"""The full state of a run on disk: written whole or not at all, never unpickled."""

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import UserError
from ..run_folder import put_in_place


class CheckpointError(UserError):
    """A checkpoint that cannot be written or read; one line."""


@dataclass
class Standing:
    """Where a run stands: what a checkpoint holds besides weights and optimiser."""

    step: int = 0
    seconds: float = 0.0
    waited: float = 0.0
    evaluating: float = 0.0
    evaluations: int = 0
    best: float = -math.inf
    best_loss: float = math.inf
    best_step: int = 0
    stale: int = 0
    loss: float = 0.0
    correct: float = 0.0
    seen: int = 0

    def rate(self, batch_size: int) -> float:
        """Images per second of training, without the evaluations."""
        return self.step * batch_size / max(self.seconds - self.evaluating, 1e-9)


def write_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Writes under a temporary name, syncs, renames: the previous checkpoint stays until the new one is whole.

    Args:
        path: Of the checkpoint.
        state: Tensors, numbers, strings, and lists and dicts of them.

    Raises:
        CheckpointError: The disk is full or cannot be written; the previous checkpoint is as it was.
    """
    temporary = path.with_name(f".{path.name}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:  # torch itself would not say why it cannot write
            torch.save(state, file)
        put_in_place(temporary, path)
    except (OSError, RuntimeError) as error:
        temporary.unlink(missing_ok=True)
        reason = reason_of(error)
        kept = "the previous one is whole" if path.exists() else "there is no earlier one"
        raise CheckpointError(f"cannot write {path}: {reason}; {kept}. Make room and go on with --resume") from error


def reason_of(error: BaseException) -> str:
    """Returns what the system said, which may stand behind an error of torch that came of it."""
    behind: BaseException | None = error
    while behind is not None:
        if isinstance(behind, OSError) and behind.strerror:
            return behind.strerror
        behind = behind.__context__
    return str(error).splitlines()[0]


def read_checkpoint(path: Path) -> dict[str, Any]:
    """The state that write_checkpoint wrote.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        best = path.with_name("best.pt")
        advice = f"; {best} is from an earlier step: with last.pt removed, --resume goes on from there"
        raise CheckpointError(
            f"{path}: not readable as a checkpoint ({str(error).splitlines()[0]})"
            f"{advice if path != best and best.exists() else ''}"
        ) from error
