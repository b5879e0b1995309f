"""What an exported graph computes, and how it becomes a file."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from timm.models import reparameterize_model
from torch import Tensor, nn

from supertokenvit_runtime.about import FORMAT, KEY

from ..engines.packages import need, quiet
from ..model_folder import TrainedModel
from ..preprocessing import views
from ..tasks import Labels
from .resizing import PhotographResize

OPSET = 20
EXAMPLE = (2, 75, 61)  # batch, height and width: none of them a number that the graph could take for a fixed one


class ExportedNetwork(nn.Module):
    """A trained model with what stands around it: resizing, normalising, views and probabilities.

    Args:
        trained: The model in eval mode. BatchNorm and LayerScale go into the weights beside them, in place.
        task: Its task, which makes probabilities of logits.
        photographs: Whether it takes photographs of any size, or else images that are resized and normalised.
        embedding: Whether it gives the features before the classifier too.
    """

    def __init__(self, trained: TrainedModel, task: Labels, *, photographs: bool = True, embedding: bool = False):
        super().__init__()
        self.resize = PhotographResize(trained.data_config) if photographs else None
        for name in ("mean", "std"):
            values = torch.tensor(trained.data_config[name]).view(1, 3, 1, 1) * 255
            self.register_buffer(name, values, persistent=False)
        self.network: Any = reparameterize_model(trained.model, inplace=True)
        self.tta, self.probabilities, self.embedding = trained.card.tta, task.probabilities, embedding

    @property
    def outputs(self) -> list[str]:
        """The names of what it gives."""
        return ["probabilities", *(["embedding"] if self.embedding else [])]

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Answers for photographs uint8 [B, H, W, 3], or normalised images float32 [B, 3, H, W].

        Returns:
            Probabilities [B, K]; with `embedding` also features [B, C]. Both are means over the views.
        """
        x = images if self.resize is None else (self.resize(images) - self.mean) / self.std
        seen = views(x, self.tta)
        weights = torch.tensor([weight for weight, _ in seen]).view(-1, 1, 1)
        features = self.network.forward_features(torch.cat([view for _, view in seen]))
        logits = over_views(self.network.forward_head(features), weights)
        if not self.embedding:
            return (self.probabilities(logits),)
        embedding = over_views(self.network.forward_head(features, pre_logits=True), weights)
        return self.probabilities(logits), embedding


def over_views(answers: Tensor, weights: Tensor) -> Tensor:
    """Takes the weighted mean of [V * B, n] over the views: [B, n]."""
    return (weights * answers.unflatten(0, (len(weights), -1))).sum(0)


def write_onnx(network: ExportedNetwork, about: dict[str, Any], path: Path, shape: Sequence[int] | None) -> None:
    """Writes a network as one ONNX file with all that is needed to use it.

    Args:
        network: In eval mode.
        about: From `about_of`.
        path: Of the file.
        shape: Height and width of the images, where it takes those only; None for any.

    Raises:
        EngineError: onnx or onnxscript is not installed.
    """
    onnx = need("onnx")
    need("onnxscript")
    batch, height, width = EXAMPLE if shape is None else (EXAMPLE[0], *shape)
    if network.resize is not None:
        example, sides = torch.zeros(batch, height, width, 3, dtype=torch.uint8), (1, 2)
    else:
        example, sides = torch.zeros(batch, 3, height, width), (2, 3)
    dims = {0: "batch"} | ({} if shape is not None else dict(zip(sides, ("height", "width"), strict=True)))
    with quiet(), torch.no_grad():
        torch.onnx.export(
            network,
            (example,),
            str(path),
            dynamo=True,
            external_data=False,
            verbose=False,
            opset_version=OPSET,
            input_names=["photographs" if network.resize is not None else "images"],
            output_names=network.outputs,
            dynamic_shapes=(dims,),
        )
    graph = onnx.load(str(path))
    leave_out_origins(graph)
    onnx.helper.set_model_props(graph, {KEY: json.dumps(about)})
    onnx.save(graph, str(path))


def leave_out_origins(graph: Any) -> None:
    """Takes out what torch wrote down of each operation for its own developers: a tenth of a file, with their paths."""
    del graph.graph.value_info[:]
    for node in graph.graph.node:
        del node.metadata_props[:]


def about_of(trained: TrainedModel, name: str, network: ExportedNetwork, enough: int) -> dict[str, Any]:
    """Says what a reader of the exported file has to know.

    Args:
        trained: The model.
        name: For people.
        network: What is exported.
        enough: Pixels of a JPEG's shorter side that are enough (preprocessing.Preprocess.enough).
    """
    config = trained.data_config
    return {
        "format": FORMAT,
        "name": name,
        "classes": trained.classes,
        "task": trained.card.task,
        "input": "photo" if network.resize is not None else "tensor",
        "outputs": network.outputs,
        "pixels": config["input_size"][-1],
        "enough": enough,
        "preprocessing": {key: config[key] for key in sorted(config)},
        "data_license": trained.card.data_license,
        "card": asdict(trained.card),
    }


def write_openvino(graph: Path, path: Path) -> None:
    """Writes an ONNX file as OpenVINO's .xml and .bin, with its note.

    OpenVINO's own conversion of torch's programs is not used: it was wrong in silence where a side has one window.

    Raises:
        EngineError: OpenVINO is not installed.
    """
    onnx, openvino = need("onnx"), need("openvino")
    model = openvino.Core().read_model(str(graph))
    note = {entry.key: entry.value for entry in onnx.load(str(graph)).metadata_props}[KEY]
    model.set_rt_info(note, [KEY])
    openvino.save_model(model, str(path), compress_to_fp16=False)
