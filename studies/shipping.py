"""Measures what is shipped: exported files beside their models, int8, the page in a browser, the runtime's size.

python -m studies.shipping PART... [--data FOLDER] [--models NAME...]

PART is exports, int8, page or runtime. `exports` exports each model for ONNX Runtime and OpenVINO with all checks;
those of timm's names have random weights, spread so that their logits differ as those of a trained model do. `int8`
needs DATA, the labelled images of stt_micro.cifar10: it calibrates on training images and compares on all test images.
`page` needs Chromium and Playwright, `runtime` an index of packages. Nothing else may run meanwhile, but for exports.

The rows go to results/shipping/rows.csv, in place of older ones of the same part and model;
`python -m studies.shipping_page` writes docs/shipping.md.
"""

import argparse
import functools
import http.server
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
import venv
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch

from supertokenvit.benchmarking.report import quartiles
from supertokenvit.benchmarking.timing import take_turns
from supertokenvit.engines.graph_file import GraphFile
from supertokenvit.evaluation import open_labelled
from supertokenvit.exporting.export import PARITY, export
from supertokenvit.exporting.options import ExportError
from supertokenvit.exporting.parity import compare_int8, photographs
from supertokenvit.machine import cores, environment
from supertokenvit.model_folder import ModelCard, TrainedModel, is_trained, save_model
from supertokenvit.prediction import GraphPredictor, load
from supertokenvit.preprocessing import Preprocess, normalize

from .common import RESULTS, ROOT, commit, figure, now, read_rows, write_rows

SHIPPED = "stt_micro.cifar10"
MODELS = [SHIPPED, "stt_t", "stt_s25", "resnet18", "swin_tiny_patch4_window7_224"]
WINDOWS = {"phone": (360, 740), "tablet": (820, 1180), "desktop": (1440, 900)}
ROUNDS, BATCH = 15, 64
SPREAD = 3.0  # standard deviation of the logits of models with random weights
Row = dict[str, Any]


def spread_weights(name: str, folder: Path) -> Path:
    """Makes a model folder of timm's model with random weights, whose answers differ from photograph to photograph."""
    torch.manual_seed(0)
    model: Any = timm.create_model(name, num_classes=100).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))  # a LayerScale of 1e-5 would hide its layer
        config = timm.data.resolve_data_config({}, model=model)
        preprocess = Preprocess(config)
        seen = torch.stack([preprocess(picture) for picture in photographs()])
        logits = model(normalize(seen, config["mean"], config["std"]))
        for parameter in model.get_classifier().parameters():
            parameter.mul_(SPREAD / logits.std())
    classes = [f"class {number}" for number in range(100)]
    save_model(TrainedModel(model, classes, config, ModelCard(), folder / "model"))
    return folder


def exports(models: Sequence[str], data: str | None) -> Iterator[Row]:
    """Exports models in both formats, and says how near each check came to its limit."""
    for name in models:
        for format in ("onnx", "openvino"):
            with tempfile.TemporaryDirectory() as home:
                run = name if is_trained(name) else spread_weights(name, Path(home) / "run")
                began = time.perf_counter()
                try:
                    folder = export(run, format=format, out=str(Path(home) / format)).parent
                except ExportError as error:
                    yield figure(f"refused: {error}", 0, "") | {"model": name, "format": format}
                    continue
                seconds = time.perf_counter() - began
                checks = json.loads((folder / PARITY).read_text())["checks"]
                worst = [check["value"] / check["limit"] for check in checks if check["limit"]]
                size = sum(path.stat().st_size for path in folder.iterdir() if path.suffix in (".onnx", ".xml", ".bin"))
                for row in [
                    figure("checks that passed", len(checks), "checks"),
                    figure("largest difference", max(worst), "of its limit", "at most 1"),
                    figure("time with its checks", seconds, "s", "at most 20" if name == SHIPPED else ""),
                    figure("size", size / 1e6, "MB"),
                ]:
                    yield row | {"model": name, "format": format}


def int8(models: Sequence[str], data: str | None) -> Iterator[Row]:
    """Compares 8 bits with the model on all test images, and their speeds in turns."""
    if data is None:
        raise SystemExit("int8: needs --data")
    with tempfile.TemporaryDirectory() as home:
        options = {"format": "openvino", "out": f"{home}/int8", "int8": True, "calibrate": data}
        paths = {"int8": export(SHIPPED, print, **options)}
        paths["fp32"] = export(SHIPPED, print, format="openvino", out=f"{home}/fp32")
        predictor = load(SHIPPED)
        source, split, _ = open_labelled(SHIPPED, predictor.card, data, "test")
        same, lost = compare_int8(GraphPredictor(GraphFile(paths["int8"], cores())), predictor, source)
        where = f"{len(source):,} images ({split})"
        yield figure(f"answers that stay the same on {where}", 100 * same.value, "%", "at least 99")
        yield figure(f"accuracy lost on {where}", 100 * lost.value, "points", "at most 0.3")
        yield from speeds_of(paths)
        for kind, path in paths.items():
            size = path.stat().st_size + path.with_suffix(".bin").stat().st_size
            yield figure(f"size in {kind}", size / 1e6, "MB")


