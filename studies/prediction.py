"""Measures how fast `supertokenvit predict` answers beside the bare model, and how fast the command starts.

python -m studies.prediction --images FOLDER --photos FOLDER [--count 2500] [--rounds 5] [--run RUN --data DATA]

IMAGES holds small image files (CIFAR-10's test images), PHOTOS some photographs, of which files of 12 megapixels are
made in a temporary folder. RUN was trained on photographs, and DATA are labelled ones: what the decoder's reduction of
JPEGs changes in its answers goes to results/prediction/reduction.csv.

What is compared takes turns in one process; nothing else may run meanwhile. The rows go to
results/prediction/rows.csv: medians with quartiles, and ratios within each round.
"""

import argparse
import itertools
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from supertokenvit.benchmarking.report import quartiles
from supertokenvit.data.listing import find_images
from supertokenvit.data.splits import read_splits
from supertokenvit.evaluation import evaluate_source
from supertokenvit.machine import best_precision, environment, keep_freed_memory
from supertokenvit.prediction import Predictor, load
from supertokenvit.preprocessing import Preprocess
from supertokenvit_runtime.decode import read_picture

from .common import RESULTS, commit, now, write_rows

MODEL = "stt_micro.cifar10"
PHOTO = (4000, 3000)
PHOTOS, COPIES = 60, 4
COMMAND = [sys.executable, "-m", "supertokenvit.cli"]
BARE_IMPORT = [sys.executable, "-c", "import torch, timm"]


