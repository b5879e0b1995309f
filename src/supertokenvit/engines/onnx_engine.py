"""A network in ONNX Runtime."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .packages import need


class OnnxNetwork:
    """An .onnx file as a callable, on the CPU.

    Args:
        path: Of the file.
        threads: For one answer.
    """

    def __init__(self, path: Path, threads: int) -> None:
        onnxruntime = need("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # a waiting pool that spins would take the cores from whoever has its turn
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name

    def run(self, images: np.ndarray) -> np.ndarray:
        """Answers for normalised images, float32 [N, C, H, W], with logits [N, K]."""
        return self.session.run(None, {self.name: images})[0]

    def __call__(self, images: Tensor) -> Tensor:
        """Answers as `run` does, for and with tensors."""
        return torch.from_numpy(self.run(images.detach().contiguous().numpy()))
