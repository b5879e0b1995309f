"""This module runs a network in ONNX Runtime."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .packages import need


class OnnxNetwork:
    """Runs an .onnx file on the CPU.

    Args:
        path: The .onnx file.
        threads: CPU threads that work on one call.
    """

    def __init__(self, path: Path, threads: int) -> None:
        onnxruntime = need("onnxruntime")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        # an idle pool that spins would take cores from the model whose turn it is
        options.add_session_config_entry("session.force_spinning_stop", "1")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        self.name = self.session.get_inputs()[0].name
        self.photographs = self.session.get_inputs()[0].type == "tensor(uint8)"

    def run(self, images: np.ndarray) -> np.ndarray:
        """Returns logits [N, K] for normalised images, float32 [N, C, H, W], without converting them."""
        return self.session.run(None, {self.name: images})[0]

    def __call__(self, images: Tensor) -> Tensor:
        """Returns logits [N, K] on the CPU for images [N, C, H, W] on any device, converting both for `run`."""
        return torch.from_numpy(self.run(images.detach().cpu().contiguous().numpy()))
