"""What `supertokenvit evaluate` prints and writes: figures, a table of all answers, and two pictures."""

import csv
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from .console import say, user_console
from .data.decode import printable
from .data.sources import Source
from .evaluation import Answers, answer, open_labelled
from .explaining.drawing import Panel, draw_panels, overlay, panel
from .explaining.explanation import explain, follows_super_tokens
from .machine import keep_freed_memory
from .model_folder import WEIGHTS_FILE, is_shipped, read_config
from .prediction import Predictor, load
from .run_folder import RunFolder, put_in_place, write_json
from .tasks import Evaluation

WORST = 24  # images in the picture of the worst answers
THUMBNAIL = 160  # pixels of a side there
FITS = 12  # classes whose confusion matrix fits on a screen


def evaluate_and_write(
    run: str, data: str | None, split: Any, out: str | None, console: Console | None = None, **options: Any
) -> Evaluation:
    """Measures a trained model, prints the figures, and writes them with every answer and two pictures.

    The figures of another model, of other data, or of another size, precision or set of views are not overwritten: the
    new ones get a number behind their names.

    Args:
        run: As in evaluation.evaluate, and so are `data` and `split`.
        data: Images.
        split: Which of them.
        out: Folder to write to; by default the run folder, or runs/NAME for a model that comes with the package.
        console: To print on.
        **options: Further options of evaluation.evaluate.
    """
    keep_freed_memory()
    console = console or user_console()

    loading = {key: options.pop(key) for key in ("img_size", "tta", "resize", "device", "precision") if key in options}
    predictor = load(run, **loading)
    source, split, left_out = open_labelled(run, predictor.card, data, split)
    for line in left_out:
        say(console, f"left out: {line}")
    answers = answer(predictor, source, **options)
    result = answers.figures(predictor.task, predictor.classes)
    spec = data or str(predictor.card.data)
    about = {"model": run, "weights": digest_of(run), "data": spec, "split": split}
    about |= {"img_size": predictor.preprocess.side[0], "resize": predictor.preprocess.mode}
    about |= {"tta": predictor.card.tta}
    about |= {"precision": loading.get("precision", "fp32")}
    folder = RunFolder(out or home_of(run))
    folder.path.mkdir(parents=True, exist_ok=True)
    name = free_name(folder, split, about)
    # written before anything is printed: whoever reads the output may end early (`| head`)
    write_json(folder.evaluation_of(name), about | result.as_dict())
    rows = list(rows_of(answers, predictor))
    write_rows(folder.answers_of(name), rows)
    if result.confusion:
        draw_confusion(folder.confusion_of(name), result)
    drawn = draw_worst(folder.worst_of(name), rows, source, predictor)
    print_evaluation(result, f"{spec} ({split})", predictor.task.score_name, console)
    say(console, f"written: {folder.evaluation_of(name)}")
    say(console, f"every answer: {folder.answers_of(name)}")
    if drawn:
        say(console, f"the most confidently wrong images: {folder.worst_of(name)}")
    return result


def home_of(run: str) -> Path:
    """Returns the folder in which a model's figures are kept: its run folder, never the installed package.

    A model folder that is in no run folder keeps them itself: others may stand beside it.
    """
    folder, _ = read_config(run)
    if is_shipped(folder):
        return Path("runs") / folder.name
    return folder.parent if RunFolder(folder.parent).recipe.exists() else folder


