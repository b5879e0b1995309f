"""How good and how fast a trained model is at each of several image sizes, and which one it keeps."""

import copy
import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from .console import say, user_console
from .data.sources import Source
from .engines.graph_file import is_graph
from .errors import UsageError
from .evaluation import BATCH, answer, open_labelled
from .evaluation_report import digest_of, evaluate_and_write, free_name, home_of
from .machine import keep_freed_memory
from .model_folder import check_own, load_model, write_size
from .prediction import Predictor, load
from .preprocessing import VIEWS
from .run_folder import RunFolder, write_json
from .sizes import read_sizes
from .tasks import Evaluation

SECONDS, LEAST = 1.0, 5  # for how long a size's speed is measured, and how many batches at least


@dataclass
class AtSize:
    """What a model is worth and costs at one image size."""

    img_size: int
    """Side of the images in pixels."""
    figures: Evaluation
    """Its figures on the labelled images."""
    images_per_second: float
    """Measured speed of the network on this machine, over all views of an image, without decoding."""
    gmacs: float
    """Billions of multiply-accumulates for an image, over all its views."""

    def as_dict(self) -> dict[str, Any]:
        """Returns the figures that are single numbers, for JSON."""
        figures = {name: value for name, value in self.figures.as_dict().items() if isinstance(value, (int, float))}
        costs = {"images_per_second": self.images_per_second, "gmacs": self.gmacs}
        return {"img_size": self.img_size, **figures, **costs}


def evaluate_sizes_and_write(
    model: str,
    data: str | None,
    split: Any,
    out: str | None,
    sizes: Sequence[int] | str | None = None,
    keep_size: str | None = None,
    console: Console | None = None,
    **options: Any,
) -> None:
    """Measures a trained model at several image sizes, prints and writes the table, and keeps a size if told to.

    Without sizes it is evaluation_report.evaluate_and_write.

    Args:
        model: Run folder or name, as in evaluation.evaluate, and so are `data` and `split`.
        data: Images.
        split: Which of them; to choose the best size, only validation images.
        out: As in evaluate_and_write.
        sizes: Sides of the images in pixels.
        keep_size: A size, or "best" for the one with the highest score (the smaller of equals): the model is used at it
            from then on, by every verb and by timm.
        console: To print on.
        **options: Further options of evaluation.evaluate.

    Raises:
        UsageError: Options that do not go together.
        RunFolderError: The model cannot be changed.
    """
    if sizes is None and keep_size is None:
        evaluate_and_write(model, data, split, out, console, **options)
        return
    if is_graph(model):
        raise UsageError("--sizes: an exported file shows each image to the model at one size; name the run folder")
    if options.pop("img_size", None) is not None:
        raise UsageError("--img_size: --sizes names all sizes")
    wanted = sizes_to_measure(sizes, keep_size)
    if keep_size == "best":
        split = split or "val"
        if split != "val":
            raise UsageError(f"--keep_size best: chosen on validation images only (--split val), not on {split}")
    if keep_size is not None:
        check_own(model)
    keep_freed_memory()
    console = console or user_console()
    named = {"tta", "resize", "threshold", "device", "precision"} & set(options)
    loading: dict[str, Any] = {name: options.pop(name) for name in named}
    trained = load_model(model)
    source, split, left_out = open_labelled(model, trained.card, data, split)
    for line in left_out:
        say(console, f"left out: {line}")
    rows = measured(model, wanted, source, loading, options)
    predictor = load(model, img_size=wanted[0], **loading)
    about = {"model": model, "weights": digest_of(model), "data": data or str(trained.card.data), "split": split}
    about |= {"sizes": wanted, "resize": predictor.data_config["crop_mode"], "tta": predictor.card.tta}
    about |= {"precision": loading.get("precision", "fp32")}
    folder = RunFolder(out or home_of(model))
    folder.path.mkdir(parents=True, exist_ok=True)
    path = folder.evaluation_of(free_name(folder, f"{split}-sizes", about))
    write_json(path, about | {"batch_size": options.get("batch_size", BATCH), "rows": [row.as_dict() for row in rows]})
    print_sizes(rows, f"{about['data']} ({split})", trained.data_config["input_size"][-1], predictor, console)
    say(console, f"written: {path}")
    if keep_size is not None:
        keep_and_say(model, keep_size, rows, predictor, str(about["data"]), console)


