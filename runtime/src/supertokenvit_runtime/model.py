"""The Python interface: load an exported file, predict for images."""

import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice

import numpy as np
from PIL import Image

from .answers import Prediction
from .decode import BadImage, Picture, printable, read_picture
from .errors import UsageError
from .exported import ExportedFile, cores

AT_ONCE = 32  # photographs in memory


class Model:
    """An exported model that answers for images.

    Args:
        file: In its engine.
    """

    def __init__(self, file: ExportedFile) -> None:
        self.file, self.about = file, file.about

    @property
    def name(self) -> str:
        """What people call the model."""
        return self.about.name

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return self.about.classes

    def predict(self, images: Picture | Iterable[Picture], topk: int = 5) -> list[Prediction]:
        """Answers for one image or several.

        Args:
            images: Each a path, the bytes of a file, a PIL image, or an array: uint8 [H, W], [H, W, 3] or [H, W, 4].
            topk: Classes to name.

        Returns:
            One answer for each image, in order. One that cannot be read has its `error` set.

        Raises:
            UsageError: `topk` is less than 1.
        """
        one = isinstance(images, (str, os.PathLike, bytes, Image.Image, np.ndarray))
        return list(self.stream([images] if one else images, topk))  # type: ignore[list-item, arg-type]

    def stream(self, images: Iterable[Picture], topk: int = 5) -> Iterator[Prediction]:
        """Answers as `predict` does, a few images at a time; there may be endlessly many."""
        if topk < 1:
            raise UsageError(f"topk={topk}: must be at least 1")
        numbered = enumerate(images)
        with ThreadPoolExecutor(cores()) as pool:
            while batch := list(islice(numbered, AT_ONCE)):
                names, pixels = zip(*pool.map(self._look, batch), strict=True)
                yield from self._answers(names, pixels, topk)

    def _look(self, numbered: tuple[int, Picture]) -> tuple[str, np.ndarray | str]:
        """Returns a picture's name and its pixels, or what is wrong with it."""
        number, picture = numbered
        name = printable(picture) if isinstance(picture, (str, os.PathLike)) else f"image {number}"
        try:
            return name, np.asarray(read_picture(picture, self.about.enough))
        except BadImage as error:
            return name, error.reason
        except OSError as error:
            return name, error.strerror or str(error)

    def _answers(self, names: Sequence[str], pixels: Sequence[np.ndarray | str], topk: int) -> list[Prediction]:
        """Answers for decoded images, those of one shape together."""
        answers = [Prediction(name, [], [], seen if isinstance(seen, str) else None)
                   for name, seen in zip(names, pixels, strict=True)]  # fmt: skip
        shapes: dict[tuple[int, ...], list[int]] = {}
        for place, seen in enumerate(pixels):
            if isinstance(seen, np.ndarray):
                shapes.setdefault(seen.shape, []).append(place)
        for places in shapes.values():
            probabilities = self.file.answer(np.stack([pixels[place] for place in places]))
            for place, row in zip(places, probabilities, strict=True):
                if not np.isfinite(row).all():
                    answers[place].error = "the network's answer is no number"
                    continue
                answers[place].labels, answers[place].probabilities = likeliest(row, self.classes, topk)
        return answers


def likeliest(probabilities: np.ndarray, classes: Sequence[str], topk: int) -> tuple[list[str], list[float]]:
    """Returns the likeliest classes with their probabilities, the likeliest first."""
    places = np.argsort(-probabilities, kind="stable")[:topk]
    return [classes[place] for place in places], [float(probabilities[place]) for place in places]


def load(path: str | os.PathLike, threads: int | None = None) -> Model:
    """Loads an exported model.

    Args:
        path: The .onnx or .xml file that `supertokenvit export` wrote.
        threads: CPU threads that work on one batch; as many as there are cores by default.

    Raises:
        UserError: There is no such file, or it cannot be used.
    """
    if threads is not None and threads < 1:
        raise UsageError(f"threads={threads}: must be at least 1")
    return Model(ExportedFile(path, threads or cores()))