def speeds_of(paths: dict[str, Path]) -> Iterator[Row]:
    """Measures files in turns, with batches of photographs of the side that the model sees."""
    images = np.random.default_rng(0).integers(0, 256, (BATCH, 32, 32, 3), dtype=np.uint8)
    files = {kind: GraphFile(path, cores()) for kind, path in paths.items()}
    calls: dict[str, Callable[[], Any]] = {kind: functools.partial(file, images) for kind, file in files.items()}
    times, errors = take_turns(calls, rounds=ROUNDS, seconds=1.0)
    if errors:
        raise SystemExit(str(errors))
    low, middle, high = quartiles([a / b for a, b in zip(times["fp32"], times["int8"], strict=True)])
    what = f"speed at batch {BATCH}"
    yield figure(f"{what}: fp32", BATCH / statistics.median(times["fp32"]), "images/s")
    yield figure(f"{what}: int8", BATCH / statistics.median(times["int8"]), "images/s")
    for end, value in (("lower quartile", low), ("median", middle), ("upper quartile", high)):
        yield figure(f"{what}: int8 to fp32, {end}", value, "times", "at least 1.9" if end == "median" else "")


def page(models: Sequence[str], data: str | None) -> Iterator[Row]:
    """Measures the page in Chromium: until it is ready, the first answer and later ones, the first heat map, bytes."""
    from playwright.sync_api import sync_playwright

    with tempfile.TemporaryDirectory() as home, sync_playwright() as play:
        folder = export(SHIPPED, print, format="web", out=f"{home}/page").parent
        next(photographs()).save(f"{home}/photograph.jpg", quality=92)
        for kind, files in {
            "until the first answer": [path for path in folder.rglob("*") if path.name != "map.onnx"],
            "more, for the first heat map": [*folder.rglob("map.onnx")],
        }.items():
            size = sum(path.stat().st_size for path in files if path.is_file())
            yield figure(f"bytes {kind}", size / 1e6, "MB", "at most 25" if kind.endswith("answer") else "")
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        threading.Thread(target=server.serve_forever, daemon=True).start()
        browser = play.chromium.launch(executable_path=chromium(), args=["--no-sandbox"])
        for name, (width, height) in WINDOWS.items():
            found: dict[str, list[float]] = {}
            for _ in range(5):
                opened = browser.new_context(viewport={"width": width, "height": height}).new_page()
                for what, one in visit(opened, f"http://127.0.0.1:{server.server_port}", f"{home}/photograph.jpg"):
                    found.setdefault(what, []).append(one)
                opened.context.close()
            wanted = {"ready": "at most 2000", "a later answer": "at most 60"}
            for what, seconds in found.items():
                yield figure(f"{name}: {what}", 1000 * statistics.median(seconds), "ms", wanted.get(what, ""))
        browser.close()
        server.shutdown()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves a folder and writes nothing."""

    def log_message(self, *words: Any) -> None:  # noqa: D102
        pass


def chromium() -> str | None:
    """Returns the path of Debian's Chromium; None for the one of Playwright."""
    path = "/usr/bin/chromium"
    return path if os.path.exists(path) else None


def visit(opened: Any, address: str, photograph: str) -> Iterator[tuple[str, float]]:
    """Opens the page, has a photograph answered several times and one heat map made; yields the seconds of each."""
    idle, answered = '#page[aria-busy="false"]', "#status:has(.unseen)"
    began = time.perf_counter()
    opened.goto(address)
    opened.wait_for_selector(idle)
    yield "ready", time.perf_counter() - began
    for number in range(6):
        opened.set_input_files("#file", photograph)
        opened.wait_for_selector(answered)
        said = float(opened.inner_text("#status").split("Answered in ")[1].split(" ")[0])
        yield "a later answer" if number else "the first answer", said
    began = time.perf_counter()
    opened.select_option("#why", index=1)
    opened.wait_for_selector("#map:not([hidden])")
    yield "the first heat map", time.perf_counter() - began


def runtime(models: Sequence[str], data: str | None) -> Iterator[Row]:
    """Measures the runtime in an environment of its own: its size, and a whole command until the first answer."""
    with tempfile.TemporaryDirectory() as home:
        file = export(SHIPPED, print, out=f"{home}/exported")
        next(photographs()).save(f"{home}/photograph.jpg")
        venv.create(f"{home}/env")
        clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
        python = f"{home}/env/bin/python"
        target = next(Path(home, "env", "lib").glob("python*")) / "site-packages"
        words = ["-m", "pip", "install", "--quiet", "--target", str(target), str(ROOT / "runtime")]
        subprocess.run([sys.executable, *words], check=True, env=clean)
        size = sum(path.stat().st_size for path in target.rglob("*") if path.is_file() and not path.is_symlink())
        yield figure("size with everything it needs", size / 1e6, "MB", "at most 210")
        code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"
        torch_there = subprocess.run([python, "-c", code], env=clean).returncode
        yield figure("torch is there", torch_there, "", "0")
        words = [python, "-m", "supertokenvit_runtime.cli", "predict", f"{home}/photograph.jpg", "--model", str(file)]
        times = []
        for _ in range(ROUNDS):
            began = time.perf_counter()
            subprocess.run(words, check=True, env=clean, capture_output=True)
            times.append(time.perf_counter() - began)
        yield figure("whole command for one photograph, median", statistics.median(times), "s", "at most 0.4")


PARTS = {"exports": exports, "int8": int8, "page": page, "runtime": runtime}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="+", choices=PARTS)
    parser.add_argument("--data")
    parser.add_argument("--models", nargs="+", default=MODELS, help="of exports")
    given = parser.parse_args(argv)
    path = RESULTS / "shipping" / "rows.csv"
    for part in given.parts:
        here = {"date": now(), "commit": commit()} | environment()
        rows = [
            {"part": part, "model": SHIPPED, "format": ""} | row | here for row in PARTS[part](given.models, given.data)
        ]
        anew = {(row["part"], row["model"]) for row in rows}
        write_rows(path, [row for row in read_rows(path) if (row["part"], row["model"]) not in anew] + rows)


if __name__ == "__main__":
    main()
