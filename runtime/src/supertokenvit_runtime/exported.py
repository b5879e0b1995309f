"""An exported file that answers for photographs of one shape."""

import os
from pathlib import Path

import numpy as np

from .about import KEY, read_about
from .sessions import SessionError, open_session


class ExportedFile:
    """An exported file in its engine.

    Args:
        path: The .onnx or .xml file.
        threads: CPU threads that work on one call.

    Raises:
        UserError: It cannot be used.
    """

    def __init__(self, path: str | os.PathLike, threads: int) -> None:
        self.path = Path(path)
        self.session = open_session(self.path, threads)
        self.about = read_about(self.session.note(KEY), self.path)

    def answer(self, photographs: np.ndarray) -> np.ndarray:
        """Returns probabilities [B, K] for photographs, uint8 [B, H, W, 3].

        Raises:
            SessionError: The graph has no such output.
        """
        found = self.session.outputs(photographs)
        if "probabilities" not in found:
            raise SessionError(f"{self.path}: has no output called probabilities; export it anew")
        return found["probabilities"]


def cores() -> int:
    """Returns the CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
