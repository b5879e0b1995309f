"""Images in, rows out: the one path that every use of a trained model takes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from .data.augmentation import normalize
from .data.decode import IMAGE_ENDINGS, BadImage, decode, printable
from .data.loading import Preprocess
from .errors import UserError
from .run_folder import TrainedModel


class PredictionError(UserError):
    """A request that cannot be answered at all."""


@dataclass
class Row:
    """The answer for one file: the likeliest classes with their probabilities, or what is wrong with it."""

    file: str
    labels: list[str]
    probabilities: list[float]
    error: str | None = None


def find_images(paths: Sequence[str]) -> list[Path]:
    """Files as named, and every image below the folders.

    Raises:
        PredictionError: A folder without images.
    """
    files: list[Path] = []
    for path in map(Path, paths):
        if path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in IMAGE_ENDINGS and p.is_file())
            if not found:
                raise PredictionError(f"{path}: no image in this folder")
            files += found
        else:
            files.append(path)
    return files


def views(images: torch.Tensor, tta: str) -> list[tuple[float, torch.Tensor]]:
    """Images [N, 3, S, S] as they are to be looked at, with the weights of the answers; after Keller Jordan's airbench.

    Args:
        images: Normalised.
        tta: "none", "flip" (mirror images too) or "shift" (also moved by a 32nd of the side, up left and down right).
    """
    if tta == "none":
        return [(1.0, images)]
    moved = [(1.0, images)]
    if tta == "shift":
        by = max(1, images.shape[-1] // 32)
        padded = F.pad(images, [by] * 4, mode="reflect")
        moved = [(0.5, images), (0.25, padded[..., 2 * by :, 2 * by :]), (0.25, padded[..., : -2 * by, : -2 * by])]
    return [(weight / 2, view) for weight, image in moved for view in (image, image.flip(3))]


class Predictor:
    """A trained model that answers for image files.

    Args:
        trained: From run_folder.load_model.
        device: Where to compute.

    Raises:
        PredictionError: Its classes have no names.
    """

    def __init__(self, trained: TrainedModel, device: str | torch.device = "cpu") -> None:
        named, there = len(trained.classes), getattr(trained.model, "num_classes", None)
        if named != there:
            raise PredictionError(
                f"{trained.path}: {named} names for {there} classes: write them into label_names of its config.json"
            )
        self.trained = trained
        self.device = torch.device(device)
        self.model = trained.model.to(self.device).eval()
        self.preprocess = Preprocess(trained.data_config)

    @torch.inference_mode()
    def logits(self, images: torch.Tensor) -> torch.Tensor:
        """uint8 [N, 3, S, S] -> float32 [N, K] on the CPU"""
        config = self.trained.data_config
        x = normalize(images.to(self.device), config["mean"], config["std"])
        return sum(weight * self.model(view).float() for weight, view in views(x, self.trained.tta)).cpu()

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """Softmax, or sigmoid for a model of several labels."""
        return logits.sigmoid() if self.trained.multi_label else logits.softmax(-1)

    def predict(self, files: Sequence[Path], topk: int = 5, batch_size: int = 32) -> Iterator[Row]:
        """A row for each file, in order; a file that cannot be read gives a row with its error."""
        topk = min(topk, len(self.trained.classes))
        for start in range(0, len(files), batch_size):
            rows: list[Row] = []
            images: list[torch.Tensor] = []
            for file in files[start : start + batch_size]:
                try:
                    images.append(self.preprocess(decode(file.read_bytes(), str(file))))
                    rows.append(Row(printable(file), [], []))
                except BadImage as error:
                    rows.append(Row(printable(file), [], [], error.reason))
                except OSError as error:
                    rows.append(Row(printable(file), [], [], error.strerror or str(error)))
            if images:
                top = self.probabilities(self.logits(torch.stack(images))).topk(topk)
                good = [row for row in rows if row.error is None]
                for row, values, indices in zip(good, top.values.tolist(), top.indices.tolist(), strict=True):
                    row.probabilities, row.labels = values, [self.trained.classes[i] for i in indices]
            yield from rows
