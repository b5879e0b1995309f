"""Exact accuracy, calibration, confusion and per-class figures of a model on labelled images."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from rich.console import Console
from rich.markup import escape
from rich.progress import track
from rich.table import Table
from torch import Tensor

from .data.decode import BadImage
from .data.loading import eval_batches
from .data.sources import ProcessShare, Source, targets_by_name, unknown_classes
from .data.splits import TrainedOn, data_found, open_split
from .errors import UserError
from .machine import keep_freed_memory
from .model_folder import ModelCard, is_shipped, read_config
from .prediction import Predictor, Views, load
from .run_folder import RunFolder, write_json
from .tasks import TASKS, Evaluation, task_of

BATCH = 64


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
    predictor = load(run, img_size=img_size, tta=tta, device=device, precision=precision)
    source, _, _ = open_labelled(run, predictor.card, data, split)
    return evaluate_source(
        predictor, source, batch_size=batch_size, workers=workers, skip_damaged=skip_damaged, progress=progress
    )


def evaluate_and_write(
    run: str, data: str | None, split: Any, out: str | None, console: Console | None = None, **options: Any
) -> Evaluation:
    """Measures a trained model, prints the figures, and writes them with a picture of the confusion matrix.

    Args:
        run: As in evaluate, and so are `data` and `split`.
        data: Images.
        split: Which of them.
        out: Folder to write to; by default the run folder, or runs/NAME for a model that comes with the package.
        console: To print on.
        **options: Further options of evaluate.
    """
    keep_freed_memory()
    console = console or Console()
    loading = {key: options.pop(key) for key in ("img_size", "tta", "device", "precision") if key in options}
    predictor = load(run, **loading)
    source, split, left_out = open_labelled(run, predictor.card, data, split)
    for line in left_out:
        console.print(f"left out: {line}", highlight=False, markup=False, soft_wrap=True)
    result = evaluate_source(predictor, source, **options)
    print_evaluation(result, f"{data or predictor.card.data} ({split})", predictor.task.score_name, console)
    folder = RunFolder(out or home_of(run))
    folder.path.mkdir(parents=True, exist_ok=True)
    write_json(folder.evaluation_of(split), result.as_dict())
    if result.confusion:
        draw_confusion(folder.confusion_of(split), result.confusion, result.classes)
    console.print(f"written: {folder.evaluation_of(split)}", highlight=False, markup=False, soft_wrap=True)
    return result


def home_of(run: str) -> Path:
    """Returns the folder in which a model's figures are kept: its run folder, never the installed package."""
    folder, _ = read_config(run)
    return Path("runs") / folder.name if is_shipped(folder) else folder.parent


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
    folder = RunFolder(read_config(run)[0].parent)
    spec = data or card.data
    if spec is None:
        raise EvaluationError("--data is missing: the model does not say what it was trained on")
    if data is None:
        spec = data_found(spec, folder.working_directory())
    memory = None
    if card.data_fingerprint is not None:
        memory = TrainedOn(card.data_fingerprint, card.val_fraction, card.seed, folder.kept_for_validation())
    return open_split(spec, split, trained_on=memory, must_be_known=data is None)


def known_targets(source: Source, classes: list[str]) -> np.ndarray:
    """Returns the source's targets as numbers of the model's classes, matched by name.

    Raises:
        EvaluationError: The data has a class that the model does not know.
    """
    unknown = unknown_classes(source, classes)
    if unknown:
        raise EvaluationError(
            f"the data has classes that the model does not know: {', '.join(unknown[:5])}; "
            f"it knows {', '.join(classes[:10])}"
        )
    return targets_by_name(source, classes)


