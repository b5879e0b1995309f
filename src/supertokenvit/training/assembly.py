"""From a recipe to the parts of a run: data, model, images, number of steps."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from rich.console import Console
from timm.data import resolve_data_config
from torch import Tensor, nn
from torch.nn.utils import convert_conv2d_weight_memory_format

from ..console import say
from ..data.augmentation import seed_step
from ..data.sources import Source
from ..data.splits import Splits
from ..dense import TASKS
from ..machine import best_precision, free_memory, write_out_attention
from ..preprocessing import VIEWS
from ..run_folder import RunFolder
from ..tasks import Task
from .callbacks import Callback, all_callbacks
from .choices import MINUTES_WITHOUT_GPU, fill_in
from .distillation import Teacher
from .pacing import seconds_per_image, steps_in
from .processes import Processes
from .recipe import Recipe, RecipeError
from .starting_model import build, checkpoint_gradients, freeze, starting_model, try_out


@dataclass
class Run:
    """The parts of a training run.

    Args:
        recipe: With nothing left open.
        folder: The run folder.
        console: Where lines for the user go.
        processes: That train together.
        splits: The data.
        model: On the device, in training mode.
        frozen: Parts of the model that are not trained.
        data_config: timm's preprocessing, as evaluation and prediction will do it.
        images: The training images with their targets, cropped at random.
        augment: What happens to a whole batch.
        task: What the model learns to answer.
        sample_weights: For drawing with replacement, or None.
        teacher: Whose answers to learn as well, or None.
        callbacks: Who is told of the run's events.
        steps: Of the whole run.
        seconds_of_evaluation: As far as it was measured before the first step.
    """

    recipe: Recipe
    folder: RunFolder
    console: Console
    processes: Processes
    splits: Splits
    model: nn.Module
    frozen: list[nn.Module]
    data_config: dict[str, Any]
    images: Any
    augment: Any
    task: Task
    sample_weights: np.ndarray | None
    teacher: Teacher | None
    callbacks: list[Callback] = field(default_factory=list)
    steps: int = 0
    seconds_of_evaluation: float = 0.0

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

    def log(self, line: str) -> None:
        """Says a line on the console and in log.txt, once for all processes."""
        if self.processes.is_main:
            log(self.console, self.folder, line)


def log(console: Console, folder: RunFolder, line: str) -> None:
    """Says a line on the console and in the run folder's log.txt."""
    say(console, line)
    folder.add_to_log(line, time.strftime("%Y-%m-%d %H:%M:%S"))


def begin(
    recipe: Recipe,
    splits: Splits,
    folder: RunFolder,
    console: Console,
    processes: Processes,
    callbacks: Sequence[Callback] = (),
) -> Run:
    """Makes the parts of a new run, and says what was chosen.

    Args:
        recipe: May have open fields.
        splits: Its data.
        folder: The run folder.
        console: Where lines for the user go.
        processes: That train together.
        callbacks: The caller's.

    Raises:
        RecipeError: Something in the recipe does not fit the data.
    """
    check(recipe, splits)
    open_ended = recipe.epochs is None and recipe.minutes is None and processes.device.type == "cpu"
    recipe, said = complete(recipe, splits, processes)
    if processes.is_main:
        lines = [f"data: {recipe.data}: {describe(splits)}", f"validation: {splits.rule}"]
        lines += [f"left out: {line}" for line in splits.left_out]
        for line in lines + [f"chosen: {line}" for line in said]:
            log(console, folder, line)
    listeners = all_callbacks(recipe, callbacks)
    seed_step(recipe.seed, 0)
    model, recipe = starting_model(recipe, splits.train.classes, TASKS[splits.train.task])
    run = assemble(recipe, splits, folder, console, processes, model, listeners)
    plan_steps(run, open_ended)
    return run


