"""This module runs a network in OpenVINO."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .packages import need


class OpenVinoNetwork:
    """Runs an .xml or .onnx file on the CPU; what is not quantised is computed in fp32.

    Args:
        path: The .xml or .onnx file.
        threads: CPU threads that work on one call.
        shape: Compile for images of this one shape [N, C, H, W], or photographs [N, H, W, C] of that size if it takes
            those; None keeps the shape in the file.
    """

    def __init__(self, path: Path, threads: int, shape: Sequence[int] | None = None) -> None:
        openvino = need("openvino")
        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
        }  # fmt: skip
        model = core.read_model(str(path))
        self.photographs = model.input(0).get_element_type() == openvino.Type.u8
        if shape is not None:
            N, C, H, W = shape
            model.reshape([N, H, W, C] if self.photographs else [N, C, H, W])
        self.request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(self, images: np.ndarray) -> np.ndarray:
        """Returns logits [N, K] for normalised images, float32 [N, C, H, W], without converting them."""
        return self.request.infer([images])[0]

    def __call__(self, images: Tensor) -> Tensor:
        """Returns logits [N, K] on the CPU for images [N, C, H, W] on any device, converting both for `run`."""
        return torch.from_numpy(self.run(images.detach().cpu().contiguous().numpy()).copy())
