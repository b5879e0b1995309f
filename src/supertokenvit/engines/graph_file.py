"""This module reads exported files: graphs that say in their own metadata what is needed to use them."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from supertokenvit_runtime.about import KEY, read_note
from supertokenvit_runtime.sessions import SESSIONS, open_session


def is_graph(path: str | os.PathLike) -> bool:
    """Says whether a path names a file that an engine runs, by its ending."""
    return Path(path).suffix.lower() in SESSIONS


class GraphFile:
    """An exported file in the engine that its ending names, whatever its graph takes.

    Args:
        path: The .onnx or .xml file.
        threads: CPU threads that work on one call.

    Raises:
        SessionError: There is no such file, or the engine cannot read it.
        AboutError: `export` did not write it, or that of a newer version did.
    """

    def __init__(self, path: str | os.PathLike, threads: int) -> None:
        self.path = Path(path)
        self.session = open_session(self.path, threads)
        self.about: dict[str, Any] = read_note(self.session.note(KEY), self.path)

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the answers by their names: `probabilities` [B, K], and what else was exported.

        Args:
            images: uint8 photographs [B, H, W, 3], or float32 [B, 3, H, W], as `about["input"]` says.
        """
        return self.session.outputs(images)