def turns(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """Returns the seconds of each call in each round; every second round goes backwards."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(rounds):
        for name in list(calls) if number % 2 == 0 else list(calls)[::-1]:
            began = time.perf_counter()
            calls[name]()
            seconds[name].append(time.perf_counter() - began)
    return seconds


def bare(predictor: Predictor, files: Sequence[Path], batch: int) -> Callable[[], None]:
    """Makes the call of the model alone: on images that are decoded already, with the same views."""
    pixels = torch.stack([predictor.preprocess(read_picture(file)) for file in files])

    def call() -> None:
        with torch.inference_mode():
            for start in range(0, len(pixels), batch):
                predictor.logits(pixels[start : start + batch])

    return call


def command(*words: str) -> Callable[[], Any]:
    """Makes the call of a process that must end well."""
    return lambda: subprocess.run([*words], check=True, capture_output=True)


def make_photos(folder: Path, photos: Sequence[Path]) -> list[Path]:
    """Writes photographs of 12 megapixels, as cameras make them."""
    made = []
    for number, photo in zip(range(PHOTOS), itertools.cycle(photos), strict=False):
        made.append(folder / f"{number:03}.jpg")
        with Image.open(photo) as image:
            image.convert("RGB").resize(PHOTO, Image.Resampling.BICUBIC).save(made[-1], quality=90)
    return [file for file in made for _ in range(COPIES)]


class Whole(Preprocess):
    """Preprocessing for which no image is large enough, so that every JPEG is decoded whole."""

    enough = 10**9


def reduction(run: str, data: str) -> list[dict[str, Any]]:
    """Measures a model on each split of labelled photographs, with JPEGs decoded whole and as `predict` does."""
    rows = []
    for split, source in read_splits(data).splits.items():
        whole, reduced = load(run, device="cpu"), load(run, device="cpu")
        whole.preprocess = Whole(whole.data_config)
        row: dict[str, Any] = {"split": split, "images": len(source), "side": reduced.preprocess.side[0]}
        for name, predictor in (("whole", whole), ("reduced", reduced)):
            row[f"{name}_top1"] = evaluate_source(predictor, source, progress=False).top1
        files = [Path(source.name(i)) for i in range(len(source))]
        answers = [list(predictor.predict(files, topk=1)) for predictor in (whole, reduced)]
        row["same_answer"] = sum(a.labels == b.labels for a, b in zip(*answers, strict=True)) / len(source)
        rows.append(row | {"date": now(), "commit": commit()} | environment())
        print(f"{split}: {row}", flush=True)
    return rows


def rates(files: Sequence[Path], what: str, rounds: int) -> list[dict[str, Any]]:
    """Measures the model alone, the Predictor and the whole command on files; ratios are to the model alone."""
    predictor, gaining = load(MODEL, device="cpu"), load(MODEL, device="cpu", precision="auto")
    thorough = load(MODEL, device="cpu")
    thorough.preprocess = Whole(thorough.data_config)
    calls: dict[str, Callable[[], Any]] = {
        "the model alone": bare(predictor, files, 64),
        "Predictor": lambda: list(predictor.predict(files)),
        "Predictor, JPEGs decoded whole": lambda: list(thorough.predict(files)),
        "supertokenvit predict --json": command(*COMMAND, "predict", "--model", MODEL, "--json", *map(str, files)),
        "the model alone, precision auto": bare(gaining, files, 64),
        "Predictor, precision auto": lambda: list(gaining.predict(files)),
    }
    seconds = turns(calls, rounds)
    return [summary(what, name, seconds[name], seconds["the model alone"], len(files), "images/s") for name in calls]


def starts(photo: Path, rounds: int) -> list[dict[str, Any]]:
    """Measures how long the command takes to start; ratios are to importing torch and timm."""
    one = [*COMMAND, "predict", "--model", MODEL, "--json", str(photo)]
    calls = {
        "import torch, timm": command(*BARE_IMPORT),
        "predict of one image": command(*one),
        "--help": command(*COMMAND, "--help"),
        "--version": command(*COMMAND, "--version"),
        "train --help": command(*COMMAND, "train", "--help"),
    }
    seconds = turns(calls, rounds)
    return [summary("start", name, seconds[name], seconds["import torch, timm"], 1, "s") for name in calls]


def summary(group: str, name: str, seconds: list[float], base: list[float], count: int, unit: str) -> dict[str, Any]:
    """Returns a row: median and quartiles, and the ratio to the base within each round (of speeds, or of times)."""
    rate = unit == "images/s"
    low, middle, high = quartiles([count / s if rate else s for s in seconds])
    ratios = [(b / s if rate else s / b) for s, b in zip(seconds, base, strict=True)]
    row: dict[str, Any] = {"group": group, "what": name, "unit": unit, "value": round(middle, 4)}
    row |= {"q1": round(low, 4), "q3": round(high, 4), "count": count}
    row |= {f"ratio{end}": round(r, 4) for end, r in zip(("_q1", "", "_q3"), quartiles(ratios), strict=True)}
    return row | {"seconds": json.dumps([round(s, 4) for s in seconds])}


def main(argv: Sequence[str] | None = None) -> None:
    """Measures and writes the rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of small image files")
    parser.add_argument("--photos", type=Path, required=True, help="folder of photographs")
    parser.add_argument("--run", help="run folder of a model that was trained on photographs")
    parser.add_argument("--data", help="labelled photographs")
    parser.add_argument("--count", type=int, default=2500, help="small files to answer for")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each")
    args = parser.parse_args(argv)
    keep_freed_memory()
    if args.run and args.data:
        write_rows(RESULTS / "prediction" / "reduction.csv", reduction(args.run, args.data))
    every = find_images([str(args.images)])
    files = every[:: max(1, len(every) // args.count)][: args.count]
    photos = find_images([str(args.photos)])
    rows = rates(files, "files of 32 px", args.rounds)
    with tempfile.TemporaryDirectory() as folder:
        rows += rates(make_photos(Path(folder), photos), "photographs of 12 MP", args.rounds)
    rows += starts(photos[0], 2 * args.rounds)
    here = {"date": now(), "commit": commit(), "precision_auto": best_precision(torch.device("cpu"))[0]}
    rows = [row | here | environment() for row in rows]
    for row in rows:
        print(f"{row['group']}: {row['what']}: {row['value']:g} {row['unit']}, {row['ratio']:.2f} times", flush=True)
    write_rows(RESULTS / "prediction" / "rows.csv", rows)


if __name__ == "__main__":
    main()
