"""A trained model's answers for labelled images, and their exact figures."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from .console import watched
from .data.decode import BadImage
from .data.loading import eval_batches
from .data.masks import Reading
from .data.sources import ProcessShare, Source
from .data.splits import TrainedOn, data_found, open_split
from .engines.graph_file import is_graph
from .errors import UserError
from .model_folder import ModelCard, read_config
from .prediction import Predictor, Resize, Views, load
from .run_folder import RunFolder
from .tasks import Evaluation, FiguresError, Ragged, Task

BATCH = 64
LABELS = {
    "classification": "one label",
    "multi-label": "several labels",
    "segmentation": "a mask",
    "detection": "boxes",
}
"""What the images of a task have, as people call it."""


class EvaluationError(UserError):
    """Data that a model cannot be measured on."""


def refusal(damaged: str) -> str:
    """Says what to do about a damaged image."""
    return f"{damaged}; mend or remove it, or leave damaged images out with --skip_damaged true"


def evaluate(
    run: str | os.PathLike | RunFolder,
    data: str | None = None,
    *,
    split: Literal["train", "val", "test"] | None = None,
    tta: Views | None = None,
    img_size: int | None = None,
    resize: Resize | None = None,
    precision: Literal["fp32", "bf16", "auto"] = "fp32",
    skip_damaged: bool = False,
    batch_size: int = BATCH,
    workers: int = 0,
    device: str | None = None,
    progress: bool = False,
) -> Evaluation:
    """Measures a trained model on labelled images and returns the figures; it writes nothing.

    Args:
        run: Run folder, or the model folder in it, or the name of a model that comes with the package.
        data: Images as in training; by default those that the model was trained on.
        split: Which split of them; by default test, else the validation images, else all that is there.
        tta: Views of an image over which the answer is the mean; as the training set it by default.
        img_size: Side of the images that the network sees, in pixels; that of its training by default.
        resize: As in `load`.
        precision: As in `load`.
        skip_damaged: Leave damaged images out, named in the result, instead of stopping.
        batch_size: Images at once.
        workers: Processes that decode.
        device: cpu, cuda, mps; the best there is by default.
        progress: Show a bar.

    Raises:
        RunFolderError: There is no model that this version can load.
        DataError: The data cannot be read, or has no such split.
        EvaluationError: The model cannot be measured on it.

    Example:
        >>> import supertokenvit
        >>> figures = supertokenvit.evaluate("stt_micro.cifar10", data="cifar10")  # doctest: +SKIP
        >>> figures.top1  # doctest: +SKIP
        0.9167
    """
    predictor = load(run, img_size=img_size, tta=tta, resize=resize, device=device, precision=precision)
    source, _, _ = open_labelled(run, predictor.card, data, split)
    return evaluate_source(
        predictor, source, batch_size=batch_size, workers=workers, skip_damaged=skip_damaged, progress=progress
    )


def open_labelled(
    run: str | os.PathLike | RunFolder, card: ModelCard, data: str | None, split: str | None
) -> tuple[Source, str, list[str]]:
    """Opens the labelled images to measure a model on, and says which split they are and what is left out.

    Args:
        run: As in evaluate; what the training wrote down of its validation images and of its place is read there.
        card: Of the model.
        data: As in evaluate.
        split: As in evaluate.

    Raises:
        DataError: The data cannot be read, or has no such split.
        EvaluationError: The model does not say what it was trained on, and no data is named.
    """
    folder, classes = trained_in(run)
    spec = data or card.data
    if spec is None:
        raise EvaluationError("--data is missing: the model does not say what it was trained on")
    if data is None:
        spec = data_found(spec, folder.working_directory())
    memory = None
    if card.data_fingerprint is not None:
        memory = TrainedOn(card.data_fingerprint, card.val_fraction, card.seed, folder.kept_for_validation())
    reading = Reading(card.task, tuple(classes), card.ignore)
    return open_split(spec, split, trained_on=memory, must_be_known=data is None, reading=reading)


def trained_in(run: str | os.PathLike | RunFolder) -> tuple[RunFolder, list[str]]:
    """Returns the run folder of a model, or of what was exported from it, and the classes in its config.json."""
    if is_graph(run):  # in RUN/export/FORMAT
        return RunFolder(Path(run).absolute().parents[2]), []
    folder, content = read_config(run)
    return RunFolder(folder.parent), content.get("label_names") or []


@dataclass
class Answers:
    """What a model answers for labelled images.

    Args:
        logits: [N, K]; of other tasks, what Task.found returns of each image.
        targets: Class numbers [N], or 0 or 1 for each label [N, K]; of other tasks, what Task.truth returns.
        indices: The places of the images in the source.
        source: The images.
        left_out: Images that could not be decoded, with the reasons.
    """

    logits: Any
    targets: Any
    indices: np.ndarray
    source: Source
    left_out: list[str]

    def figures(self, task: Task, classes: list[str]) -> Evaluation:
        """Measures the answers; see tasks.Task.figures."""
        result = task.figures(self.logits, self.targets, classes)
        result.left_out = self.left_out
        return result


def evaluate_source(predictor: Predictor, source: Source, **options: Any) -> Evaluation:
    """Runs a model over a source and returns the figures; each image counts once.

    Args:
        predictor: The trained model.
        source: Labelled images; classes are matched by name.
        **options: Further options of `answer`.

    Raises:
        EvaluationError: As in `answer`.
    """
    return answer(predictor, source, **options).figures(predictor.task, predictor.classes)


def answer(
    predictor: Predictor,
    source: Source,
    *,
    batches: Iterable | None = None,
    batch_size: int = BATCH,
    workers: int = 0,
    skip_damaged: bool = False,
    progress: bool = True,
    share: ProcessShare | None = None,
    gather: Callable[[Any], list[Any]] = lambda answers: [answers],
) -> Answers:
    """Runs a model over a source; each image is answered once.

    Args:
        predictor: The trained model.
        source: Labelled images; classes are matched by name.
        batches: From loading.eval_batches, when they are at hand already.
        batch_size: Images at once.
        workers: Processes that decode.
        skip_damaged: Leave damaged images out, named in the result, instead of stopping.
        progress: Show a bar.
        share: The images that this process looks at, if several share the source.
        gather: Takes this process's answers and returns those of all.

    Raises:
        EvaluationError: A damaged image (unless left out), no image or no label at all, a class that the model does not
            know, several labels for each image where the model gives one, or the other way round, or an answer that is
            no number.
    """
    task = predictor.task
    if source.task != task.name:
        raise EvaluationError(
            f"the data has {LABELS[source.task]} for each image, and the model was trained for {LABELS[task.name]}"
        )
    if source.task == "multi-label" and not source.targets.any():
        raise EvaluationError("no image of the data has a label, so nothing can be measured")
    try:
        targets = task.truth(source, predictor.classes)
    except FiguresError as error:
        raise EvaluationError(str(error)) from None
    mine, batch_size = source if share is None else share, min(batch_size, task.at_once)
    if batches is None:
        batches = eval_batches(mine, predictor.preprocess, batch_size, workers)
    if progress:
        batches = watched(batches, "Evaluating", -(-len(mine) // batch_size))
    found: list[Any] = []
    kept: list[int] = []
    damaged: list[BadImage] = []
    for images, indices, bad in batches:
        damaged += bad
        if bad and not skip_damaged:
            raise EvaluationError(refusal(str(bad[0])))
        if indices:
            with torch.inference_mode():
                found.append(task.found(predictor, images, mine, indices))
            kept += indices if share is None else share.indices[indices].tolist()
    answers = gather((joined(found), kept, [str(error) for error in damaged]))
    whole = joined([some for some, indices, _ in answers if indices])
    # in order, whoever answered; what two processes looked at counts once
    order, first = np.unique([i for _, indices, _ in answers for i in indices], return_index=True)
    if not len(order):
        raise EvaluationError("no image could be decoded")
    odd = task.broken(whole[first])
    if odd:
        raise EvaluationError(
            f"{len(odd)} of {len(order)} answers are no numbers, such as that for {source.name(int(order[odd[0]]))}: "
            "the weights are damaged, or the precision is too low"
        )
    left_out = list(dict.fromkeys(line for _, _, lines in answers for line in lines))
    return Answers(whole[first], targets[order], order, source, left_out)


def joined(parts: list[Any]) -> Any:
    """Puts answers for some images behind each other: tensors, or lists of what cannot be stacked."""
    return torch.cat(parts) if parts and isinstance(parts[0], Tensor) else Ragged(chain.from_iterable(parts))
