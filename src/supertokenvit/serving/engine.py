"""A trained model of torch as an engine of the server."""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from supertokenvit_runtime.about import About

from ..errors import UserError
from ..explaining.command import as_row
from ..explaining.drawing import overlay
from ..explaining.explanation import ExplanationError, explain, method_of, network_of
from ..prediction import load
from ..preprocessing import together
from ..tasks import Labels


class ServingError(UserError):
    """A model that cannot be served."""


class TorchEngine:
    """A model folder, in torch.

    Args:
        path: Of the folder.
        threads: CPU threads that work on one call.
        name: What people call the model.

    Raises:
        ServingError: Its answers are not classes of whole images.
    """

    def __init__(self, path: Path, threads: int, *, name: str) -> None:
        torch.set_num_threads(threads)
        self.predictor = load(path)
        self.predictor.name = name
        task, card = self.predictor.task, self.predictor.card
        if not isinstance(task, Labels):
            raise ServingError(f"{name}: a model for {card.task}; only those that name classes can be served")
        self.about = About(
            name,
            self.predictor.classes,
            card.task,
            self.predictor.data_config["input_size"][-1],
            self.predictor.preprocess.enough,
            card.data_license,
            {"scores": card.scores},
            explains=self._explains(),
        )

    def answer(self, photographs: np.ndarray) -> np.ndarray:
        """Returns probabilities [B, K] for photographs, uint8 [B, H, W, 3]."""
        images = [self.predictor.preprocess(Image.fromarray(photograph)) for photograph in photographs]
        with torch.inference_mode():
            return self.predictor.task.probabilities(self.predictor.logits(together(images))).numpy()

    def explain(self, photograph: np.ndarray, target: str | None) -> tuple[dict[str, Any], bytes]:
        """Explains the answer for a photograph, uint8 [H, W, 3].

        Returns:
            The explanation for JSON with the value of each patch, and the photograph with it painted over as PNG.
        """
        image = Image.fromarray(photograph)
        (found,) = explain(self.predictor, image, target)
        box = [found.box.left, found.box.top, found.box.right, found.box.bottom]
        told = as_row(found) | {"patches": found.patches.round(6).tolist(), "box": box, "size": list(found.size)}
        del told["file"]  # requests have no file names
        picture = io.BytesIO()
        overlay(image, found).save(picture, "PNG", compress_level=1)
        return told, picture.getvalue()

    def _explains(self) -> bool:
        try:
            method_of(self.predictor, network_of(self.predictor), None)
        except ExplanationError:
            return False
        return True
