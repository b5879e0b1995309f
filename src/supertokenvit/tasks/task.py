"""The one interface of all tasks: network, samples, loss, answers, figures and pictures."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from torch import Tensor, nn

from ..data.sources import Source
from .figures import Evaluation

Why = Callable[[Image.Image, str], Image.Image]  # a photograph and a class -> what spoke for it, painted over it


class Ragged(list):
    """Targets or answers of several images that cannot be stacked: a list with what is asked of a tensor."""

    def __getitem__(self, places: Any) -> Any:
        if isinstance(places, slice):
            return Ragged(super().__getitem__(places))
        if isinstance(places, (Tensor, np.ndarray, list)):
            return Ragged(super(Ragged, self).__getitem__(int(i)) for i in places)
        return super().__getitem__(places)

    def to(self, device: Any) -> "Ragged":
        """Returns the same with every tensor on the device."""
        return Ragged(_moved(item, device) for item in self)

    def tensor_split(self, parts: int) -> list["Ragged"]:
        """Cuts it into parts as torch.Tensor.tensor_split does."""
        return [self[list(part)] for part in np.array_split(np.arange(len(self)), parts)]


def _moved(item: Any, device: Any) -> Any:
    """A tensor, or a dict of tensors, on a device."""
    if isinstance(item, dict):
        return {name: _moved(value, device) for name, value in item.items()}
    return item.to(device) if isinstance(item, Tensor) else item


@dataclass
class Task(ABC):
    """One kind of question to a model.

    The targets of a batch are a tensor, or a Ragged of what cannot be stacked; so are the answers.

    Args:
        class_weights: Weight of each class in the loss [K], or None.
        smoothing: Label smoothing, where an image has one label.
        threshold: Detection: score from which on an answer counts; None to take the one that fits what is measured.
    """

    class_weights: Tensor | None = None
    smoothing: float = 0.0
    threshold: float | None = None

    name: ClassVar[str]
    """As a model card names the task."""
    score: ClassVar[str]
    """The field of Evaluation by which models are chosen; higher is better."""
    score_name: ClassVar[str]
    """The score as people call it."""
    short_name: ClassVar[str]
    """The score as people write it in short."""
    hits_name: ClassVar[str]
    """What is counted beside the loss in training, as people call it; empty if nothing is."""
    heads: ClassVar[tuple[str, ...]] = ()
    """Names of the heads that a backbone may have, the usual one first; none where it has a classifier."""
    not_for: ClassVar[tuple[str, ...]] = ()
    """Options of a training that mean nothing here."""
    at_once: ClassVar[int] = 256
    """Images at most that the network answers for at once, in an evaluation of a training and in later use."""
    headline: ClassVar[dict[str, str]]
    """Fields of its Evaluation that are said first, by what people call them."""
    counted: ClassVar[str] = "images"
    """What of each class is counted: a field of its ClassFigures."""
    columns: ClassVar[dict[str, str]]
    """Fields of its ClassFigures in the table of the classes, likewise."""

    # the network

    @classmethod
    @abstractmethod
    def create(cls, name: str, num_classes: int, head: str | None, **options: Any) -> nn.Module:
        """Makes the network. It takes normalised images [N, 3, H, W] and nothing else, in training mode too.

        Args:
            name: Of a model of timm's.
            num_classes: K.
            head: One of `heads`; None where there are none.
            **options: Further arguments of timm.create_model.
        """

    @classmethod
    @abstractmethod
    def write(cls, model: nn.Module, folder: Path, classes: list[str], data_config: dict[str, Any]) -> None:
        """Writes weights and config.json of a network into a folder."""

    @classmethod
    @abstractmethod
    def read(cls, folder: Path, content: dict[str, Any], **sized: Any) -> nn.Module:
        """Makes the network of such a folder, with its weights.

        Args:
            folder: With the weights.
            content: Of its config.json.
            **sized: `img_size` to make it for another size.
        """

    # learning

    def usual(self, count: int, side: int, gpu: bool) -> dict[str, tuple[Any, str]]:
        """Chooses options of a training that are not set, with the reasons, where they differ from those of labels.

        Args:
            count: Training images.
            side: Median of their shorter sides, in pixels.
            gpu: Whether there is one.
        """
        return {}

    @abstractmethod
    def samples(self, source: Source, recipe: Any, data_config: dict[str, Any], *, memory: bool) -> Any:
        """Makes the data set of training images with their targets, cropped and mirrored at random.

        Args:
            source: The images.
            recipe: Decides sizes, crops and seed (training.recipe.Recipe).
            data_config: timm's description of the preprocessing.
            memory: Decode everything now and keep it.
        """

    @abstractmethod
    def augmentation(self, recipe: Any, data_config: dict[str, Any], num_classes: int) -> Any:
        """Makes what happens to a whole batch of such samples, from uint8 to normalised images (BatchAugmentation)."""

    @abstractmethod
    def learn(self, model: Any, images: Tensor, targets: Any) -> tuple[Tensor, float, Tensor | None]:
        """Returns the summed loss of a batch, what `hits_name` names, and the logits, if there are any.

        Args:
            model: As it is called in training.
            images: Normalised [N, 3, H, W].
            targets: Of the images.
        """

    @abstractmethod
    def weight(self, targets: Any) -> float:
        """Returns what the summed loss is to be divided by for the mean."""

    @abstractmethod
    def blank_targets(self, count: int, size: int, num_classes: int) -> Any:
        """Makes targets for images without content [count, 3, size, size], to measure the speed of a step with."""

    @abstractmethod
    def class_counts(self, source: Source) -> np.ndarray:
        """Counts how often each class is to be learned in a source, [K]."""

    @abstractmethod
    def draw_samples(self, path: Path, images: Tensor, targets: Any, classes: list[str]) -> None:
        """Draws the first images of an augmented batch with their targets."""

    # answering

    @abstractmethod
    def preprocess(self, data_config: dict[str, Any]) -> Any:
        """Makes what turns a photograph into what the network sees, uint8 [3, H, W]."""

    @abstractmethod
    def truth(self, source: Source, classes: list[str]) -> Any:
        """Returns the targets of all images of a source for the model's classes, as far as `figures` needs them.

        Raises:
            FiguresError: The data has a class that the model does not know.
        """

    @abstractmethod
    def found(self, predictor: Any, images: Any, source: Source, indices: list[int]) -> Any:
        """Returns what a model answers for some images of a source, one answer for each image.

        Args:
            predictor: The trained model.
            images: Preprocessed, a tensor or a list of tensors of different sizes.
            source: The images.
            indices: Their places in it.
        """

    @abstractmethod
    def broken(self, answers: Any) -> list[int]:
        """Returns the places of answers that are no numbers."""

    @abstractmethod
    def figures(self, answers: Any, truth: Any, classes: list[str]) -> Evaluation:
        """Measures the answers for some images against the truth.

        Raises:
            FiguresError: There is no image, or an answer is no number.
        """

    @abstractmethod
    def write_answers(self, path: Path, answers: Any, predictor: Any) -> None:
        """Writes a row of CSV for each image.

        Args:
            path: Of the file; it has its name only when it is complete.
            answers: From evaluation.answer.
            predictor: That gave them.
        """

    @abstractmethod
    def draw_worst(self, path: Path, answers: Any, predictor: Any, why: Why | None = None) -> bool:
        """Draws the images with the worst answers; says whether there are any, and removes an older picture if not.

        Args:
            path: Of the picture.
            answers: From evaluation.answer.
            predictor: That gave them.
            why: Paints over a photograph what spoke for a class, if that is known.
        """

    @abstractmethod
    def predictions(
        self, predictor: Any, names: list[str], images: list[Tensor], sizes: list[tuple[int, int]], topk: int
    ) -> list[Any]:
        """Answers for images without labels.

        Args:
            predictor: The trained model.
            names: Of the images.
            images: Preprocessed.
            sizes: Width and height of each photograph in pixels.
            topk: Classes to name, where an answer names several.

        Returns:
            For each image something with `file`, `error`, `line(width)`, `as_dict()` and `pictures(photograph)`.
        """

    @abstractmethod
    def unanswered(self, name: str, reason: str) -> Any:
        """Makes what stands in the place of an answer for an image that cannot be read."""

    def temperature(self, logits: Tensor, targets: Tensor) -> float:
        """Returns by what logits are to be divided so that their probabilities fit hard targets; 1 changes nothing."""
        return 1.0

    def score_of(self, evaluation: Evaluation) -> float:
        """Returns the score by which models are chosen."""
        return getattr(evaluation, self.score)


class LogitsTask(Task):
    """A task whose network answers with logits, from which the loss of a batch is computed."""

    def learn(self, model: Any, images: Tensor, targets: Tensor) -> tuple[Tensor, float, Tensor]:
        """Returns the summed loss of a batch, what `hits` counts, and the logits."""
        logits = model(images).float()
        return self.loss(logits, targets), self.hits(logits, targets), logits

    @abstractmethod
    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Sums the loss over answers and their targets, so that parts of a batch add up."""

    @abstractmethod
    def hits(self, logits: Tensor, targets: Tensor) -> float:
        """Counts the images that are answered rightly, to be watched during training."""
