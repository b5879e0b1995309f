"""A trained model on disk: weights and config.json, as timm's `local-dir:` and transformers read them."""

import contextlib
import copy
import errno
import json
import os
import shutil
import tempfile
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from timm.data import resolve_data_config
from torch import nn

from .dense import TASKS
from .model.architecture import Architecture
from .model.family import SHIPPED, WEIGHTS
from .model_page import page
from .run_folder import RunFolder, RunFolderError, replace_folder, write_json, write_text

CONFIG, WEIGHTS_FILE, CARD, PAGE = "config.json", "model.safetensors", "supertokenvit", "README.md"
HUB = "hf-hub:"  # begins the names of models on the Hugging Face Hub, as in timm
OLDER_CARD = "supertoken"  # the name of the card's place in config.json in version 0.1.0
OLDER = (
    "if an older version made it, write its architecture into model_args of config.json "
    '(0.1.0 had "stem_convs": 2, "stem_order": "before", "local_mlp_ratio": 4.0 and "global_layers": 4 in stt_micro '
    'and stt_nano, and "width": 192 in stt_micro)'
)


@dataclass(frozen=True)
class ModelCard:
    """What a training wrote down about its model, besides weights, classes and preprocessing."""

    task: str = "classification"
    """What the model answers: "classification" (one label for each image), "multi-label", "segmentation" or
    "detection"."""
    tta: str = "none"
    """Views of an image over which the answer is the mean: "none", "flip" or "shift"."""
    data: str | None = None
    """What it was trained on, as `--data` named it."""
    data_fingerprint: str | None = None
    """Fingerprint of the training images (data.splits.fingerprint)."""
    data_license: str | None = None
    """Terms of the data."""
    split_rule: str | None = None
    """How the validation images came about, in words."""
    val_fraction: float = 0.1
    """Fraction of the training images that was cut off for validation."""
    seed: int = 0
    """Random seed of the training, and so of that cut."""
    ignore: int | None = None
    """A further value of masks, besides 255, whose pixels are neither learned nor counted."""
    temperature: float = 1.0
    """By what the classifier's weights were divided at the end of the training, so that probabilities are neither too
    sure nor too unsure; it was fitted on the validation images."""
    threshold: float | None = None
    """Detection: score from which on boxes are shown, where the mean F1 of the validation images is best."""
    steps: int | None = None
    """Training steps behind the weights."""
    scores: dict[str, float] = field(default_factory=dict)
    """The task's score on each split that was measured at the end of the training: "validation", "test"."""
    size_rule: str | None = None
    """How the size of the images came about, in words, if it is not that of the training (write_size)."""

    @classmethod
    def read(cls, content: dict[str, Any]) -> "ModelCard":
        """Reads the card in a config.json, also one of version 0.1.0; a model of another origin has an empty one.

        Args:
            content: Of config.json.
        """
        found = dict(content.get(CARD) or content.get(OLDER_CARD) or {})
        if found.pop("multi_label", False):
            found["task"] = "multi-label"
        older = {split: found.pop(f"{split}_top1", None) for split in ("validation", "test")}
        scores = {split: score for split, score in older.items() if score is not None}
        known = {f.name for f in fields(cls)}
        return cls(**{"scores": scores} | {key: value for key, value in found.items() if key in known})

    def for_others(self) -> "ModelCard":
        """The card as it is published: of data on this machine only the name, without the folders around it."""
        if self.data is None:
            return self
        library, _, name = self.data.partition("/")
        theirs = library in ("hfds", "torch") and not (Path(name).is_absolute() or Path(name).exists())
        return self if theirs else replace(self, data=Path(self.data).name)


@dataclass(frozen=True)
class TrainedModel:
    """A network with all that is needed to use it.

    Args:
        model: The network.
        classes: Names in the order of the logits.
        data_config: timm's description of the preprocessing: input_size, mean, std, interpolation, crop_pct, crop_mode.
        card: What the training wrote down.
        path: The model folder that it was read from or will be saved to.
    """

    model: nn.Module
    classes: list[str]
    data_config: dict[str, Any]
    card: ModelCard
    path: Path


def architecture_of(model: nn.Module) -> dict[str, Any]:
    """Returns every field of a Super Token Transformer's architecture; nothing for other models."""
    architecture = getattr(model, "architecture", None)
    return asdict(architecture) if isinstance(architecture, Architecture) else {}


