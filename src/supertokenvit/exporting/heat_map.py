"""A graph that says what in a photograph spoke for a class: the default explanation, with its backward pass in it."""

import copy
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.models import reparameterize_model
from torch import Tensor, nn
from torch.fx import GraphModule
from torch.fx.experimental.proxy_tensor import make_fx

from supertokenvit_runtime.about import EXPLANATION, FORMAT, KEY

from ..engines.packages import need, quiet
from ..explaining.explanation import explain, follows_super_tokens, network_of, seen_both_ways
from ..explaining.methods import composed_gradients
from ..prediction import Predictor
from .graph import EXAMPLE, OPSET, leave_out_origins
from .options import reason_of
from .parity import Check, largest_difference
from .resizing import PhotographResize

FILE = "map.onnx"
SAME = 0.02  # of the largest value of a map: a pixel that is rounded otherwise moves a map more than an answer
SMALL = 1024  # numbers of a weight that are stored as float32 all the same
aten = torch.ops.aten


def add_map(
    folder: Path, predictor: Predictor, pictures: Sequence[Image.Image], say: Callable[[str], None]
) -> list[Check]:
    """Writes the graph of heat maps into a folder, and keeps it only if it equals `explain`.

    Args:
        folder: Of the exported model.
        predictor: With the trained model.
        pictures: Photographs to compare on.
        say: Called with a line for each step.

    Returns:
        What was checked; nothing where there is no graph, which `say` was told the reason of.
    """
    if not follows_super_tokens(predictor):
        say("no heat maps: the model has no class token that reads Super tokens")
        return []
    side, patch = predictor.preprocess.side, network_of(predictor).architecture.stride
    if side[0] % patch or side[1] % patch:
        say(f"no heat maps: {patch} pixels of a patch do not divide the {side[1]} of an image")
        return []
    say("exporting its heat maps, and checking them")
    path = folder / FILE
    try:
        write_map(ExportedMap(predictor).eval(), path)
        checks = compare_maps(path, predictor, pictures)
    except Exception as error:  # torch's exporter raises nearly anything
        path.unlink(missing_ok=True)
        say(f"no heat maps: they cannot be exported ({reason_of(error)})")
        return []
    failed = [check for check in checks if not check.passed]
    if failed:
        path.unlink()
        say(f"no heat maps: {failed[0].line()}")
        return []
    return checks


class ExportedMap(nn.Module):
    """The map of one photograph, of any size, for one class.

    Args:
        predictor: Of a Super Token Transformer in torch. Its network is copied.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, predictor: Predictor) -> None:
        super().__init__()
        self.resize = PhotographResize(predictor.data_config)
        for name in ("mean", "std"):
            values = torch.tensor(predictor.data_config[name]).view(1, 3, 1, 1) * 255
            self.register_buffer(name, values, persistent=False)
        model: Any = copy.deepcopy(network_of(predictor))
        self.maps = traced(reparameterize_model(model, inplace=True), self.resize.side, predictor.card.tta)

    def forward(self, photographs: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """Explains the class with number `target` int64 [1] of a photograph uint8 [1, H, W, 3].

        Returns:
            A value for each patch [1, h, w], and the box of the photograph that they cover: its left, upper, right and
            lower edge [4], as fractions of the photograph's width and height.
        """
        x = (self.resize(photographs) - self.mean) / self.std
        return self.maps(x, target), self.resize.box(photographs)


def traced(model: nn.Module, side: tuple[int, int], tta: str) -> GraphModule:
    """Writes forward and backward pass of the default explanation down as one graph of operations.

    Args:
        model: A Super Token Transformer in eval mode.
        side: Height and width of the images that it sees.
        tta: Views of the answer.

    Returns:
        Images [1, 3, H, W] and the numbers of their classes [1] -> a value for each patch [1, h, w].
    """
    model.requires_grad_(False)

    def maps(images: Tensor, target: Tensor) -> Tensor:
        images = images.detach().requires_grad_()
        return seen_both_ways(composed_gradients, model, images, target, tta).patches

    table = {aten.convolution_backward.default: backward_of_convolution}
    graph = make_fx(maps, decomposition_table=table)(torch.zeros(1, 3, *side), torch.zeros(1, dtype=torch.int64))
    for node in list(graph.graph.nodes):
        if node.target in (aten.detach.default, aten.alias.default):  # they say nothing in a graph without gradients
            node.replace_all_uses_with(node.args[0])
    graph.graph.eliminate_dead_code()
    graph.recompile()
    return graph


def backward_of_convolution(
    gradient: Tensor,
    x: Tensor,
    weight: Tensor,
    bias_sizes: Any,
    stride: Sequence[int],
    padding: Sequence[int],
    dilation: Sequence[int],
    transposed: bool,
    output_padding: Sequence[int],
    groups: int,
    mask: Sequence[bool],
) -> tuple[Tensor, None, None]:
    """Computes the gradient of a convolution's input, that of stride 1: ONNX has no backward pass of its own."""
    assert list(mask) == [True, False, False] and set(stride) == {1} and not transposed
    return (
        aten.convolution.default(gradient, weight, None, stride, padding, dilation, True, output_padding, groups),
        None,
        None,
    )