def reopen(
    recipe: Recipe,
    splits: Splits,
    folder: RunFolder,
    console: Console,
    processes: Processes,
    callbacks: Sequence[Callback],
    steps: int,
) -> Run:
    """Makes the parts of a run that goes on; the weights come from its checkpoint.

    Args:
        recipe: From the run folder.
        splits: Its data.
        folder: The run folder.
        console: Where lines for the user go.
        processes: That train together.
        callbacks: The caller's.
        steps: Of the whole run.

    Raises:
        RecipeError: Something in the recipe does not fit the data.
    """
    check(recipe, splits)
    recipe, _ = complete(recipe, splits, processes)
    listeners = all_callbacks(recipe, callbacks)
    seed_step(recipe.seed, 0)
    model = build(recipe, len(splits.train.classes), TASKS[splits.train.task])
    run = assemble(recipe, splits, folder, console, processes, model, listeners)
    run.steps = steps
    return run


def check(recipe: Recipe, splits: Splits) -> None:
    """Refuses data that cannot be measured, and options that do not go with its labels.

    Raises:
        RecipeError: What is wrong.
    """
    if splits.val is None and recipe.val_fraction:
        raise RecipeError(
            "there is no validation data: every class has a single image, and that one is for training; add images, or "
            "a val folder"
        )
    if splits.val is None:
        raise RecipeError("there is no validation data: set val_fraction above 0")
    for name, source in {"validation": splits.val, "test": splits.test}.items():
        if source is not None and source.task == "multi-label" and not source.targets.any():
            raise RecipeError(f"no {name} image has a label, so nothing can be measured: give some, or another seed")
    if recipe.teacher is not None and splits.train.task == "multi-label":
        raise RecipeError("teacher: not for images with several labels")
    task = TASKS[splits.train.task]
    for name in task.not_for:
        if getattr(recipe, name) != getattr(Recipe(), name):
            raise RecipeError(f"{name}={getattr(recipe, name)}: not for {task.name}; leave it out")
    if task.heads and recipe.hflip == "alternating":
        raise RecipeError(f"hflip=alternating: not for {task.name}; give a probability")
    if recipe.head is not None and recipe.head not in task.heads:
        known = f"one of {', '.join(task.heads)}" if task.heads else f"none for {task.name}"
        raise RecipeError(f"head={recipe.head}: must be {known}")


def complete(recipe: Recipe, splits: Splits, processes: Processes) -> tuple[Recipe, list[str]]:
    """Fills in what the recipe leaves open but the number of steps, with a line for each choice."""
    recipe, said = fill_in(recipe, splits, processes.device, processes.count)
    if recipe.precision == "auto":
        precision, why = processes.from_main(lambda: best_precision(processes.device))
        recipe = replace(recipe, precision=precision)
        said.append(f"precision = {precision}: {why}")
    return recipe, said