def digest_of(run: str) -> str:
    """Returns 16 hexadecimal digits that change with a model's weights."""
    with open(read_config(run)[0] / WEIGHTS_FILE, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def free_name(folder: RunFolder, split: str, about: dict[str, Any]) -> str:
    """Returns the name of the figures: the split, with a number behind it if other figures have that name already."""
    name, number = split, 2
    while folder.evaluation_of(name).exists():
        try:
            there = json.loads(folder.evaluation_of(name).read_text(encoding="utf-8"))
        except ValueError:
            there = {}
        if all(key == "model" or there.get(key) == value for key, value in about.items()):
            break  # the same question: its figures are written anew
        name, number = f"{split}-{number}", number + 1
    return name


def print_evaluation(result: Evaluation, title: str, score_name: str, console: Console) -> None:
    """Prints the figures, those of each class and, for up to FITS classes, the confusion matrix."""

    figures = {"top-1": result.top1, score_name: result.mean_average_precision, "top-5": result.top5, "F1": result.f1}
    figures["expected calibration error"] = result.calibration_error
    said = [f"{name} {100 * value:.2f} %" for name, value in figures.items() if value is not None]
    say(console, ", ".join([f"{title}: {result.images:,} images", *said, f"loss {result.loss:.4f}"]))
    for text in result.left_out:
        say(console, f"left out: {text}")
    if result.missing_classes:
        say(console, f"without images here: {', '.join(result.missing_classes)}")
    several = result.mean_average_precision is not None
    table = Table("class", "images", "precision %", "recall %", "F1 %", *(["average precision %"] if several else []))
    for label, found in result.per_class.items():
        values = [found.precision, found.recall, found.f1, *([found.average_precision] if several else [])]
        percent = ["-" if value is None else f"{100 * value:.1f}" for value in values]
        table.add_row(escape(label), f"{found.images:,}", *percent)
    console.print(table)
    if result.confusion and len(result.classes) <= FITS:
        counts = Table("true \\ predicted", *map(escape, result.classes))
        for label, row in zip(result.classes, result.confusion_matrix(), strict=True):
            counts.add_row(escape(label), *map(str, row))
        console.print(counts)


@dataclass
class Row:
    """One answer of an evaluation."""

    index: int
    """Place of the image in the source."""
    file: str
    """Path of the image."""
    true: list[str]
    """Its label or labels."""
    predicted: list[str]
    """The likeliest class, or the labels with a probability of one half or more."""
    probability: float
    """Of the likeliest class, or of the least sure of the answers for the labels."""
    loss: float
    """Of this image."""


def rows_of(answers: Answers, predictor: Predictor) -> Iterator[Row]:
    """Yields every answer with its label, in the order of the images."""
    probabilities = predictor.task.probabilities(answers.logits)
    losses = losses_of(answers.logits, answers.targets)
    for place, (p, target) in enumerate(zip(probabilities, answers.targets, strict=True)):
        index = int(answers.indices[place])
        if target.ndim:
            true, said = (target > 0.5).nonzero().flatten().tolist(), (p >= 0.5).nonzero().flatten().tolist()
            sure = torch.where(p >= 0.5, p, 1 - p).min()
        else:
            true, said, sure = [int(target)], [int(p.argmax())], p.max()
        labels, named = ([predictor.classes[k] for k in numbers] for numbers in (true, said))
        yield Row(index, printable(answers.source.name(index)), labels, named, float(sure), float(losses[place]))


def losses_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Returns the loss of each image [N]."""
    if targets.ndim == 2:
        return F.binary_cross_entropy_with_logits(logits, targets.float(), reduction="none").mean(1)
    return F.cross_entropy(logits, targets, reduction="none")


def write_rows(path: Path, rows: Sequence[Row]) -> None:
    """Writes answers as CSV: file, true, predicted, probability, loss; | separates several labels."""
    temporary = path.with_name(f".{path.name}")
    with open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["file", "true", "predicted", "probability", "loss"])
        for row in rows:
            figures = f"{row.probability:.6g}", f"{row.loss:.6g}"
            writer.writerow([row.file, "|".join(row.true), "|".join(row.predicted), *figures])
    put_in_place(temporary, path)


def draw_worst(path: Path, rows: Sequence[Row], source: Source, predictor: Predictor) -> bool:
    """Draws the wrongly answered images with the largest losses, and says whether there are any.

    Beside each image stands what spoke for the answer, where the model is a Super Token Transformer.

    Args:
        path: Of the picture. An older one is removed if no answer is wrong.
        rows: Every answer.
        source: The images.
        predictor: That answered.
    """
    wrong = sorted((row for row in rows if row.true != row.predicted), key=lambda row: -row.loss)[:WORST]
    if not wrong:
        path.unlink(missing_ok=True)
        return False
    explained = follows_super_tokens(predictor)
    panels: list[Panel] = []
    for row in wrong:
        image = source.image(row.index, enough=max(THUMBNAIL, predictor.preprocess.enough if explained else 0))
        true, said = (shortened("+".join(labels) or "none") for labels in (row.true, row.predicted))
        panels.append(panel(image, f"{true}\nfor {said} {100 * row.probability:.0f} %"))
        if explained and row.predicted:
            found = explain(predictor, image, row.predicted[0])[0]
            panels.append(panel(overlay(image, found), f"why\n{shortened(row.predicted[0])}"))
        elif explained:
            panels.append(panel(image, "no label\nto explain"))
    columns = min(6, len(panels))
    lines = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    draw_panels(path, lines, "Largest losses of wrong answers: true class, for what it was taken, how surely")
    return True


def shortened(text: str, length: int = 22) -> str:
    """Returns a text of at most that many letters."""
    return text if len(text) <= length else f"{text[: length - 3]}..."


def draw_confusion(path: Path, result: Evaluation) -> None:
    """Draws a confusion matrix: rows are true classes, columns predicted ones, colours fractions of each row."""
    from matplotlib.figure import Figure

    counts, classes = result.confusion_matrix(), result.classes
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