def save_model(trained: TrainedModel) -> None:
    """Writes the model folder, whole or not at all; an older one is replaced when the new one is complete.

    Args:
        trained: A model that timm.create_model made, with the path of the folder.

    Raises:
        OSError: It cannot be written; an older model is as it was.
    """
    folder = trained.path
    folder.parent.mkdir(parents=True, exist_ok=True)
    # safetensors takes no channels-last weights
    model = copy.deepcopy(trained.model).cpu().to(memory_format=torch.contiguous_format)
    fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    fresh.chmod(0o755)
    try:
        TASKS[trained.card.task].write(model, fresh, trained.classes, trained.data_config)
        content = json.loads((fresh / CONFIG).read_text(encoding="utf-8"))
        # all of it, so that the model loads whatever a later version calls by its name
        content["model_args"] = architecture_of(model) | content.get("model_args", {})
        # transformers' TimmWrapper gives num_classes itself and fails when model_args has it too
        content["model_args"].pop("num_classes", None)
        content[CARD] = asdict(trained.card)
        (fresh / CONFIG).write_text(json.dumps(content, indent=2), encoding="utf-8")
        (fresh / PAGE).write_text(page_of(trained, content), encoding="utf-8")
        (fresh / WEIGHTS_FILE).chmod((fresh / CONFIG).stat().st_mode)  # safetensors lets nobody else read it
        replace_folder(fresh, folder)
    except SafetensorError as error:
        shutil.rmtree(fresh, ignore_errors=True)
        raise OSError(errno.EIO, str(error).splitlines()[0], str(folder)) from error
    except BaseException:
        shutil.rmtree(fresh, ignore_errors=True)
        raise


def page_of(trained: TrainedModel, content: dict[str, Any]) -> str:
    """Writes the page of a model for people.

    Args:
        trained: The model.
        content: Of its config.json.
    """
    name = trained.path.parent.name if trained.path.name == "model" else trained.path.name
    parameters = sum(parameter.numel() for parameter in trained.model.parameters())
    return page(name, content["architecture"], parameters, trained.classes, trained.data_config, asdict(trained.card))


def write_for_others(path: str | os.PathLike, folder: Path) -> None:
    """Copies a model into an empty folder as it is published: its weights, and its card and page without own paths.

    Args:
        path: As in load_model.
        folder: To write into.

    Raises:
        RunFolderError: There is no model that this version can load.
    """
    trained, (source, content) = load_model(path), read_config(path)
    card = trained.card.for_others()
    shutil.copyfile(source / WEIGHTS_FILE, folder / WEIGHTS_FILE)
    write_json(folder / CONFIG, content | {CARD: asdict(card)})
    write_text(folder / PAGE, page_of(replace(trained, card=card), content))


def check_own(path: str | os.PathLike) -> None:
    """Refuses a model that is nobody's to change: one that comes with the package, or of the Hugging Face Hub.

    Raises:
        RunFolderError: It is such a one.
    """
    if str(path).startswith(HUB) or is_shipped(read_config(path)[0]):
        raise RunFolderError(f"{path}: stays as it is; name the size in each call (--img_size), or train from it")


def write_size(path: str | os.PathLike, img_size: int, rule: str) -> Path:
    """Makes a size of images the model's own: predict, evaluate and timm use it from then on.

    The weights stay as they are: a Super Token Transformer resizes its learned grids whenever it is made for a size.

    Args:
        path: As in load_model.
        img_size: Side of the images in pixels.
        rule: How the size came about, in words.

    Returns:
        The config.json, which is written whole or not at all.

    Raises:
        RunFolderError: The model is nobody's to change, cannot be made for that size, or is being written.
    """
    check_own(path)
    load_model(path, img_size)
    folder = read_config(path)[0]
    run = RunFolder(folder.parent)
    with run.owned() if run.recipe.exists() else contextlib.nullcontext():
        content = read_config(path)[1]
        channels = content["pretrained_cfg"].get("input_size", [3])[0]
        content["pretrained_cfg"]["input_size"] = [channels, img_size, img_size]
        if "img_size" in content.get("model_args", {}):
            content["model_args"]["img_size"] = [img_size, img_size]
        content[CARD] = asdict(replace(ModelCard.read(content), size_rule=rule))
        write_json(folder / CONFIG, content)
        write_text(folder / PAGE, page_of(load_model(path), content))
    return folder / CONFIG


def is_trained(name: str) -> bool:
    """Says whether a name is that of a folder, of a model that comes with the package or of one on the Hugging Face
    Hub (hf-hub:OWNER/NAME); if not, timm may know it."""
    return name in SHIPPED or name.startswith(HUB) or Path(name).exists()


