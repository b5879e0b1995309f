"""From a recipe to the parts of a run: data, model, images, number of steps."""

import time
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from timm.data import resolve_data_config
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from ..data.augmentation import BatchAugmentation, Crop, seed_step
from ..data.loading import Keep, Preprocess, TrainImages
from ..data.sources import Source, Splits
from ..machine import best_precision, free_memory, write_out_attention
from ..prediction import views
from .defaults import MINUTES_WITHOUT_GPU, fill_in, seconds_per_image, steps_in
from .distillation import Teacher
from .objective import Objective
from .processes import Processes
from .recipe import Recipe, RecipeError
from .starting_model import build, checkpoint_gradients, freeze, starting_model


@dataclass
class Run:
    """The parts of a training run.

    Args:
        recipe: With nothing left open.
        folder: The run folder.
        console: To speak on.
        processes: That train together.
        splits: The data.
        model: On the device, in training mode.
        frozen: Its parts that are not trained.
        data_config: timm's preprocessing, as evaluation and prediction will do it.
        images: Of the training split, cropped at random.
        augment: What happens to a whole batch.
        objective: What is minimised.
        sample_weights: For drawing with replacement, or None.
        teacher: Whose answers to learn as well, or None.
        steps: Of the whole run.
    """

    recipe: Recipe
    folder: Path
    console: Console
    processes: Processes
    splits: Splits
    model: nn.Module
    frozen: list[nn.Module]
    data_config: dict[str, Any]
    images: TrainImages
    augment: BatchAugmentation
    objective: Objective
    sample_weights: np.ndarray | None
    teacher: Teacher | None
    steps: int = 0

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.processes.device

    @property
    def val(self) -> Source:
        """The validation images."""
        assert self.splits.val is not None
        return self.splits.val

    @property
    def classes(self) -> list[str]:
        """Names in the order of the logits."""
        return self.splits.train.classes

    @property
    def batch_size(self) -> int:
        """Images per step."""
        assert self.recipe.batch_size is not None
        return self.recipe.batch_size

    @property
    def per_epoch(self) -> int:
        """Steps per epoch."""
        return len(self.images) // self.batch_size

    def say(self, line: str) -> None:
        """To the console and to log.txt, once for all processes."""
        if self.processes.is_main:
            say(self.console, self.folder, line)


def say(console: Console, folder: Path, line: str) -> None:
    """To the console and to the run folder's log.txt."""
    console.print(line, highlight=False, markup=False, soft_wrap=True)
    with open(folder / "log.txt", "a") as file:
        file.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}\n")


def prepare(
    recipe: Recipe, splits: Splits, folder: Path, console: Console, processes: Processes, steps: int | None = None
) -> Run:
    """Makes the parts of a run.

    Args:
        recipe: May have open fields.
        splits: Its data.
        folder: The run folder.
        console: To say on what was chosen.
        processes: That train together.
        steps: Of the whole run, when it is resumed; else they are planned.

    Raises:
        RecipeError: Something in the recipe does not fit the data.
    """
    device = processes.device
    if splits.val is None:
        raise RecipeError("there is no validation data: set val_fraction above 0")
    for part, source in {"validation": splits.val, "test": splits.test}.items():
        if source is not None and source.multi_label and not source.targets.any():
            raise RecipeError(f"no {part} image has a label, so nothing can be measured: give some, or another seed")
    open_ended = recipe.epochs is None and recipe.minutes is None and device.type == "cpu"
    recipe, said = fill_in(recipe, splits, device, processes.count)
    if recipe.precision == "auto":
        precision, why = processes.from_main(lambda: best_precision(device))
        recipe = replace(recipe, precision=precision)
        said.append(f"precision = {precision}: {why}")
    lines = [f"data: {recipe.data}: {describe(splits)}", f"validation: {splits.rule}"]
    if steps is None and processes.is_main:
        for line in lines + [f"chosen: {line}" for line in said]:
            say(console, folder, line)
    if recipe.tensorboard and find_spec("tensorboard") is None:
        raise RecipeError("tensorboard is not installed: pip install 'supertokenvit[tensorboard]'")
    if recipe.teacher is not None and splits.train.multi_label:
        raise RecipeError("teacher: not for images with several labels")
    seed_step(recipe.seed, 0)
    if steps is None:
        model, recipe = starting_model(recipe, splits.train.classes)
    else:
        model = build(recipe, len(splits.train.classes))
    frozen = freeze(model, recipe.freeze)
    if recipe.grad_checkpointing:
        checkpoint_gradients(recipe, model)
    to_train(model, recipe, device)
    assert recipe.img_size is not None
    data_config = resolve_data_config({}, model=model) | {
        "input_size": (3, recipe.img_size, recipe.img_size),
        "crop_pct": recipe.crop_pct,
        "crop_mode": recipe.resize,
    }
    images = make_images(recipe, splits, data_config, processes)
    run = Run(
        recipe=recipe,
        folder=folder,
        console=console,
        processes=processes,
        splits=splits,
        model=model,
        frozen=frozen,
        data_config=data_config,
        images=images,
        augment=BatchAugmentation(
            data_config["mean"],
            data_config["std"],
            num_classes=len(splits.train.classes),
            randaugment=recipe.randaugment,
            erasing=recipe.erasing,
            mixup=recipe.mixup,
            cutmix=recipe.cutmix,
        ),
        objective=Objective(splits.train.multi_label, class_weights(recipe, splits.train, device), recipe.smoothing),
        sample_weights=balanced_sampling(splits.train) if recipe.weighted_sampling else None,
        teacher=None if recipe.teacher is None else Teacher(recipe, splits.train.classes, data_config, device),
    )
    for error in images.damaged:
        run.say(f"left out: {error}")
    if run.batch_size % (processes.count * recipe.accumulate):
        parts = f"{processes.count} processes times accumulate={recipe.accumulate}"
        raise RecipeError(f"batch_size={run.batch_size}: must be a multiple of {parts}")
    if run.batch_size > len(images) - len(images.damaged):
        raise RecipeError(f"batch_size={run.batch_size}: more than the usable training images")
    run.steps = plan(run, open_ended) if steps is None else steps
    return run


