"""The model that a run begins with: fresh, or with weights that are there already; and what of it stays as it is."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError, safe_open
from timm.data import ImageNetInfo, infer_imagenet_subset
from timm.models import get_pretrained_cfg, is_model_pretrained
from torch import nn
from torch.func import functional_call

from ..dense import TASKS
from ..model.family import is_variant
from ..model_folder import CONFIG, WEIGHTS_FILE, TrainedModel, architecture_of, is_trained, load_model, read_config
from ..tasks import Classification, Task
from .recipe import Recipe, RecipeError

# these begin the names of the weights that are for certain classes
HEAD_ENDS = ("net.segmentation_head", "net.head.classification_head.cls_logits")
FROM_RECIPE = ("num_classes", "img_size", "drop_rate", "drop_path_rate")


def starting_model(recipe: Recipe, classes: list[str], task: type[Task] = Classification) -> tuple[nn.Module, Recipe]:
    """The model with fresh weights or those of `init`, and the recipe with all that `build` needs to make it again.

    Weights of `init` come with a new classifier, unless they were trained for the very same classes.

    Args:
        recipe: Names model or init.
        classes: Names in the order of the logits.
        task: What will be learned.

    Raises:
        RecipeError: There is no such model, or no weights of it.
        RunFolderError: `init` is a folder without a trained model.
    """
    if recipe.init is None:
        model = build(recipe, len(classes), task)
        made = architecture_of(model)
        dropped = [key for key, value in recipe.model_args.items() if value is None and made.get(key, key) is not None]
        if dropped:
            raise RecipeError(f"model_args: timm drops {dropped[0]}=null and takes the default: give another value")
        # all of it, so that the recipe makes the same network whatever a later version calls by its name
        return model, replace(recipe, model_args=made | recipe.model_args)
    if is_weights_file(recipe.init):
        return _from_file(recipe, Path(recipe.init), classes, task)
    if not is_trained(recipe.init) and timm.is_model(recipe.init.partition(".")[0]):
        return _from_timm(recipe, recipe.init, classes, task)
    trained = load_model(recipe.init)
    source: Any = trained.model
    if TASKS[trained.card.task].heads:
        return _from_head(recipe, trained, classes, task)
    name = _named(recipe, source.pretrained_cfg)
    args = _without(source._model_args)
    if recipe.model_args not in ({}, args):
        raise RecipeError(f"model_args: init={recipe.init} has its own; leave model_args out")
    size = recipe.img_size or trained.data_config["input_size"][-1]
    recipe = replace(recipe, model=name, img_size=size, model_args=args)
    file = str(trained.path / WEIGHTS_FILE)
    overlay = {"num_classes": len(trained.classes), "label_names": None, "file": file}
    started: Any = build(recipe, len(classes), task, pretrained=True, pretrained_cfg_overlay=overlay)
    if not task.heads and len(trained.classes) == len(classes) and trained.classes != classes:
        started.reset_classifier(len(classes))  # timm keeps one of the same size
    return started, recipe


def is_weights_file(name: str) -> bool:
    """Says whether a start is a file of weights without a config.json beside it, so that the model must be named.

    Raises:
        RecipeError: It is a file of another kind: those may run programs when they are read.
    """
    path = Path(name)
    if not path.is_file():
        return False
    if path.suffix != ".safetensors":
        raise RecipeError(f"{name}: weights are read from .safetensors files and run folders only")
    return not (path.parent / CONFIG).exists() or path.name != WEIGHTS_FILE


def size_of_start(init: str) -> int | None:
    """Returns the side of the images that a start was trained for, in pixels, if it says so.

    Raises:
        RunFolderError: It is a folder without a trained model.
    """
    if is_weights_file(init):
        return None
    if is_trained(init):
        return read_config(init)[1]["pretrained_cfg"]["input_size"][-1]
    cfg = get_pretrained_cfg(init) if timm.is_model(init.partition(".")[0]) else None
    return None if cfg is None else cfg.input_size[-1]


def classes_in_file(path: Path, classifier: Any) -> int:
    """Returns the number of classes of a file of weights, from the shape of its classifier; 0 if it has none.

    Args:
        path: Of the file.
        classifier: Name of the module, or names of several.

    Raises:
        RecipeError: It is no such file.
    """
    name = classifier if isinstance(classifier, str) else (classifier or [""])[0]
    try:
        with safe_open(path, "pt") as weights:
            key = f"{name}.weight"
            return weights.get_slice(key).get_shape()[0] if key in weights.keys() else 0  # noqa: SIM118
    except SafetensorError as error:
        raise RecipeError(f"{path}: not readable as a .safetensors file ({str(error).splitlines()[0]})") from error


def _from_file(
    recipe: Recipe, path: Path, classes: list[str], task: type[Task] = Classification
) -> tuple[nn.Module, Recipe]:
    """A model with the weights of a file; it does not say for which classes, so the classifier is new."""
    if recipe.model is None:
        raise RecipeError(f"init={path}: a file of weights does not say of which model: name it with --model")
    _, named = starting_model(replace(recipe, init=None), classes, task)
    cfg = get_pretrained_cfg(recipe.model)
    there = classes_in_file(path, cfg.classifier if cfg is not None else "head")
    overlay = {"num_classes": there or len(classes), "label_names": None, "file": str(path)}
    try:
        started: Any = build(named, len(classes), task, pretrained=True, pretrained_cfg_overlay=overlay)
    except RecipeError as error:
        raise RecipeError(f"init={path}: its weights do not fit: {error}") from error
    if not task.heads and there == len(classes):
        started.reset_classifier(len(classes))
    return started, replace(named, init=recipe.init)


def _from_timm(
    recipe: Recipe, init: str, classes: list[str], task: type[Task] = Classification
) -> tuple[nn.Module, Recipe]:
    """A model of timm's with its pretrained weights and a new classifier, unless the classes are ImageNet's own."""
    cfg = get_pretrained_cfg(init) if "." not in init or is_model_pretrained(init) else None
    if cfg is None or not cfg.has_weights:
        raise RecipeError(f"init={init}: timm has no weights of that name; name others, or a run folder")
    _named(recipe, cfg.to_dict())
    recipe = replace(recipe, model=init, img_size=recipe.img_size or cfg.input_size[-1])
    started: Any = build(recipe, len(classes), task, pretrained=True)
    subset = infer_imagenet_subset(cfg)
    if (
        not task.heads
        and cfg.num_classes == len(classes)
        and (subset is None or classes != ImageNetInfo(subset).label_names())
    ):
        started.reset_classifier(len(classes))  # timm keeps one of the same size
    return started, recipe


def _from_head(recipe: Recipe, trained: TrainedModel, classes: list[str], task: type[Task]) -> tuple[nn.Module, Recipe]:
    """A model with a head again, with all weights but those of another number of classes."""
    source: Any = trained.model
    if trained.card.task != task.name:
        raise RecipeError(f"init={recipe.init}: was trained for {trained.card.task}, not for {task.name}")
    size = recipe.img_size or trained.data_config["input_size"][-1]
    name = source.pretrained_cfg["architecture"]
    named = replace(recipe, model=name, head=source.head, img_size=size, model_args=_without(source.options))
    started = build(named, len(classes), task)
    there = started.state_dict()
    same = trained.classes == classes
    kept = {
        key: weight
        for key, weight in source.state_dict().items()
        if key in there and there[key].shape == weight.shape and (same or not key.startswith(HEAD_ENDS))
    }
    started.load_state_dict(there | kept)
    return started, named


def _without(args: dict[str, Any]) -> dict[str, Any]:
    """Arguments of a model without those that a recipe has fields for."""
    return {key: value for key, value in args.items() if key not in FROM_RECIPE}


def _named(recipe: Recipe, cfg: dict[str, Any]) -> str:
    """Name of the model that weights belong to, as the recipe may name it too."""
    architecture = cfg["architecture"]
    if recipe.model is not None and recipe.model.partition(".")[0] != architecture:
        raise RecipeError(f"model={recipe.model}, but {recipe.init} holds a {architecture}: leave model out")
    tagged = f"{architecture}.{cfg.get('tag')}"  # timm's preprocessing differs by tag
    return tagged if not is_variant(architecture) and is_model_pretrained(tagged) else architecture


def build(recipe: Recipe, num_classes: int, task: type[Task] = Classification, **weights: Any) -> nn.Module:
    """The network that the recipe names, for its image size.

    Args:
        recipe: With model and img_size.
        num_classes: K.
        task: What is to be learned; it makes the network.
        **weights: Arguments of timm.create_model that say which to load; random ones without.

    Raises:
        RecipeError: timm cannot make it so, or not get the weights.
    """
    assert recipe.model is not None
    args = dict(recipe.model_args) | {"drop_rate": recipe.dropout, "drop_path_rate": recipe.drop_path}
    while True:
        try:
            cfg = get_pretrained_cfg(recipe.model)
            if is_variant(recipe.model) or (cfg is not None and cfg.fixed_input_size):
                args.setdefault("img_size", recipe.img_size)
            return task.create(recipe.model, num_classes, recipe.head, **weights, **args)
        except (RuntimeError, TypeError, ValueError, AssertionError, LookupError, OSError) as error:
            # some have no dropout or stochastic depth, and know no argument to say that there is to be none
            unknown = [name for name in FROM_RECIPE[2:] if f"argument '{name}'" in str(error) and not args.get(name, 1)]
            if not unknown:
                reason = str(error).splitlines()[0] if str(error) else type(error).__name__
                raise RecipeError(f"model {recipe.model}: {reason}") from error
            del args[unknown[0]]


def try_out(model: nn.Module, recipe: Recipe, part: int, device: torch.device) -> None:
    """Lets a model look at blank images of each size of the training, and leaves it as it was.

    Args:
        model: On the device.
        recipe: Names it and the sizes.
        part: Images that it sees at once in a training step.
        device: Where it is.

    Raises:
        RecipeError: It cannot take images of this size, or not so few of them at once.
    """
    assert recipe.img_size is not None
    was = model.training
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        with torch.no_grad(), torch.random.fork_rng([device] if device.type == "cuda" else []):
            for size in sorted({recipe.img_size, *recipe.training_sizes}):
                for images, training in [(2, True), (1, False)] + [(1, True)] * (part == 1):
                    blank = torch.zeros(images, 3, size, size, device=device)
                    functional_call(model.train(training), buffers, (blank,))
    except (RuntimeError, ValueError, AssertionError, IndexError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        if "memory" in reason:
            raise
        if images == 1 and training:
            few = f"batch_size={recipe.batch_size} in accumulate={recipe.accumulate} parts"
            raise RecipeError(
                f"{few}: {recipe.model} sees a single image at once, and its BatchNorm needs two: take a larger "
                "batch_size or fewer parts"
            ) from error
        cfg = get_pretrained_cfg(str(recipe.model))
        own = f"; its own is {cfg.input_size[-1]}" if cfg is not None else ""
        raise RecipeError(
            f"{'img_size' if size == recipe.img_size else 'sizes'}={size}: {recipe.model} cannot take images of this "
            f"size ({reason}){own}"
        ) from error
    finally:
        model.train(was)


def checkpoint_gradients(recipe: Recipe, model: Any) -> None:
    """Lets a model compute activations again in the backward pass.

    Raises:
        RecipeError: timm's model of that name does not offer it.
    """
    try:
        model.set_grad_checkpointing(True)
    except (AssertionError, AttributeError) as error:
        raise RecipeError(f"grad_checkpointing: {recipe.model} has none; leave it out") from error


def freeze(model: Any, what: str) -> list[nn.Module]:
    """Stops parts of a Super Token Transformer from learning, and returns what keeps its statistics.

    "backbone" and "statistics" work for any model; with "statistics" BatchNorm keeps those, and every weight learns.
    """
    if what == "none":
        return []
    if what == "statistics":
        return [layer for layer in model.modules() if isinstance(layer, nn.modules.batchnorm._BatchNorm)]
    if what == "backbone":
        head = model.get_classifier()
        heads = head if isinstance(head, tuple) else (head,)  # a distilled model has two
        keep = {id(p) for part in heads for p in part.parameters()}
        learned = [(part, {id(p) for p in part.parameters()}) for part in model.modules()]
        parts = [part for part, own in learned if own and not own & keep]  # without the dropout before the classifier
    else:
        if not hasattr(model, "windows"):
            raise RecipeError(f"freeze={what}: only stt_* models have such a part; use none, statistics or backbone")
        parts = [model.stem] + ([model.windows, model.local_layers] if what == "local" else [])
        keep = {id(p) for p in model.parameters()} - {id(p) for part in parts for p in part.parameters()}
    for parameter in model.parameters():
        parameter.requires_grad_(id(parameter) in keep)
    return parts
