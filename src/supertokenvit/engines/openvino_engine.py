"""A network in OpenVINO."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from .packages import need


class OpenVinoNetwork:
    """An .xml or .onnx file as a callable, on the CPU, in fp32 but for what is quantised.

    Args:
        path: Of the file.
        threads: For one answer.
        shape: Of all images that will come, [N, C, H, W], for which it is compiled; None keeps the file's own.
    """

    def __init__(self, path: Path, threads: int, shape: Sequence[int] | None = None) -> None:
        openvino = need("openvino")
        core = openvino.Core()
        settings = {
            "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
        }  # fmt: skip
        model = core.read_model(str(path))
        if shape is not None:
            model.reshape(list(shape))
        self.request = core.compile_model(model, "CPU", settings).create_infer_request()

    def run(self, images: np.ndarray) -> np.ndarray:
        """Answers for normalised images, float32 [N, C, H, W], with logits [N, K]."""
        return self.request.infer([images])[0]

    def __call__(self, images: Tensor) -> Tensor:
        """Answers as `run` does, for and with tensors."""
        return torch.from_numpy(self.run(images.detach().contiguous().numpy()).copy())
