"""Exports a trained model, and keeps the file only if it answers as the model does."""

import copy
import os
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from timm.models import get_pretrained_cfg

from ..engines.graph_file import GraphFile
from ..engines.packages import need
from ..machine import cores
from ..model_folder import TrainedModel, is_shipped, load_model, read_config
from ..prediction import GraphPredictor, Predictor
from ..run_folder import RunFolder, replace_folder, write_json, write_text
from ..tasks import Labels
from . import web
from .describing import readme
from .graph import ExportedNetwork, about_of, write_onnx, write_openvino
from .heat_map import add_map
from .options import ExportError, ExportOptions, reason_of
from .parity import Check, compare_int8, compare_photographs, compare_sizes, photographs, shapes_of
from .quantising import quantise

FILES = {"onnx": "model.onnx", "openvino": "model.xml", "web": "model.onnx"}
PACKAGES = {"onnx": "onnxruntime", "openvino": "openvino", "web": "onnxruntime"}
LABELS, PARITY, README = "labels.txt", "parity.json", "README.md"


def export(run: str | os.PathLike, say: Callable[[str], None] = lambda line: None, **options: Any) -> Path:
    """Exports a trained model into a folder: the graph, its labels, what was checked, and how to use it.

    The folder is written only if every check passes; an older one stays as it is until then.

    Args:
        run: Run folder, or the model folder in it, or the name of a model that comes with the package.
        say: Called with a line for each step.
        **options: Fields of ExportOptions.

    Returns:
        The exported file, or the page that shows it.

    Raises:
        ExportError: It cannot be exported, or a check failed.
        EngineError: A package of the extra `export` is missing.

    Example:
        >>> import supertokenvit
        >>> supertokenvit.export("stt_micro.cifar10", out="exported")  # doctest: +SKIP
        PosixPath('exported/model.onnx')
    """
    chosen = ExportOptions(**options)
    trained, predictor = to_export(run, chosen)
    folder = Path(chosen.out) if chosen.out is not None else home_of(run) / "export" / chosen.format
    check_place(folder, chosen.format)
    folder.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    fresh.chmod(0o755)
    try:
        if chosen.format == "web":
            name = name_of(run) or "model"
            checks = write_and_check(web.model_folder(fresh, name), run, trained, predictor, chosen, say)
            web.write_page(fresh, name, folder, chosen.examples)
        else:
            checks = write_and_check(fresh, run, trained, predictor, chosen, say)
        replace_folder(fresh, folder)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise
    say(f"{len(checks)} checks passed (see {PARITY})")
    return folder / (web.INDEX if chosen.format == "web" else FILES[chosen.format])


def to_export(run: str | os.PathLike, chosen: ExportOptions) -> tuple[TrainedModel, Predictor]:
    """Reads the model, and makes the predictor that the exported file has to equal.

    Raises:
        ExportError: It answers with masks or boxes, or the options do not go together.
        EngineError: A package is missing.
    """
    need(PACKAGES[chosen.format])
    if chosen.int8 and chosen.format != "openvino":
        raise ExportError("--int8: only with --format openvino: in 8 bits ONNX Runtime gained little")
    if chosen.int8 and chosen.input != "photo":
        raise ExportError("--int8: only with --input photo, on which its accuracy can be measured")
    if chosen.calibrate is not None and not chosen.int8:
        raise ExportError("--calibrate: only with --int8")
    if chosen.format == "web":
        web.refuse_options(chosen)
    elif chosen.examples is not None:
        raise ExportError("--examples: only with --format web")
    trained = load_model(run, chosen.img_size)
    if chosen.format == "web":  # it is there to be published
        trained = replace(trained, card=trained.card.for_others())
    if chosen.tta != "as-trained":
        trained = replace(trained, card=replace(trained.card, tta=chosen.tta))
    predictor = Predictor.of(trained)
    if not isinstance(predictor.task, Labels):
        raise ExportError(f"{run}: a model for {trained.card.task} cannot be exported yet, only one that gives labels")
    return trained, predictor


def home_of(run: str | os.PathLike) -> Path:
    """Returns the folder in which exports of a model have their place."""
    folder, _ = read_config(run)
    if is_shipped(folder):
        return Path("runs") / folder.name
    return folder.parent if RunFolder(folder.parent).recipe.exists() else folder


