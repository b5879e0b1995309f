"""Whether an exported file answers as the model does: measured in the engine that will run it."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image

from ..data.sources import Source
from ..engines.graph_file import GraphFile
from ..evaluation import answer
from ..prediction import Predictor
from .graph import ExportedNetwork

SAME = 1e-5  # where no pixel is computed anew
RESIZED = 5e-3  # a pixel may be rounded to the number beside it
AGREEMENT, LOSS = 0.99, 0.003  # of int8: answers that stay the same, and accuracy that may be lost


@dataclass(frozen=True)
class Check:
    """One comparison of the exported file with the model."""

    what: str
    """What was compared, in words."""
    value: float
    """What was measured."""
    limit: float
    """What it has to keep."""
    at_least: bool = False
    """Whether the limit is the least value, and not the largest."""

    @property
    def passed(self) -> bool:
        """Whether it keeps its limit; what is no number does not."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit

    def line(self) -> str:
        """Writes it as one line."""
        sign = ">=" if self.at_least else "<="
        return f"{'passed' if self.passed else 'FAILED'}  {self.what}: {self.value:.2g} ({sign} {self.limit:g})"


def shapes_of(side: int) -> list[tuple[int, int, int]]:
    """Lists batch, height and width of images to compare: of that side, one window and less, odd, long, large."""
    s = side
    return [
        (1, s, s), (3, s, s), (2, 1, 1), (1, 1, s), (1, 8, 8), (2, s // 2, s // 2), (1, s // 2, s), (1, s + 1, s - 1),
        (2, s - 3, s + 5), (1, 3 * s // 2, s), (1, s, 2 * s), (2, 2 * s, 2 * s + 1), (1, 3 * s, s), (1, 4 * s, 4 * s),
        (1, 4 * s - 1, 3 * s + 2),
    ]  # fmt: skip


def photographs() -> Iterator[Image.Image]:
    """Yields 32 photographs of many sizes and shapes, parts of the two that come with scikit-learn."""
    from sklearn.datasets import load_sample_images

    rng = np.random.default_rng(0)
    for picture in load_sample_images().images:
        whole = Image.fromarray(picture)
        yield whole
        for _ in range(15):
            width, height = (int(rng.integers(40, length)) for length in whole.size)
            left, top = int(rng.integers(0, whole.width - width)), int(rng.integers(0, whole.height - height))
            yield whole.crop((left, top, left + width, top + height))


def compare_sizes(file: GraphFile, network: ExportedNetwork, shapes: Sequence[tuple[int, int, int]]) -> list[Check]:
    """Compares the answers for random pixels with those of torch.

    Args:
        file: In its engine.
        network: What was exported.
        shapes: Batch, height and width of each comparison.
    """
    rng = np.random.default_rng(0)
    checks = []
    for batch, height, width in shapes:
        images: np.ndarray
        if network.resize is not None:
            images = rng.integers(0, 256, (batch, height, width, 3), dtype=np.uint8)
        else:
            images = rng.standard_normal((batch, 3, height, width), dtype=np.float32)
        with torch.inference_mode():
            wanted = dict(zip(network.outputs, network(torch.from_numpy(images)), strict=True))
        resized = network.resize is not None and [height, width] != network.resize.scaled
        for name, values in wanted.items():
            what = f"{name} of {batch} x {height} x {width} pixels"
            difference = largest_difference(file(images)[name], values.numpy(), relative=name != "probabilities")
            checks.append(Check(what, difference, RESIZED if resized else SAME))
    return checks


def largest_difference(found: np.ndarray, wanted: np.ndarray, *, relative: bool) -> float:
    """Returns the largest difference of two arrays, as a fraction of the largest value if `relative`."""
    if found.shape != wanted.shape:
        return float("inf")
    scale = max(float(np.abs(wanted).max()), 1e-12) if relative else 1.0
    return float(np.abs(found - wanted).max()) / scale


def compare_photographs(answering: Predictor, predictor: Predictor, pictures: Sequence[Image.Image]) -> list[Check]:
    """Compares the answers for photographs with those of `predict`: the probabilities, and the likeliest class.

    Where two classes are likelier than others by less than the limit, either may be the likeliest.

    Args:
        answering: With the exported file.
        predictor: With the trained model.
        pictures: Photographs of any size.
    """
    K, worst, others = len(predictor.classes), 0.0, 0
    for one, other in zip(answering(pictures, K), predictor(pictures, K), strict=True):
        mine, wanted = (dict(zip(row.labels, row.probabilities, strict=True)) for row in (one, other))
        if set(mine) != set(wanted):  # an answer that is no number has no labels
            return [Check("photographs that are answered", float("inf"), RESIZED)]
        worst = max(worst, *(abs(mine[label] - wanted[label]) for label in wanted))
        others += wanted[other.labels[0]] - wanted[one.labels[0]] > RESIZED
    return [
        Check(f"probabilities of {len(pictures)} photographs, beside predict", worst, RESIZED),
        Check(f"photographs of {len(pictures)} with another likeliest class than in predict", others, 0),
    ]


def compare_int8(answering: Predictor, predictor: Predictor, source: Source) -> list[Check]:
    """Compares the answers of a quantised file with those of the model: how many stay the same, and the score.

    Args:
        answering: With the exported file.
        predictor: With the trained model.
        source: Labelled images that neither the training nor the quantising saw.
    """
    mine, theirs = (answer(one, source, progress=False) for one in (answering, predictor))
    if predictor.task.name == "multi-label":
        same = ((mine.logits > 0) == (theirs.logits > 0)).double().mean().item()
    else:
        same = (mine.logits.argmax(1) == theirs.logits.argmax(1)).double().mean().item()
    before, after = (
        predictor.task.score_of(answers.figures(predictor.task, predictor.classes)) for answers in (theirs, mine)
    )
    images = f"{len(source):,} images"
    return [
        Check(f"answers that stay the same in int8, of {images}", same, AGREEMENT, at_least=True),
        Check(f"{predictor.task.score_name} that int8 loses on {images}", before - after, LOSS),
    ]
