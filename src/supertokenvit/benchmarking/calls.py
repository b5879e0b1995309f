"""This module makes a callable to time of a contestant: one inference or one training step in its engine."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from ..engines.graphs import export_onnx, quantise_onnx, quantise_openvino
from ..engines.onnx_engine import OnnxNetwork
from ..engines.openvino_engine import OpenVinoNetwork
from ..engines.packages import quiet
from ..machine import DTYPES, write_out_attention
from ..products import fastest
from ..tasks import Classification
from ..training.step import TrainingStep
from .cost import channels_of, make_model
from .options import BenchmarkError, Contestant

CALIBRATION_BATCHES = 4
LR = 1e-6  # small, so that the weights stay what they are over many steps


@dataclass(frozen=True)
class Job:
    """Describes the task that all contestants of one table share.

    Args:
        mode: "inference", "train" or "latency".
        batch: Images per call.
        img_size: Side of the images in pixels.
        device: torch's name of the device.
        threads: CPU threads.
        folder: The folder for exported graphs.
    """

    mode: str
    batch: int
    img_size: int
    device: str
    threads: int
    folder: str


def make_call(contestant: Contestant, job: Job) -> Callable[[], Any]:
    """Makes one inference of a batch, or one training step, of random images.

    Raises:
        BenchmarkError: The engine cannot do that.
        EngineError: It is not installed.
    """
    torch.manual_seed(0)
    if contestant.engine in ("eager", "compile"):
        return torch_call(contestant, job)
    if job.mode == "train":
        raise BenchmarkError(f"{contestant.engine} does not train")
    path, images = exported(contestant, job), random_images(job)
    network: OpenVinoNetwork | OnnxNetwork
    if contestant.engine.startswith("openvino"):
        network = OpenVinoNetwork(path, job.threads, images.shape)
    else:
        network = OnnxNetwork(path, job.threads)
    if network.photographs:  # the graph resizes, normalises and looks at the views, too
        images = np.ascontiguousarray((40 * images + 128).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1))
    return lambda: network.run(images)


def random_images(job: Job, channels: int = 3, seed: int = 0) -> np.ndarray:
    """Makes random images [batch, channels, img_size, img_size]."""
    shape = (job.batch, channels, job.img_size, job.img_size)
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def torch_call(contestant: Contestant, job: Job) -> Callable[[], Any]:
    """Makes a call of torch, eager or compiled, with weights and images in the contestant's dtype."""
    device, dtype = torch.device(job.device), DTYPES[contestant.dtype]
    layout = torch.channels_last if contestant.channels_last else torch.contiguous_format
    model = make_model(contestant, job.img_size)
    images = torch.from_numpy(random_images(job, channels_of(model))).to(device, memory_format=layout)
    model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    if job.mode == "train":
        if contestant.by_convolution:
            raise BenchmarkError("by_convolution is for inference and latency")
        return training_call(model, images, contestant.dtype, compiled=contestant.engine == "compile")
    model.to(dtype)
    images = images.to(dtype)
    call: Any = torch.compile(model) if contestant.engine == "compile" else model

    def infer() -> None:
        with torch.inference_mode(), fastest(contestant.by_convolution):
            call(images)

    return infer


def training_call(model: nn.Module, images: torch.Tensor, precision: str, compiled: bool) -> Callable[[], Any]:
    """Makes the training step that `supertokenvit train` makes, with AdamW, which every model takes."""
    model.train()
    write_out_attention(model, images.device, precision)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LR)
    targets = torch.zeros(len(images), dtype=torch.long, device=images.device)
    called = torch.compile(model) if compiled else model
    step = TrainingStep(called, optimizer, Classification(), images.device, precision=precision)
    return lambda: step(images, targets, lr=LR)


def exported(contestant: Contestant, job: Job) -> Path:
    """Returns the graph that the engine reads; it is made on the first call, for one shape."""
    if contestant.is_file:
        return Path(contestant.model)
    slug = "".join(c if c.isalnum() else "_" for c in contestant.name())
    graph = Path(job.folder) / f"{slug}-{job.batch}x{job.img_size}.onnx"
    if not graph.exists():
        model = make_model(contestant, job.img_size)
        export_onnx(model, torch.from_numpy(random_images(job, channels_of(model))), graph)
    if contestant.engine in ("onnx", "openvino"):
        return graph
    quantised = graph.with_suffix(".int8.onnx" if contestant.engine == "onnx-int8" else ".int8.xml")
    if not quantised.exists():
        with quiet():
            if contestant.engine == "onnx-int8":
                quantise_onnx(graph, quantised)
            else:
                random = [random_images(job, seed=1 + number) for number in range(CALIBRATION_BATCHES)]
                quantise_openvino(graph, quantised, random)
    return quantised