def describe(splits: Splits) -> str:
    """Classes and numbers of images in one line."""
    parts = [f"{len(splits.train.classes)} classes", f"{len(splits.train):,} training images"]
    if splits.val is not None:
        parts.append(f"{len(splits.val):,} for validation")
    if splits.test is not None:
        parts.append(f"{len(splits.test):,} for one test at the end")
    return ", ".join(parts)


def to_train(model: nn.Module, recipe: Recipe, device: torch.device) -> None:
    """Puts a model where it will be trained, with the layout and the attention that train fastest there."""
    write_out_attention(model, device, recipe.precision)
    convert_conv2d_weight_memory_format(model.to(device), torch.channels_last)


def make_images(recipe: Recipe, splits: Splits, data_config: dict[str, Any], processes: Processes) -> TrainImages:
    """Training images, in memory if the recipe says so, or with the validation images in a quarter of what is free."""
    assert recipe.img_size is not None and recipe.crop is not None and recipe.hflip is not None
    crop = Crop(recipe.crop, recipe.img_size, recipe.crop_scale)
    resized = recipe.crop == "resized"
    prepare = Keep(round(recipe.img_size * 1.5)) if resized else Preprocess(data_config)
    side = recipe.img_size * (1.5 if resized else 1)
    pixels = side**2 * 1.4 * len(splits.train) * processes.count + recipe.img_size**2 * len(splits.val or ())
    fits = processes.from_main(lambda: 3 * pixels < free_memory() / 4)
    memory = recipe.cache == "memory" or (recipe.cache == "auto" and fits)
    return TrainImages(splits.train, prepare, crop, hflip=recipe.hflip, seed=recipe.seed, memory=memory)


def class_weights(recipe: Recipe, source: Source, device: torch.device) -> Tensor | None:
    """Weights of the classes in the loss: mean 1 over the images for "auto", or by name with 1 for the unnamed."""
    if recipe.class_weights is None:
        return None
    count = source.targets.sum(0) if source.multi_label else np.bincount(source.targets, minlength=len(source.classes))
    if recipe.class_weights == "auto":
        weights = count.sum() / (len(count) * np.maximum(count, 1))
    else:
        unknown = set(recipe.class_weights) - set(source.classes)
        if unknown:
            raise RecipeError(f"class_weights: no class {sorted(unknown)[0]!r}; there are {', '.join(source.classes)}")
        weights = np.array([recipe.class_weights.get(name, 1.0) for name in source.classes])
    return torch.as_tensor(weights, dtype=torch.float32, device=device)


def balanced_sampling(source: Source) -> np.ndarray:
    """Weight of each image so that every class is drawn equally often."""
    if source.multi_label:
        raise RecipeError("weighted_sampling: images with several labels cannot be drawn equally by class")
    return 1.0 / np.bincount(source.targets, minlength=len(source.classes))[source.targets]


def plan(run: Run, open_ended: bool) -> int:
    """Number of steps: from the epochs, or from a time budget and the speed measured now."""
    recipe = run.recipe
    steps = max(1, round((recipe.epochs or 0) * run.per_epoch))
    if recipe.minutes is None and not open_ended:
        return steps
    minutes = recipe.minutes or MINUTES_WITHOUT_GPU
    # a hundredth of the budget: three seconds misjudged an hour by half on a machine that shares its cores
    measuring = min(30.0, max(2.0, 0.6 * minutes))
    count = run.processes.count
    part = replace(recipe, batch_size=run.batch_size // count)
    alone = seconds_per_image(run.model, part, run.device, len(run.classes), measuring)
    looks = len(views(torch.zeros(1, 3, 32, 32), recipe.tta))
    speed = run.processes.from_main(lambda: (alone[0] / count, looks * alone[1] / count))
    fit = steps_in(minutes, recipe, len(run.images), len(run.val), speed)
    if recipe.minutes is None and fit >= steps:
        return steps
    steps, run.recipe = fit, replace(recipe, epochs=None, minutes=minutes)
    run.say(
        f"chosen: {steps:,} steps, {steps / run.per_epoch:.1f} epochs: measured {1 / speed[0]:.0f} images/s in "
        f"training and {1 / speed[1]:.0f} in evaluation, for at most {minutes:g} minutes"
    )
    return steps