def sizes_to_measure(sizes: Sequence[int] | str | None, keep_size: str | None) -> list[int]:
    """Returns each size once, in order; a size that is to be kept stands for itself if no others are named.

    Raises:
        UsageError: The size to keep is none of them, or there is none to choose from.
    """
    if sizes is None and keep_size == "best":
        raise UsageError("--keep_size best: name the --sizes to choose from, as 160,192,224")
    wanted = sorted(set(read_sizes(str(keep_size) if sizes is None else sizes)))
    if keep_size not in (None, "best", *map(str, wanted)):
        raise UsageError(f"--keep_size {keep_size}: must be best, or one of the sizes {', '.join(map(str, wanted))}")
    return wanted


def measured(
    run: str | os.PathLike, sizes: Sequence[int], source: Source, loading: dict[str, Any], options: dict[str, Any]
) -> list[AtSize]:
    """Measures a trained model at each of several sizes.

    Args:
        run: As in evaluation.evaluate.
        sizes: Sides of the images in pixels.
        source: Labelled images.
        loading: Options of prediction.load.
        options: Options of evaluation.answer.
    """
    rows = []
    for size in sizes:
        predictor = load(run, img_size=size, **loading)
        figures = answer(predictor, source, **options).figures(predictor.task, predictor.classes)
        speed = images_per_second(predictor, size, options.get("batch_size", BATCH))
        network: Any = predictor.network
        rows.append(AtSize(size, figures, speed, VIEWS[predictor.card.tta] * gmacs_of(network.model, size)))
    return rows


def images_per_second(predictor: Predictor, size: int, batch_size: int) -> float:
    """Measures the speed of a predictor on random images of a size, as the median over some batches."""
    images = torch.randint(0, 256, (batch_size, 3, size, size), dtype=torch.uint8)
    times: list[float] = []
    with torch.inference_mode():
        predictor.logits(images)
        while len(times) < LEAST or sum(times) < SECONDS:
            began = time.perf_counter()
            predictor.logits(images)
            times.append(time.perf_counter() - began)
    return batch_size / statistics.median(times)


def gmacs_of(model: nn.Module, size: int) -> float:
    """Counts the billions of multiply-accumulates for an image of that side."""
    twin = copy.deepcopy(model).requires_grad_(False).eval()
    for module in twin.modules():
        if hasattr(module, "fused_attn"):  # the counter does not know that of CPUs
            module.fused_attn = False  # type: ignore[assignment]
    with FlopCounterMode(display=False) as counter:
        twin(torch.zeros(1, 3, size, size, device=next(twin.parameters()).device))
    return counter.get_total_flops() / 2e9


def print_sizes(rows: Sequence[AtSize], title: str, own: int, predictor: Predictor, console: Console) -> None:
    """Prints a line for each size, with the model's own and the best one marked."""
    task = predictor.task
    table = Table(title=f"{title}: {rows[0].figures.images:,} images", title_justify="left")
    for name in ("size", f"{task.score_name} %", "loss", "images/s", "GMACs"):
        table.add_column(name, justify="right")
    table.add_column("")
    chosen = best_of(rows, predictor)
    for row in rows:
        marks = ["best"] * (row is chosen) + ["the model's own"] * (row.img_size == own)
        score, speed = 100 * task.score_of(row.figures), row.images_per_second
        loss = "-" if row.figures.loss is None else f"{row.figures.loss:.4f}"  # a detector's answers have none
        figures = f"{score:.2f}", loss, f"{speed:,.0f}", f"{row.gmacs:.3f}"
        table.add_row(f"{row.img_size} px", *figures, ", ".join(marks))
    console.print(table)


def best_of(rows: Sequence[AtSize], predictor: Predictor) -> AtSize:
    """Returns the row with the highest score; among equals that of the smallest size."""
    return max(rows, key=lambda row: (predictor.task.score_of(row.figures), -row.img_size))


def keep_and_say(
    run: str, keep: str, rows: Sequence[AtSize], predictor: Predictor, data: str, console: Console
) -> None:
    """Writes the size that is kept into the model's config.json, and says so."""
    best = keep == "best"
    row = best_of(rows, predictor) if best else next(row for row in rows if row.img_size == int(keep))
    score = f"{predictor.task.score_name} {100 * predictor.task.score_of(row.figures):.2f} %"
    among = ", ".join(str(row.img_size) for row in rows)
    rule = f"the best of {among} px on the validation images of {data} ({score})" if best else "named by the user"
    path = write_size(run, row.img_size, rule)
    say(console, f"kept: {row.img_size} px in {path}: every verb uses this size from now on")
