"""What `supertokenvit evaluate` prints and writes: figures, a table of all answers, and two pictures."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from .console import say, user_console
from .engines.graph_file import is_graph
from .evaluation import answer, open_labelled
from .explaining.drawing import overlay
from .explaining.explanation import explain, follows_super_tokens
from .machine import keep_freed_memory
from .model_folder import WEIGHTS_FILE, is_shipped, read_config
from .prediction import Predictor, load
from .run_folder import RunFolder, write_json
from .tasks import Evaluation, Task
from .tasks.task import Why

MOST_LETTERS = 99_999  # the largest number that fits into a cell of its picture
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

    loading = {
        key: options.pop(key)
        for key in ("img_size", "tta", "resize", "threshold", "device", "precision")
        if key in options
    }
    predictor = load(run, **loading)
    source, split, left_out = open_labelled(run, predictor.card, data, split)
    for line in left_out:
        say(console, f"left out: {line}")
    answers = answer(predictor, source, **options)
    result = answers.figures(predictor.task, predictor.classes)
    spec = data or str(predictor.card.data)
    about = {"model": run, "weights": digest_of(run), "data": spec, "split": split}
    about |= {"img_size": predictor.data_config["input_size"][-1], "resize": predictor.data_config["crop_mode"]}
    about |= {"tta": predictor.card.tta}
    about |= {"precision": loading.get("precision", "fp32")}
    folder = RunFolder(out or home_of(run))
    folder.path.mkdir(parents=True, exist_ok=True)
    name = free_name(folder, split, about)
    # written before anything is printed: whoever reads the output may end early (`| head`)
    write_json(folder.evaluation_of(name), about | result.as_dict())
    predictor.task.write_answers(folder.answers_of(name), answers, predictor)
    if result.confusion:
        draw_confusion(folder.confusion_of(name), result)
    why = explainer(predictor)
    drawn = predictor.task.draw_worst(folder.worst_of(name), answers, predictor, why)
    print_evaluation(result, f"{spec} ({split})", predictor.task, console)
    say(console, f"written: {folder.evaluation_of(name)}")
    say(console, f"every answer: {folder.answers_of(name)}")
    if drawn:
        say(console, f"the worst answers: {folder.worst_of(name)}")
    return result


def home_of(run: str) -> Path:
    """Returns the folder in which a model's figures are kept: its run folder, never the installed package.

    A model folder that is in no run folder keeps them itself, and so does the folder of an exported file: others may
    stand beside them.
    """
    if is_graph(run):
        return Path(run).parent
    folder, _ = read_config(run)
    if is_shipped(folder):
        return Path("runs") / folder.name
    return folder.parent if RunFolder(folder.parent).recipe.exists() else folder


def digest_of(run: str) -> str:
    """Returns 16 hexadecimal digits that change with a model's weights."""
    weights = Path(run) if is_graph(run) else read_config(run)[0] / WEIGHTS_FILE
    if weights.suffix == ".xml":
        weights = weights.with_suffix(".bin")
    with open(weights, "rb") as file:
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


def print_evaluation(result: Evaluation, title: str, task: Task, console: Console) -> None:
    """Prints the figures, those of each class and, for up to FITS classes of images, the confusion matrix."""
    figures = {name: getattr(result, field) for name, field in task.headline.items()}
    said = [f"{name} {100 * value:.2f} %" for name, value in figures.items() if value is not None]
    said += [] if result.loss is None else [f"loss {result.loss:.4f}"]
    said += [] if result.threshold is None else [f"precision and recall at a score of {result.threshold:g}"]
    say(console, ", ".join([f"{title}: {result.images:,} images", *said]))
    for text in result.left_out:
        say(console, f"left out: {text}")
    if result.missing_classes:
        say(console, f"without {task.counted} here: {', '.join(result.missing_classes)}")
    table = Table("class", task.counted, *(f"{title} %" for title in task.columns))
    for label, found in result.per_class.items():
        values = [getattr(found, field) for field in task.columns.values()]
        percent = ["-" if value is None else f"{100 * value:.1f}" for value in values]
        table.add_row(escape(label), f"{getattr(found, task.counted):,}", *percent)
    console.print(table)
    if result.confusion and not task.heads and len(result.classes) <= FITS:
        counts = Table("true \\ predicted", *map(escape, result.classes))
        for label, row in zip(result.classes, result.confusion_matrix(), strict=True):
            counts.add_row(escape(label), *map(str, row))
        console.print(counts)


def explainer(predictor: Predictor) -> Why | None:
    """Returns what paints over a photograph what spoke for a class, if the model is a Super Token Transformer."""
    if predictor.task.heads or not follows_super_tokens(predictor):
        return None
    return lambda image, label: overlay(image, explain(predictor, image, label)[0])


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
    what = "fraction of the true class"
    if K <= 25:
        many = counts.max() > MOST_LETTERS  # pixels of masks
        for i, j in np.argwhere(counts > 0):
            color = "white" if shares[i, j] > 0.5 else "black"
            text = f"{100 * shares[i, j]:.0f}" if many else str(counts[i, j])
            axis.text(j, i, text, ha="center", va="center", color=color, fontsize=8)
        what = "% of the true class" if many else "counts; colour: fraction of the true class"
    axis.set(xlabel="predicted", ylabel="true", title=f"Confusion ({what})")
    figure.colorbar(image, shrink=0.8)
    figure.savefig(path, dpi=110)