def check_place(folder: Path, format: str) -> None:
    """Refuses a folder that holds anything but an older export.

    Args:
        folder: To write.
        format: Of the export; a page takes the place of a page only, as there may be more models in it.

    Raises:
        ExportError: It does.
    """
    if not folder.exists():
        return
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else {""}
    if there and not (web.is_page(there) if format == "web" else PARITY in there):
        raise ExportError(f"{folder}: not empty, and no export; choose another --out")


def write_and_check(
    folder: Path,
    run: str | os.PathLike,
    trained: TrainedModel,
    predictor: Predictor,
    chosen: ExportOptions,
    say: Callable[[str], None],
) -> list[Check]:
    """Writes everything into an empty folder and returns the checks, all of which have passed.

    Raises:
        ExportError: One did not, or torch cannot export the model.
    """
    own = copy.deepcopy(trained.model)
    photo = chosen.input == "photo"
    network = ExportedNetwork(
        replace(trained, model=own), predictor.task, photographs=photo, embedding=chosen.embedding
    ).eval()
    size = trained.data_config["input_size"][-2:]
    takes_any = photo or takes_any_size(run)
    say(f"exporting {trained.path.name} for {chosen.format}")
    graph, path = folder / FILES["onnx"], folder / FILES[chosen.format]
    about = about_of(trained, name_of(run), network, predictor.preprocess.enough)
    try:
        write_onnx(network, about, graph, None if takes_any else size)
    except Exception as error:  # torch's exporter raises nearly anything
        raise ExportError(f"{run}: torch cannot export it ({reason_of(error)})") from error
    if chosen.format == "openvino":
        write_openvino(graph, path)
        graph.unlink()
    side = size[-1] if network.resize is None else network.resize.scaled[-1]  # at which no pixel is computed anew
    shapes = shapes_of(side) if takes_any else [(1, *size), (3, *size)]
    say(f"checking it at {len(shapes)} sizes and on photographs")
    checks = compare_sizes(GraphFile(path, cores()), network, shapes)
    pictures = list(photographs())
    checks += compare_photographs(GraphPredictor(GraphFile(path, cores())), predictor, pictures)
    refuse_failed(run, checks)
    if chosen.int8:
        checks += quantised(path, run, predictor, chosen, say)
    if chosen.format == "web":
        of_maps = add_map(folder, predictor, pictures, say)
        web.write_about(folder, about | {"explains": bool(of_maps)})
        checks += of_maps
    write_text(folder / LABELS, "".join(f"{label}\n" for label in trained.classes))
    write_json(folder / PARITY, {"passed": True, "checks": [asdict(check) for check in checks]})
    write_text(folder / README, readme(about, path.name, checks))
    return checks


def quantised(
    path: Path, run: str | os.PathLike, predictor: Predictor, chosen: ExportOptions, say: Callable[[str], None]
) -> list[Check]:
    """Quantises a file in place and compares it with the model on labelled images.

    Raises:
        ExportError: It answers otherwise.
    """
    from ..evaluation import open_labelled

    say("quantising it with training images")
    source = open_labelled(run, predictor.card, chosen.calibrate, "train")[0]
    quantise(path, source, predictor.preprocess.enough)
    held_out, split, _ = open_labelled(run, predictor.card, chosen.calibrate, "val")
    say(f"comparing it on {len(held_out):,} images ({split})")
    checks = compare_int8(GraphPredictor(GraphFile(path, cores())), predictor, held_out)
    refuse_failed(run, checks)
    return checks


def refuse_failed(run: str | os.PathLike, checks: list[Check]) -> None:
    """Raises ExportError that names the checks that failed, if any did."""
    failed = [check for check in checks if not check.passed]
    if failed:
        named = "; ".join(f"{check.what}: {check.value:.2g}, limit {check.limit:g}" for check in failed[:3])
        more = f" and {len(failed) - 3} more" if len(failed) > 3 else ""
        raise ExportError(f"{run}: nothing was written, as the exported file answers otherwise ({named}{more})")


def takes_any_size(run: str | os.PathLike) -> bool:
    """Says whether a model takes images of any size, as far as timm knows."""
    registered = get_pretrained_cfg(read_config(run)[1]["architecture"])
    return registered is not None and not registered.fixed_input_size


def name_of(run: str | os.PathLike) -> str:
    """Returns what a model is called: the name of its run folder, or that of a model that comes with the package."""
    folder, _ = read_config(run)
    return folder.parent.name if folder.name == "model" else folder.name
