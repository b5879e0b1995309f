"""From a contestant to something that can be called: one inference or one training step in some engine."""

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..machine import DTYPES, autocast, write_out_attention
from .cost import channels_of, make_model
from .plan import BenchmarkError, Contestant

CALIBRATION_BATCHES = 4


@dataclass(frozen=True)
class Job:
    """What every contestant of a table does.

    Args:
        mode: "inference", "train" or "latency".
        batch: Images at once.
        img_size: Side in pixels.
        device: Of torch.
        threads: Of the CPU.
        folder: For exported graphs.
    """

    mode: str
    batch: int
    img_size: int
    device: str
    threads: int
    folder: str


def make_call(contestant: Contestant, job: Job) -> Callable[[], Any]:
    """One inference of a batch, or one training step, of random images.

    Raises:
        BenchmarkError: The engine cannot do that, or is not installed.
    """
    torch.manual_seed(0)
    if contestant.engine in ("eager", "compile"):
        return torch_call(contestant, job)
    if job.mode == "train":
        raise BenchmarkError(f"{contestant.engine} does not train")
    path = exported(contestant, job)
    images = random_images(job)
    return (
        openvino_call(path, images, job) if contestant.engine.startswith("openvino") else onnx_call(path, images, job)
    )


def random_images(job: Job, channels: int = 3) -> np.ndarray:
    """[batch, channels, img_size, img_size]"""
    shape = (job.batch, channels, job.img_size, job.img_size)
    return np.random.default_rng(0).standard_normal(shape, dtype=np.float32)


def torch_call(contestant: Contestant, job: Job) -> Callable[[], Any]:
    """Eager or compiled."""
    device, dtype = torch.device(job.device), DTYPES[contestant.dtype]
    layout = torch.channels_last if contestant.channels_last else torch.contiguous_format
    model = make_model(contestant, job.img_size)
    images = torch.from_numpy(random_images(job, channels_of(model))).to(device, memory_format=layout)
    model.to(device=device, memory_format=layout)  # type: ignore[call-overload]
    if job.mode == "train":
        return training_step(model, images, contestant.dtype, compiled=contestant.engine == "compile")
    model.to(dtype)
    images = images.to(dtype)
    call: Any = torch.compile(model) if contestant.engine == "compile" else model

    def infer() -> None:
        with torch.inference_mode():
            call(images)

    return infer


def training_step(model: nn.Module, images: torch.Tensor, precision: str, compiled: bool) -> Callable[[], Any]:
    """Forward, backward and AdamW's update, under autocast for less than fp32."""
    model.train()
    write_out_attention(model, images.device, precision)  # as `supertokenvit train` does
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6)
    targets = torch.zeros(len(images), dtype=torch.long, device=images.device)
    call: Any = torch.compile(model) if compiled else model

    def step() -> None:
        with autocast(precision, images.device):
            loss = F.cross_entropy(call(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def exported(contestant: Contestant, job: Job) -> Path:
    """The graph that the engine reads; made on the first call, of a fixed size."""
    if contestant.is_file:
        return Path(contestant.model)
    slug = "".join(c if c.isalnum() else "_" for c in contestant.name())
    graph = Path(job.folder) / f"{slug}-{job.batch}x{job.img_size}.onnx"
    if not graph.exists():
        export_onnx(contestant, job, graph)
    if contestant.engine in ("onnx", "openvino"):
        return graph
    quantised = graph.with_suffix(".int8.onnx" if contestant.engine == "onnx-int8" else ".int8.xml")
    if not quantised.exists():
        quantise = quantise_onnx if contestant.engine == "onnx-int8" else quantise_openvino
        with quiet():
            quantise(graph, quantised, job)
    return quantised


def export_onnx(contestant: Contestant, job: Job, path: Path) -> None:
    """torch's exporter, of a fixed size."""
    need("onnxscript")
    model = make_model(contestant, job.img_size)
    images = torch.from_numpy(random_images(job, channels_of(model)))
    with quiet():
        torch.onnx.export(model, (images,), str(path), dynamo=True, external_data=False, verbose=False)


def quantise_onnx(graph: Path, to: Path, job: Job) -> None:
    """Matrix products in int8 with scales found as it runs; a quantised convolution is slower than an fp32 one."""
    need("onnxruntime")
    from onnxruntime.quantization import QuantType, quantize_dynamic
    from onnxruntime.quantization.shape_inference import quant_pre_process

    prepared = to.with_suffix(".prepared.onnx")
    quant_pre_process(str(graph), str(prepared), skip_symbolic_shape=True)
    quantize_dynamic(
        str(prepared),
        str(to),
        op_types_to_quantize=["MatMul", "Gemm"],
        nodes_to_exclude=stacked_products(prepared),
        weight_type=QuantType.QInt8,
        per_channel=True,
        reduce_range=not torch.cpu._is_vnni_supported(),  # without it two products of full range overflow 16 bits
    )


def stacked_products(graph: Path) -> list[str]:
    """Names of the products with a stack of constant matrices, for which ONNX Runtime has no zero points by column."""
    import onnx

    inside = onnx.load(str(graph)).graph
    stacked = {weight.name for weight in inside.initializer if len(weight.dims) > 2}
    return [node.name for node in inside.node if node.op_type == "MatMul" and stacked & set(node.input)]


def quantise_openvino(graph: Path, to: Path, job: Job) -> None:
    """NNCF's post-training quantisation for transformers, with scales from random images."""
    need("nncf")
    import nncf
    import openvino

    model = openvino.Core().read_model(str(graph))
    generator = np.random.default_rng(1)
    shape = (job.batch, 3, job.img_size, job.img_size)
    batches = [generator.standard_normal(shape, dtype=np.float32) for _ in range(CALIBRATION_BATCHES)]
    result = nncf.quantize(
        model, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER, subset_size=CALIBRATION_BATCHES
    )
    openvino.save_model(result, str(to), compress_to_fp16=False)


def onnx_call(path: Path, images: np.ndarray, job: Job) -> Callable[[], Any]:
    """ONNX Runtime on the CPU."""
    need("onnxruntime")
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = job.threads
    # a waiting pool that spins would take the cores from whoever has its turn
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda: session.run(None, {name: images})


def openvino_call(path: Path, images: np.ndarray, job: Job) -> Callable[[], Any]:
    """OpenVINO on the CPU, in fp32 but for what is quantised."""
    need("openvino")
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_NUM_THREADS": job.threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "f32",
    }  # fmt: skip
    model = core.read_model(str(path))
    model.reshape(list(images.shape))
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer([images])


def need(package: str) -> None:
    """Says which extra to install if a package is not there."""
    try:
        with quiet():
            __import__(package)
    except ImportError as error:
        raise BenchmarkError(f"{package} is not installed: pip install 'supertokenvit[export]'") from error


@contextlib.contextmanager
def quiet():
    """Keeps libraries from talking into the table."""
    os.environ.setdefault("TQDM_DISABLE", "1")
    level = logging.root.manager.disable
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)