def assemble(
    recipe: Recipe,
    splits: Splits,
    folder: RunFolder,
    console: Console,
    processes: Processes,
    model: nn.Module,
    callbacks: list[Callback],
) -> Run:
    """Puts the parts of a run together, all but the number of its steps.

    Raises:
        RecipeError: The batch cannot be shared, or is larger than the data.
    """
    device, train = processes.device, splits.train
    task = TASKS[train.task](class_weights(recipe, train, device), recipe.smoothing)
    frozen = freeze(model, recipe.freeze)
    if recipe.grad_checkpointing:
        checkpoint_gradients(recipe, model)
    to_train(model, recipe, device)
    assert recipe.img_size is not None and recipe.batch_size is not None
    try_out(model, recipe, recipe.batch_size // (processes.count * recipe.accumulate), device)
    data_config = resolve_data_config({}, model=model) | {
        "input_size": (3, recipe.img_size, recipe.img_size),
        "crop_pct": recipe.crop_pct,
        "crop_mode": recipe.resize,
    }
    run = Run(
        recipe=recipe,
        folder=folder,
        console=console,
        processes=processes,
        splits=splits,
        model=model,
        frozen=frozen,
        data_config=data_config,
        images=task.samples(train, recipe, data_config, memory=fits_in_memory(recipe, splits, processes)),
        augment=task.augmentation(recipe, data_config, len(train.classes)),
        task=task,
        sample_weights=balanced_sampling(train) if recipe.weighted_sampling else None,
        teacher=None if recipe.teacher is None else Teacher(recipe, train.classes, data_config, device),
        callbacks=callbacks,
    )
    for error in run.images.damaged:
        run.log(f"left out: {error}")
    if run.batch_size % (processes.count * recipe.accumulate):
        parts = f"{processes.count} processes times accumulate={recipe.accumulate}"
        raise RecipeError(f"batch_size={run.batch_size}: must be a multiple of {parts}")
    if run.batch_size > len(run.images) - len(run.images.damaged):
        damaged = run.images.damaged
        why = f" ({len(damaged)} cannot be used, such as {damaged[0]})" if damaged else ""
        raise RecipeError(f"batch_size={run.batch_size}: more than the usable training images{why}")
    return run


def describe(splits: Splits) -> str:
    """Says classes and numbers of images in one line."""
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


def fits_in_memory(recipe: Recipe, splits: Splits, processes: Processes) -> bool:
    """Says whether to keep decoded images: if the recipe says so, or if they fit into a quarter of what is free."""
    assert recipe.img_size is not None
    side = max(recipe.training_sizes) * (1.5 if recipe.crop == "resized" else 1)
    pixels = side**2 * 1.4 * len(splits.train) * processes.count + recipe.img_size**2 * len(splits.val or ())
    fits = processes.from_main(lambda: 3 * pixels < free_memory() / 4)
    return recipe.cache == "memory" or (recipe.cache == "auto" and fits)


def class_weights(recipe: Recipe, source: Source, device: torch.device) -> Tensor | None:
    """Returns the classes' weights in the loss: mean 1 over the images for "auto", or by name with 1 for others."""
    if recipe.class_weights is None:
        return None
    count = TASKS[source.task]().class_counts(source) if recipe.class_weights == "auto" else np.empty(0)
    if recipe.class_weights == "auto":
        weights = count.sum() / (len(count) * np.maximum(count, 1))
    else:
        unknown = set(recipe.class_weights) - set(source.classes)
        if unknown:
            raise RecipeError(f"class_weights: no class {sorted(unknown)[0]!r}; there are {', '.join(source.classes)}")
        weights = np.array([recipe.class_weights.get(name, 1.0) for name in source.classes])
    return torch.as_tensor(weights, dtype=torch.float32, device=device)


def balanced_sampling(source: Source) -> np.ndarray:
    """Returns the weight of each image with which every class is drawn equally often."""
    if source.multi_label:
        raise RecipeError("weighted_sampling: images with several labels cannot be drawn equally by class")
    return 1.0 / np.bincount(source.targets, minlength=len(source.classes))[source.targets]


def plan_steps(run: Run, open_ended: bool) -> None:
    """Sets the run's number of steps: from its epochs, or from a time budget and the speed measured now.

    Args:
        run: Without steps; a time budget is written into its recipe.
        open_ended: The user gave neither epochs nor minutes, and there is no GPU: the usual limit holds.
    """
    recipe = run.recipe
    run.steps = max(1, round((recipe.epochs or 0) * run.per_epoch))
    if recipe.minutes is None and not open_ended:
        return
    minutes = recipe.minutes or MINUTES_WITHOUT_GPU
    # a hundredth of the budget: three seconds misjudged an hour by half on a machine that shares its cores
    measuring = min(30.0, max(2.0, 0.6 * minutes))
    count = run.processes.count
    alone = replace(recipe, batch_size=run.batch_size // count)
    measured = seconds_per_image(run.model, alone, run.device, run.task, len(run.classes), measuring)
    speed = run.processes.from_main(lambda: (measured[0] / count, VIEWS[recipe.tta] * measured[1] / count))
    run.seconds_of_evaluation = speed[1] * len(run.val)
    fit = steps_in(minutes, recipe, len(run.images), len(run.val), speed)
    if recipe.minutes is None and fit >= run.steps:
        return
    run.steps, run.recipe = fit, replace(recipe, epochs=None, minutes=minutes)
    run.log(
        f"chosen: {run.steps:,} steps, {run.steps / run.per_epoch:.1f} epochs: measured {1 / speed[0]:.0f} images/s in "
        f"training and {1 / speed[1]:.0f} in evaluation, for at most {minutes:g} minutes"
    )
