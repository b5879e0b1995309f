"""This module makes a predictor give what its classifier sees beside its answers, from one pass over the image."""

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor, nn

from ..engines.torch_engine import TorchNetwork
from ..errors import UserError
from ..prediction import GraphPredictor, Prediction, Predictor
from ..preprocessing import together


class EmbeddingError(UserError):
    """Reports a model that gives no embeddings."""


@dataclass
class Embedded(Prediction):
    """An answer with what the classifier saw."""

    embedding: list[float] | None = None
    """The mean over the views of the features before the classifier [C]; None where there is no answer."""


class LogitsAndFeatures(nn.Module):
    """Gives logits and the features before the classifier behind each other, [N, K + C]: both are means over views.

    Args:
        model: timm's network.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Tensor:
        """Answers for normalised images [N, 3, H, W]."""
        features = self.model.forward_features(images)
        logits = self.model.forward_head(features)
        return torch.cat([logits.float(), self.model.forward_head(features, pre_logits=True).float()], dim=1)


class EmbeddingGraph(GraphPredictor):
    """An exported file that gives logits and features behind each other, [N, K + C]."""

    def run(self, images: Tensor) -> Tensor:
        """Answers for what the graph takes."""
        found = {name: torch.from_numpy(value) for name, value in self.file(images.contiguous().numpy()).items()}
        return torch.cat([self.task.logits_of(found["probabilities"]), found["embedding"]], dim=1)


class EmbeddingTask:
    """A task of labels whose answers have embeddings; it is asked by a predictor of logits and features.

    Args:
        task: The task itself.
    """

    def __init__(self, task: Any) -> None:
        self.task, self.heads, self.at_once, self.logits_of = task, task.heads, task.at_once, task.logits_of

    def predictions(
        self, predictor: Predictor, names: list[str], images: list[Tensor], sizes: list[tuple[int, int]], topk: int
    ) -> list[Embedded]:
        """Names the likeliest classes and adds the embeddings; see tasks.Task.predictions."""
        both = predictor.logits(together(images))
        logits, features = both[:, : len(predictor.classes)], both[:, len(predictor.classes) :]
        answered = SimpleNamespace(logits=lambda _: logits, classes=predictor.classes)
        rows = self.task.predictions(answered, names, images, sizes, topk)
        return [
            Embedded(**vars(row), embedding=values if row.error is None else None)
            for row, values in zip(rows, features.tolist(), strict=True)
        ]

    def unanswered(self, name: str, reason: str) -> Embedded:
        """Names no class."""
        return Embedded(name, [], [], reason)


def with_embeddings(predictor: Predictor) -> Predictor:
    """Returns a predictor whose answers are Embedded.

    Raises:
        EmbeddingError: The model gives no features, or the file was exported without them.
    """
    if predictor.task.heads:
        raise EmbeddingError(f"--embeddings: not for {predictor.card.task}, whose answers have places in the image")
    if isinstance(predictor, GraphPredictor):
        if "embedding" not in predictor.file.about["outputs"]:
            raise EmbeddingError(
                f"{predictor.file.path}: has no output embedding; export the model anew with --embedding true"
            )
        made: Predictor = EmbeddingGraph(predictor.file)
    else:
        network: Any = predictor.network
        both = LogitsAndFeatures(network.model)
        again = TorchNetwork(both, network.device, network.precision, by_convolution=network.by_convolution)
        made = Predictor(again, predictor.classes, predictor.data_config, predictor.card, predictor.name)
    made.task = EmbeddingTask(made.task)
    return made