def evaluate_source(
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
) -> Evaluation:
    """Runs a model over a source; each image counts once.

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
            know, or several labels for each image where the model gives one, or the other way round.
    """
    task = TASKS[predictor.card.task]()
    if task_of(source.targets) is not type(task):
        of_data, of_model = ("several labels", "one") if source.multi_label else ("one label", "several")
        raise EvaluationError(f"the data has {of_data} for each image, and the model was trained for {of_model}")
    if source.multi_label and not source.targets.any():
        raise EvaluationError("no image of the data has a label, so nothing can be measured")
    classes = predictor.classes
    targets = torch.as_tensor(known_targets(source, classes))
    mine = source if share is None else share
    if batches is None:
        batches = eval_batches(mine, predictor.preprocess, batch_size, workers)
    if progress:
        batches = track(batches, "Evaluating", total=-(-len(mine) // batch_size), transient=True)
    logits: list[Tensor] = []
    kept: list[int] = []
    damaged: list[BadImage] = []
    for images, indices, bad in batches:
        damaged += bad
        if bad and not skip_damaged:
            raise EvaluationError(refusal(str(bad[0])))
        if indices:
            with torch.inference_mode():
                logits.append(predictor.logits(images))
            kept += indices if share is None else share.indices[indices].tolist()
    answered = torch.cat(logits) if logits else torch.empty(0, len(classes))
    answers = gather((answered, kept, [str(error) for error in damaged]))
    whole = torch.cat([answer for answer, _, _ in answers])
    # in order, whoever answered; what two processes looked at counts once
    order, first = np.unique([i for _, indices, _ in answers for i in indices], return_index=True)
    if not len(order):
        raise EvaluationError("no image could be decoded")
    odd = (~torch.isfinite(whole[first]).all(1)).nonzero().flatten()
    if len(odd):
        raise EvaluationError(
            f"{len(odd)} of {len(order)} answers are no numbers, such as that for {source.name(int(order[odd[0]]))}: "
            "the weights are damaged, or the precision is too low"
        )
    result = task.figures(whole[first], targets[order], classes)
    result.left_out = list(dict.fromkeys(line for _, _, lines in answers for line in lines))
    return result


def print_evaluation(result: Evaluation, title: str, score_name: str, console: Console) -> None:
    """Prints the figures, each class's score and, for up to 12 classes, the confusion matrix."""

    def line(text: str) -> None:
        console.print(text, highlight=False, markup=False, soft_wrap=True)

    figures = {"top-1": result.top1, score_name: result.mean_average_precision, "top-5": result.top5, "F1": result.f1}
    figures["expected calibration error"] = result.calibration_error
    said = [f"{name} {100 * value:.2f} %" for name, value in figures.items() if value is not None]
    line(", ".join([f"{title}: {result.images:,} images", *said, f"loss {result.loss:.4f}"]))
    for text in result.left_out:
        line(f"left out: {text}")
    if result.missing_classes:
        line(f"without images here: {', '.join(result.missing_classes)}")
    wide = bool(result.confusion) and len(result.classes) <= 12
    table = Table(
        "class", "%", *(map(escape, result.classes) if wide else []), title="rows: true class" if wide else None
    )
    for i, label in enumerate(result.classes):
        score = result.per_class[label]
        counts = [str(n) for n in result.confusion[i]] if wide else []
        table.add_row(escape(label), "-" if score is None else f"{100 * score:.1f}", *counts)
    console.print(table)


def draw_confusion(path: Path, confusion: Sequence[Sequence[int]], classes: list[str]) -> None:
    """Draws a confusion matrix: rows are true classes, columns predicted ones, colours fractions of each row."""
    from matplotlib.figure import Figure

    counts = np.array(confusion)
    shares = counts / np.maximum(1, counts.sum(1, keepdims=True))
    K = len(classes)
    side = min(16.0, max(4.5, 0.45 * K + 2))
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axis = figure.subplots()
    image = axis.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    if K <= 50:
        turned: dict[str, Any] = {"rotation": 45, "ha": "right" if K > 2 else "center"}
        turned = turned if max(map(len, classes)) > 2 else turned | {"rotation": 0}
        axis.set_xticks(range(K), classes, parse_math=False, **turned)  # a $ in a name is no formula
        axis.set_yticks(range(K), classes, parse_math=False)
    if K <= 25:
        for i, j in np.argwhere(counts > 0):
            color = "white" if shares[i, j] > 0.5 else "black"
            axis.text(j, i, str(counts[i, j]), ha="center", va="center", color=color, fontsize=8)
    axis.set(xlabel="predicted", ylabel="true", title="Confusion (counts; colour: fraction of the true class)")
    figure.colorbar(image, shrink=0.8)
    figure.savefig(path, dpi=110)