def is_model_folder(path: str | os.PathLike) -> bool:
    """Says whether there is a trained model at a path: a run folder, or the model folder in it."""
    return any((folder / CONFIG).is_file() for folder in (Path(path), RunFolder(path).model))


def is_shipped(folder: Path) -> bool:
    """Says whether a model folder is one of those that come with the package."""
    return folder.parent == WEIGHTS


def load_model(path: str | os.PathLike, img_size: int | None = None) -> TrainedModel:
    """Reads a run folder, the model folder in it, or NAME.TAG of a model that comes with the package.

    Args:
        path: Of the folder, or the name; also of model.safetensors in it, or hf-hub:OWNER/NAME.
        img_size: Side of the images that it will see, in pixels; that of its training by default.

    Returns:
        The model in eval mode.

    Raises:
        RunFolderError: There is no model in it, or one that this version cannot make, or not for that size.
    """
    folder, content = read_config(path)
    # only models that were built for a size are built for another one
    sized: dict[str, Any] = (
        {"img_size": img_size} if img_size is not None and "img_size" in content.get("model_args", {}) else {}
    )
    try:
        card = ModelCard.read(content)
        if card.task not in TASKS:
            raise ValueError(f"it was trained for {card.task}, which this version does not know")
        model = TASKS[card.task].read(folder, content, **sized)
    except AssertionError as error:
        raise RunFolderError(f"{path}: not for images of {img_size} px: {str(error) or 'timm refuses it'}") from error
    except RuntimeError as error:  # weights of other names or shapes
        raise RunFolderError(
            f"{path}: its weights do not fit the {content.get('architecture')} of this version: {OLDER}"
        ) from error
    except (TypeError, ValueError, SafetensorError) as error:
        raise RunFolderError(f"{path}: cannot be read by this version: {str(error).splitlines()[0]}") from error
    data_config = resolve_data_config({}, pretrained_cfg=content["pretrained_cfg"])
    return TrainedModel(
        model=model.eval(),
        classes=list(content.get("label_names") or content["pretrained_cfg"].get("label_names") or []),
        data_config=data_config | ({} if img_size is None else {"input_size": (3, img_size, img_size)}),
        card=card,
        path=folder,
    )


def read_config(path: str | os.PathLike) -> tuple[Path, dict[str, Any]]:
    """Finds the model folder and reads its config.json.

    Args:
        path: As in load_model.

    Raises:
        RunFolderError: There is no model in it, or its config.json cannot be read.
    """
    folder = WEIGHTS / str(path) if str(path) in SHIPPED else Path(path)
    if str(path).startswith(HUB):
        folder = _from_hub(str(path))
    elif folder.name == WEIGHTS_FILE:
        folder = folder.parent
    if (RunFolder(folder).model / CONFIG).exists():
        folder = RunFolder(folder).model
    if not (folder / CONFIG).exists() or not (folder / WEIGHTS_FILE).exists():
        hint = f"; go on training with --resume {path}" if RunFolder(folder).checkpoints.exists() else ""
        raise RunFolderError(f"{path}: no trained model in it (model/{CONFIG} and model/{WEIGHTS_FILE}){hint}")
    try:
        content = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except ValueError as error:
        raise RunFolderError(f"{path}: its {CONFIG} is damaged ({error})") from None
    if not timm.is_model(content.get("architecture", "")):
        raise RunFolderError(f"{path}: holds a {content.get('architecture')}, which this version does not know")
    return folder, content


def _from_hub(name: str) -> Path:
    """Fetches a model from the Hugging Face Hub, if it is not here yet, and returns its folder.

    Raises:
        RunFolderError: It is not there, or the Hub cannot be reached.
    """
    from huggingface_hub import hf_hub_download

    try:
        repository, _, revision = name.removeprefix(HUB).partition("@")
        files = [hf_hub_download(repository, file, revision=revision or None) for file in (CONFIG, WEIGHTS_FILE)]
    except Exception as error:  # of the library, of its HTTP client, of the system
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise RunFolderError(f"{name}: cannot be fetched from the Hugging Face Hub ({reason})") from error
    return Path(files[0]).parent


def shipped_model() -> Path:
    """Returns the folder of the most accurate of the models that come with the package.

    Raises:
        RunFolderError: None comes with this version.
    """
    folders = [WEIGHTS / name for name in SHIPPED]
    if not folders:
        raise RunFolderError("no trained model comes with this version: name one of yours with --model runs/NAME")
    return max(folders, key=lambda path: ModelCard.read(json.loads((path / CONFIG).read_text())).scores["test"])
