"""What a trained model is on disk: reading and writing a run folder and the model folder in it."""

import copy
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.data import resolve_data_config
from timm.models import save_for_hf
from torch import nn

from .errors import UserError
from .model.architecture import Architecture
from .model.family import SHIPPED, WEIGHTS

OLDER = (
    "if an older version made it, write its architecture into model_args of config.json "
    '(0.1.0 had "stem_convs": 2, "stem_order": "before", "local_mlp_ratio": 4.0 and "global_layers": 4 in stt_micro '
    'and stt_nano, and "width": 192 in stt_micro)'
)


class RunFolderError(UserError):
    """A folder that is no run folder, or cannot become one; one line that says what to do."""


@dataclass
class TrainedModel:
    """A model with all that is needed to use it.

    Args:
        model: In eval mode.
        classes: Names in the order of the logits.
        data_config: timm's: input_size, mean, std, interpolation, crop_pct, crop_mode.
        about: What the training left: data, fingerprint, licence note, accuracy, ...
        path: Of the model folder.
    """

    model: nn.Module
    classes: list[str]
    data_config: dict[str, Any]
    about: dict[str, Any]
    path: Path

    @property
    def multi_label(self) -> bool:
        """Whether an image may have several classes."""
        return bool(self.about.get("multi_label", False))

    @property
    def tta(self) -> str:
        """Over which views of an image its answer is the mean: none, flip or shift."""
        return self.about.get("tta", "none")


def new_run_folder(wanted: str | None, data: str) -> Path:
    """Makes an empty run folder: the one wanted, or runs/NAME of the data with a number behind it if taken.

    Raises:
        RunFolderError: The one wanted has something in it.
    """
    if wanted is not None:
        path = Path(wanted)
        path.mkdir(parents=True, exist_ok=True)
        if any(path.iterdir()):
            raise RunFolderError(f"{path}: not empty; choose another --out, or go on with --resume {path}")
    else:
        stem = Path(data.split("/", 1)[-1] if data.startswith(("wds/", "hfds/", "torch/")) else data).name
        stem = stem.split(".")[0] or "run"
        path = Path("runs") / stem
        number = 2
        while True:
            try:  # another run may begin at the same time
                path.mkdir(parents=True)
                break
            except FileExistsError:
                path, number = Path("runs") / f"{stem}-{number}", number + 1
    return path


def architecture_of(model: nn.Module) -> dict[str, Any]:
    """Every field of a Super Token Transformer's architecture; nothing for other models."""
    architecture = getattr(model, "architecture", None)
    return asdict(architecture) if isinstance(architecture, Architecture) else {}


def save_model(
    model: nn.Module, folder: Path, *, classes: list[str], data_config: dict[str, Any], about: dict[str, Any]
) -> None:
    """Writes weights and config.json as timm's `local-dir:` and transformers read them, whole or not at all.

    Args:
        model: Made by timm.create_model.
        folder: To write; an older one is replaced when the new one is complete.
        classes: Names in the order of the logits.
        data_config: How images become the model's input.
        about: Goes into the config under "supertokenvit".
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    # safetensors takes no channels-last weights
    model = copy.deepcopy(model).cpu().to(memory_format=torch.contiguous_format)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    fresh.chmod(0o755)
    try:
        config = {"label_names": classes}
        save_for_hf(model, str(fresh), model_config=config, safe_serialization=True, data_config=data_config)
        path = fresh / "config.json"
        content = json.loads(path.read_text())
        # all of it, so that the model loads whatever a later version calls by its name
        content["model_args"] = architecture_of(model) | content.get("model_args", {})
        # transformers' TimmWrapper gives num_classes itself and fails when model_args has it too
        content["model_args"].pop("num_classes", None)
        content["supertokenvit"] = about
        path.write_text(json.dumps(content, indent=2))
        for file in fresh.iterdir():
            sync(file)
        old = folder.with_name(f".{folder.name}-old")
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
            folder.rename(old)
        fresh.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def is_trained(name: str) -> bool:
    """Whether a name is that of a folder, or of a model that comes with the package; else it may be one of timm's."""
    return name in SHIPPED or Path(name).exists()


def load_model(path: str | Path, img_size: int | None = None) -> TrainedModel:
    """Reads a run folder, the model folder in it, or NAME.TAG of a model that comes with the package.

    Args:
        path: Of the folder, or the name.
        img_size: Side of the images that it will see, in pixels; that of its training by default.

    Raises:
        RunFolderError: There is no model in it, or one that this version cannot make, or not for that size.
    """
    folder = WEIGHTS / str(path) if str(path) in SHIPPED else Path(path)
    if (folder / "model" / "config.json").exists():
        folder = folder / "model"
    if not (folder / "config.json").exists() or not (folder / "model.safetensors").exists():
        hint = "" if not (folder / "checkpoints").exists() else f"; go on training with --resume {path}"
        raise RunFolderError(f"{path}: no trained model in it (model/config.json and model/model.safetensors){hint}")
    try:
        content = json.loads((folder / "config.json").read_text())
    except ValueError as error:
        raise RunFolderError(f"{path}: its config.json is damaged ({error})") from None
    if not timm.is_model(content.get("architecture", "")):
        raise RunFolderError(f"{path}: holds a {content.get('architecture')}, which this version does not know")
    # only models that were built for a size are built for another one
    sized: dict[str, Any] = (
        {"img_size": img_size} if img_size is not None and "img_size" in content.get("model_args", {}) else {}
    )
    try:
        model = timm.create_model(f"local-dir:{folder}", pretrained=True, **sized)
    except AssertionError as error:
        raise RunFolderError(f"{path}: not for images of {img_size} px: {str(error) or 'timm refuses it'}") from error
    except RuntimeError as error:  # weights of other names or shapes
        raise RunFolderError(
            f"{path}: its weights do not fit the {content.get('architecture')} of this version: {OLDER}"
        ) from error
    except (TypeError, ValueError, SafetensorError) as error:
        raise RunFolderError(f"{path}: cannot be read by this version: {str(error).splitlines()[0]}") from error
    classes = list(content.get("label_names") or content["pretrained_cfg"].get("label_names") or [])
    data_config = resolve_data_config({}, pretrained_cfg=content["pretrained_cfg"])
    return TrainedModel(
        model=model.eval(),
        classes=classes,
        data_config=data_config | ({} if img_size is None else {"input_size": (3, img_size, img_size)}),
        about=content.get("supertokenvit") or content.get("supertoken", {}),  # its name until 0.1.0
        path=folder,
    )


def shipped_model() -> Path:
    """Folder of the most accurate of the models that come with the package.

    Raises:
        RunFolderError: None comes with this version.
    """
    folders = [WEIGHTS / name for name in SHIPPED]
    if not folders:
        raise RunFolderError("no trained model comes with this version: name one of yours with --model runs/NAME")
    return max(folders, key=lambda path: json.loads((path / "config.json").read_text())["supertokenvit"]["test_top1"])


def sync(path: Path) -> None:
    """Makes sure that a file's content is on the disk."""
    with open(path, "rb") as file:
        os.fsync(file.fileno())


def write_json(path: Path, content: Any) -> None:
    """Writes JSON under a temporary name and renames it."""
    temporary = path.with_name(f".{path.name}")
    temporary.write_text(json.dumps(content, indent=2) + "\n")
    sync(temporary)
    temporary.rename(path)
