"""Measures accuracy and speed of trained models at several image sizes, on CIFAR-10's test images.

python -m studies.sizes --data FOLDER --models stt_micro.cifar10 runs/sizes [--sizes 24,28,32,40,48,64] [--count 10000]

DATA is CIFAR-10 as folders. MODELS are names of models that come with the package, and run folders. The rows go to
results/sizes/rows.csv: a row for each model and size, with the accuracy of one view of an image. `python -m
studies.sizes_page` writes docs/sizes.md from them.

Whole picture: the picture itself is enlarged or reduced to the size. On a canvas: the picture keeps its own size in the
middle of a canvas of the mean colour, so that it is a smaller part of a larger image.

Models and sizes take turns in one process; nothing else may run meanwhile.
"""

import argparse
import json
import math
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from supertokenvit.benchmarking.report import quartiles
from supertokenvit.data.sources import Source, Subset
from supertokenvit.data.splits import read_splits
from supertokenvit.evaluation import answer
from supertokenvit.evaluation_sizes import gmacs_of
from supertokenvit.machine import environment, keep_freed_memory
from supertokenvit.prediction import Predictor, load
from supertokenvit.sizes import read_sizes

from .common import RESULTS, commit, now, write_rows
from .prediction import turns

SIZES, BATCH, ROUNDS = (24, 28, 32, 36, 40, 48, 56, 64), 64, 15


def on_canvas(images: Tensor, size: int, colour: Sequence[float]) -> Tensor:
    """Puts images uint8 [N, 3, S, S] into the middle of a canvas of that side, [N, 3, size, size].

    Args:
        images: No larger than the canvas.
        size: Side of the canvas in pixels.
        colour: Of the canvas, 0 to 1.
    """
    canvas = torch.tensor([round(255 * value) for value in colour], dtype=torch.uint8)[None, :, None, None]
    canvas = canvas.repeat(len(images), 1, size, size)
    first = (size - images.shape[-1]) // 2
    canvas[..., first : first + images.shape[-1], first : first + images.shape[-1]] = images
    return canvas


def accuracy(predictor: Predictor, images: Tensor, targets: Tensor) -> float:
    """Returns the fraction of images uint8 [N, 3, S, S] that are answered rightly."""
    with torch.inference_mode():
        answered = torch.cat([predictor.logits(part).argmax(1) for part in images.split(BATCH)])
    return (answered == targets).float().mean().item()


def measure(models: Sequence[str], source: Source, sizes: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Measures every model at every size.

    Args:
        models: Run folders and names.
        source: Labelled images.
        sizes: Sides in pixels.
        rounds: Turns of each, for its speed.
    """
    rows: list[dict[str, Any]] = []
    calls: dict[str, Callable[[], Any]] = {}
    own_images: dict[int, Tensor] = {}
    for name in models:
        own = load(name, tta="none", device="cpu")
        side, targets = own.preprocess.side[0], own.task.truth(source, own.classes)
        if side not in own_images:
            own_images[side] = torch.stack([own.preprocess(source.image(i)) for i in range(len(source))])
        for size in sizes:
            predictor = load(name, img_size=size, tta="none", device="cpu")
            figures = answer(predictor, source, progress=False).figures(predictor.task, predictor.classes)
            assert figures.top1 is not None
            row: dict[str, Any] = {"model": Path(name).name, "own_size": side, "img_size": size, "top1": figures.top1}
            row |= {"standard_error": math.sqrt(figures.top1 * (1 - figures.top1) / len(source)), "canvas_top1": ""}
            if size >= side:
                canvas = on_canvas(own_images[side], size, own.data_config["mean"])
                row["canvas_top1"] = accuracy(predictor, canvas, targets)
            network: Any = predictor.network
            rows.append(row | {"images": len(source), "gmacs": gmacs_of(network.model, size)})
            random = torch.randint(0, 256, (BATCH, 3, size, size), dtype=torch.uint8)
            calls[f"{name} {size}"] = partial(infer, predictor, random)
            print(f"{name} at {size} px: {100 * figures.top1:.2f} %", flush=True)
    turns(calls, 1)  # to warm up
    seconds = turns(calls, rounds)
    for row, times in zip(rows, seconds.values(), strict=True):
        low, middle, high = quartiles([BATCH / each for each in times])
        row |= {"images_per_second": round(middle, 2), "q1": round(low, 2), "q3": round(high, 2)}
    return rows


def infer(predictor: Predictor, images: Tensor) -> None:
    """Answers for a batch."""
    with torch.inference_mode():
        predictor.logits(images)


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="CIFAR-10 as folders, of which the test images are measured")
    parser.add_argument("--models", nargs="+", required=True, help="names of models, and run folders")
    parser.add_argument("--sizes", type=read_sizes, default=SIZES, help="sides in pixels")
    parser.add_argument("--count", type=int, default=10_000, help="test images, evenly from all")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="turns of each")
    args = parser.parse_args(argv)
    keep_freed_memory()
    source = read_splits(args.data).splits["test"]
    few = Subset(source, torch.linspace(0, len(source) - 1, min(args.count, len(source))).long().numpy())
    here = {"threads": torch.get_num_threads(), "date": now(), "commit": commit()}
    here["environment"] = json.dumps(environment())
    rows = measure(args.models, few, args.sizes, args.rounds)
    write_rows(RESULTS / "sizes" / "rows.csv", [row | here for row in rows])


if __name__ == "__main__":
    main()
