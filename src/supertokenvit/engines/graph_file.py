"""This module reads exported files: graphs that say in their own metadata what is needed to use them."""

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from .onnx_engine import OnnxNetwork
from .openvino_engine import OpenVinoNetwork
from .packages import EngineError

KEY = "supertokenvit"
FORMAT = 1
ENGINES: dict[str, Any] = {".onnx": OnnxNetwork, ".xml": OpenVinoNetwork}


def is_graph(path: str | os.PathLike) -> bool:
    """Says whether a path names a file that an engine runs, by its ending."""
    return Path(path).suffix.lower() in ENGINES


class GraphFile:
    """An exported file in the engine that its ending names.

    Args:
        path: The .onnx or .xml file.
        threads: CPU threads that work on one call.

    Raises:
        EngineError: There is no such file, the engine cannot read it, or `export` did not write it.
    """

    def __init__(self, path: str | os.PathLike, threads: int) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise EngineError(f"{path}: there is no such file")
        try:
            self.network = ENGINES[self.path.suffix.lower()](self.path, threads)
        except EngineError:
            raise
        except Exception as error:  # each engine has errors of its own
            raise EngineError(f"{path}: cannot be read ({str(error).strip().splitlines()[0]})") from None
        text = self.network.note(KEY)
        if text is None:
            raise EngineError(f"{path}: was not written by supertokenvit export, so its classes are not known")
        self.about: dict[str, Any] = json.loads(text)
        if self.about["format"] > FORMAT:
            raise EngineError(f"{path}: a newer version wrote it; update supertokenvit")

    def __call__(self, images: np.ndarray) -> dict[str, np.ndarray]:
        """Returns the answers by their names: `probabilities` [B, K], and what else was exported.

        Args:
            images: uint8 photographs [B, H, W, 3], or float32 [B, 3, H, W], as `about["input"]` says.
        """
        return self.network.outputs(images)
