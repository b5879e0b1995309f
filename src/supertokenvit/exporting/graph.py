"""What an exported graph computes: photographs in, probabilities out."""

from pathlib import Path
from typing import Any

import torch
from timm.models import reparameterize_model
from torch import Tensor, nn

from ..engines.packages import need, quiet
from ..model_folder import TrainedModel
from ..preprocessing import views
from ..tasks import Labels
from .resizing import PhotographResize


class ExportedNetwork(nn.Module):
    """A trained model with everything around it: resizing, normalising, views, probabilities.

    Args:
        trained: The model, in eval mode.
        task: Its task, which makes probabilities of logits.
    """

    def __init__(self, trained: TrainedModel, task: Labels) -> None:
        super().__init__()
        self.resize = PhotographResize(trained.data_config)
        mean, std = (torch.tensor(trained.data_config[name]).view(1, 3, 1, 1) * 255 for name in ("mean", "std"))
        self.register_buffer("mean", mean, persistent=False)
        self.register_buffer("std", std, persistent=False)
        self.network: nn.Module = reparameterize_model(trained.model)
        self.tta, self.probabilities = trained.card.tta, task.probabilities

    def forward(self, photographs: Tensor) -> Tensor:
        """uint8 [B, H, W, 3] -> probabilities [B, K]"""
        x = (self.resize(photographs) - self.mean) / self.std
        seen = views(x, self.tta)
        logits = self.network(torch.cat([view for _, view in seen])).unflatten(0, (len(seen), -1))
        weights = torch.tensor([weight for weight, _ in seen]).view(-1, 1, 1)
        return self.probabilities((weights * logits).sum(0))


def export(trained: TrainedModel, task: Labels, path: Path) -> None:
    """Writes the graph of a trained model as ONNX."""
    need("onnxscript")
    network: Any = ExportedNetwork(trained, task).eval()
    photographs = torch.zeros(2, 75, 61, 3, dtype=torch.uint8)
    dims = {0: torch.export.Dim.DYNAMIC, 1: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC}
    with quiet(), torch.no_grad():
        torch.onnx.export(
            network, (photographs,), str(path), dynamo=True, external_data=False, verbose=False, opset_version=20,
            input_names=["photographs"], output_names=["probabilities"],
            dynamic_shapes={"photographs": {0: "batch", 1: "height", 2: "width"}},
        )  # fmt: skip
