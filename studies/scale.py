"""Measures `supertokenvit predict` with a model in torch, its exported file, and that over two processes; six views.

python -m studies.scale --data DATA [--count 5000] [--rounds 3] [--write]

DATA are the labelled images of the model, whose test images are answered for; if they are fewer than COUNT, each is
copied under several names. The model that comes with the package is exported for ONNX Runtime and, in 8 bits calibrated
on training images, for OpenVINO. Whole commands take turns, their start included; nothing else may run meanwhile.
With --write the rows go to results/scale/rows.csv; the ratio is to `predict` of the model in torch, within a round.
"""

import argparse
import itertools
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from supertokenvit.data.listing import find_images
from supertokenvit.exporting.export import export
from supertokenvit.machine import environment

from .common import RESULTS, commit, now, write_rows
from .prediction import COMMAND, MODEL, command, summary, turns

PROCESSES = (1, 2)
TORCH = "in torch"


def copies(images: Sequence[Path], folder: Path, count: int) -> Path:
    """Copies images into a new folder, over and over until there are enough, and returns it."""
    folder.mkdir()
    for number, image in zip(range(count), itertools.cycle(images), strict=False):
        shutil.copy(image, folder / f"{number:06}{image.suffix}")
    return folder


def measured(data: Path, count: int, rounds: int) -> list[dict[str, Any]]:
    """Measures the commands in turns and returns a row for each."""
    with tempfile.TemporaryDirectory() as home:
        file = export(MODEL, print, out=f"{home}/exported")
        int8 = export(MODEL, print, out=f"{home}/int8", format="openvino", int8=True, calibrate=str(data))
        folder = copies(find_images([str(data / "test")]), Path(home) / "images", count)
        out = str(Path(home) / "answers.parquet")
        words = [*COMMAND, "predict", str(folder), "--out", out, "--model"]
        calls = {TORCH: command(*words, MODEL), "exported": command(*words, str(file))}
        calls |= {f"exported, --processes {n}": command(*words, str(file), "--processes", str(n)) for n in PROCESSES}
        calls["exported in 8 bits"] = command(*words, str(int8))
        seconds = turns(calls, rounds)
    return [summary("scale", name, seconds[name], seconds[TORCH], count, "images/s") for name in calls]


def main(argv: Sequence[str] | None = None) -> None:
    """Measures, prints, and writes the rows if asked."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="labelled images of the model")
    parser.add_argument("--count", type=int, default=5000, help="images to answer for")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each")
    parser.add_argument("--write", action="store_true", help="write the rows, of a quiet machine alone")
    args = parser.parse_args(argv)
    here = {"date": now(), "commit": commit()} | environment()
    rows = [row | here for row in measured(args.data, args.count, args.rounds)]
    for row in rows:
        print(f"{row['what']}: {row['value']:g} {row['unit']}, {row['ratio']:.2f} times", flush=True)
    if args.write:
        write_rows(RESULTS / "scale" / "rows.csv", rows)


if __name__ == "__main__":
    main()
