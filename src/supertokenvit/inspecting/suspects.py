"""This module is `supertokenvit suspects`: labels that are likely wrong, by confident learning (cleanlab)."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..data.sources import DataError, Source
from ..data.splits import fingerprint
from ..engines.packages import need
from ..evaluation import BATCH, Answers, answer, open_labelled
from ..model_folder import ModelCard
from ..prediction import load
from .reports import COLUMNS as ACROSS
from .reports import ROWS, InspectionError, checked, draw, named, write_table

COLUMNS = ["file", "label", "suggested", "probability_of_label", "probability_of_suggested", "trained_on"]
THUMBNAIL = 256  # pixels of a shorter side that are enough for the picture
KNOWN = {
    "yes": "the model was trained on these very images, so it may know wrong labels by heart: expect many to be missed",
    "no": "the model was not trained on them",
    "unknown": "whether the model was trained on some of them is not known; if it was, wrong labels may be missed",
}
"""What it means for a report whether the model was trained on the images."""


@dataclass(frozen=True)
class Suspect:
    """A label that is likely wrong."""

    place: int
    """Of the image in the source."""
    label: int
    """Number of the class that the image is said to be of."""
    suggested: int
    """Number of the likeliest class."""
    of_label: float
    """Probability of the label."""
    of_suggested: float
    """Probability of the suggested class."""


def find_and_write(
    model: str,
    *,
    data: str | None = None,
    split: str | None = None,
    batch_size: int = BATCH,
    device: str | None = None,
    out: str = "suspects.csv",
) -> None:
    """Names the labels that are likely wrong, the least probable first, in a table and a picture.

    Args:
        model: As in prediction.load.
        data: Images as in training; by default those that the model was trained on.
        split: "train", "val" or "test"; by default val, else test, else all.
        batch_size: Images at once.
        device: As in prediction.load.
        out: File of the table.

    Raises:
        InspectionError: The images have several labels each, or no label is likely to be right.
        EvaluationError: The model cannot be asked about them.
        EngineError: cleanlab is not installed.
    """
    path = checked(out)
    need("cleanlab", "suspects")
    predictor = load(model, device=device)
    if predictor.task.name != "classification":
        raise InspectionError(
            f"{model}: a model for {predictor.task.name}; suspects are found among single labels only"
        )
    source, name, left_out = opened(model, predictor.card, data, split)
    answers = answer(predictor, source, batch_size=batch_size, skip_damaged=True)
    known = trained_on(source, name, predictor.card)
    probabilities = predictor.task.probabilities(answers.logits).numpy()
    found = list(suspects_of(answers, probabilities))
    write_table(path, COLUMNS, [row_of(answers, one, predictor.classes, known) for one in found])
    picture = path.with_suffix(".png")
    shown = found[: ROWS * ACROSS]
    panels = [
        named(source.image(one.place, THUMBNAIL), source.name(one.place), doubt(one, predictor.classes))
        for one in shown
    ]
    lines = [panels[start : start + ACROSS] for start in range(0, len(panels), ACROSS)]
    draw(picture, lines, f"Labels that are likely wrong ({name} images), and what the model says")
    for line in [*left_out, *answers.left_out]:
        print(f"left out: {line}")
    count = f"{len(found):,} of {len(answers.indices):,} labels {'is' if len(found) == 1 else 'are'} likely wrong"
    print(f"{count} ({name} images: {KNOWN[known]})")
    print(f"written: {path}{f', {picture}' if found else ''}")


def opened(model: str, card: ModelCard, data: str | None, split: str | None) -> tuple[Source, str, list[str]]:
    """Opens the images to look at, validation images if nothing else is asked for; see evaluation.open_labelled."""
    if split is None:
        try:
            return open_labelled(model, card, data, "val")
        except DataError:  # there are none; if the data is at fault, it is so the second time too
            pass
    return open_labelled(model, card, data, split)


def trained_on(source: Source, name: str, card: ModelCard) -> str:
    """Says whether the model was trained on the images: "yes", "no" or "unknown"."""
    if card.data_fingerprint is not None and fingerprint(source) == card.data_fingerprint:
        return "yes"
    return "no" if name in ("val", "test") else "unknown"


def suspects_of(answers: Answers, probabilities: np.ndarray) -> Iterator[Suspect]:
    """Finds the labels that confident learning takes for wrong (Northcutt et al., arXiv 1911.00068).

    Args:
        answers: With class numbers as targets.
        probabilities: Of every class [N, K].

    Raises:
        InspectionError: All images are of one class.
    """
    labels = np.asarray(answers.targets)
    if len(np.unique(labels)) < 2:
        raise InspectionError("all images are of one class, so their labels cannot be compared")
    filter_ = need("cleanlab.filter", "suspects")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that some class has no image, for example
        order = filter_.find_label_issues(
            labels, probabilities.astype(np.float64), return_indices_ranked_by="self_confidence", n_jobs=1
        )
    for number in order.tolist():
        p, label = probabilities[number], int(labels[number])
        best = int(p.argmax())  # never the label: a label that is the likeliest class is no suspect
        yield Suspect(int(answers.indices[number]), label, best, float(p[label]), float(p[best]))


def row_of(answers: Answers, one: Suspect, classes: list[str], known: str) -> list[Any]:
    """Makes a row of the table."""
    figures = round(one.of_label, 6), round(one.of_suggested, 6)
    return [answers.source.name(one.place), classes[one.label], classes[one.suggested], *figures, known]


def doubt(one: Suspect, classes: list[str]) -> str:
    """Says what a label is and what it may better be."""
    return f"{classes[one.label]}: {classes[one.suggested]}?"