def write_map(exported: ExportedMap, path: Path) -> None:
    """Writes the graph as one ONNX file, its large weights as float16.

    Raises:
        EngineError: onnx or onnxscript is not installed.
    """
    onnx = need("onnx")
    need("onnxscript")
    example = torch.zeros(1, *EXAMPLE[1:], 3, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64)
    with quiet(), torch.no_grad():
        torch.onnx.export(
            exported,
            example,
            str(path),
            dynamo=True,
            external_data=False,
            verbose=False,
            opset_version=OPSET,
            input_names=["photographs", "target"],
            output_names=["map", "box"],
            dynamic_shapes=({1: "height", 2: "width"}, None),
        )
    graph = onnx.load(str(path))
    halve_weights(graph, onnx)
    leave_out_origins(graph)
    onnx.helper.set_model_props(graph, {KEY: json.dumps({"format": FORMAT, "task": EXPLANATION})})
    onnx.save(graph, str(path))


def halve_weights(graph: Any, onnx: Any) -> None:
    """Stores large weights as float16, which a Cast makes float32 again when the file is opened: half the download."""
    casts = []
    for weight in graph.graph.initializer:
        if weight.data_type == onnx.TensorProto.FLOAT and np.prod(weight.dims) > SMALL:
            name, stored = weight.name, f"{weight.name}.float16"
            values = onnx.numpy_helper.to_array(weight).astype(np.float16)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, stored))
            casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.graph.node]
    del graph.graph.node[:]
    graph.graph.node.extend(nodes)


def compare_maps(path: Path, predictor: Predictor, pictures: Sequence[Image.Image]) -> list[Check]:
    """Compares the maps of photographs with those of `explain`, for the likeliest class or the next one in turns.

    A class that little spoke for has a map of nearly 0: differences are taken as fractions of no less than a hundredth
    of the largest value of all maps.

    Args:
        path: Of the file.
        predictor: That it was made of.
        pictures: Photographs of any size.
    """
    session = need("onnxruntime").InferenceSession(str(path), providers=["CPUExecutionProvider"])
    differences, largest, moved = [], [], 0.0
    for number, picture in enumerate(pictures):
        both = explain(predictor, picture, topk=2)
        wanted = both[number % len(both)]
        target = np.array([predictor.classes.index(wanted.label)])
        inputs = {"photographs": np.asarray(picture)[None], "target": target}
        (found,), box = session.run(["map", "box"], inputs)
        differences.append(largest_difference(found, wanted.patches, relative=False))
        largest.append(float(np.abs(wanted.patches).max()))
        edges = np.array([wanted.box.left, wanted.box.top, wanted.box.right, wanted.box.bottom])
        moved = max(moved, float(np.abs(box - edges / np.tile(picture.size, 2)).max()))
    least = max(max(largest) / 100, 1e-12)
    worst = max(difference / max(value, least) for difference, value in zip(differences, largest, strict=True))
    return [
        Check(f"heat maps of {len(pictures)} photographs, as fractions of their largest value", worst, SAME),
        Check(f"places of {len(pictures)} heat maps, as fractions of the photograph", moved, 1e-5),
    ]
