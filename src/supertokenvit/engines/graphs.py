"""This module exports torch models to ONNX and quantises the graphs to int8 for ONNX Runtime and OpenVINO."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from .packages import need, quiet


def export_onnx(model: nn.Module, images: Tensor, path: Path) -> None:
    """Exports a model with torch's exporter, for images of one shape.

    Args:
        model: The model, in eval mode.
        images: Example images of the shape to export for, [N, C, H, W].
        path: The .onnx file to write.

    Raises:
        EngineError: onnxscript is not installed.
    """
    need("onnxscript")
    with quiet():
        torch.onnx.export(model, (images,), str(path), dynamo=True, external_data=False, verbose=False)


def quantise_onnx(graph: Path, to: Path) -> None:
    """Quantises matrix products to int8, with scales that ONNX Runtime computes at run time.

    Convolutions stay in fp32, because quantised ones are slower.

    Args:
        graph: An .onnx file.
        to: The .onnx file to write.

    Raises:
        EngineError: ONNX Runtime is not installed.
    """
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
    """Names the products with a stack of constant matrices, which ONNX Runtime cannot quantise per column."""
    onnx = need("onnx")
    inside = onnx.load(str(graph)).graph
    stacked = {weight.name for weight in inside.initializer if len(weight.dims) > 2}
    return [node.name for node in inside.node if node.op_type == "MatMul" and stacked & set(node.input)]


def quantise_openvino(graph: Path, to: Path, batches: Sequence[np.ndarray]) -> None:
    """Quantises a graph with NNCF's post-training quantisation for transformers.

    Args:
        graph: An .onnx file.
        to: The .xml file to write.
        batches: Images [N, C, H, W] from which the scales are computed.

    Raises:
        EngineError: NNCF or OpenVINO is not installed.
    """
    nncf, openvino = need("nncf"), need("openvino")
    model = openvino.Core().read_model(str(graph))
    result = nncf.quantize(
        model, nncf.Dataset(batches), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(batches)
    )
    openvino.save_model(result, str(to), compress_to_fp16=False)
