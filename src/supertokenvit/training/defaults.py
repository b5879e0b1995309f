"""What a recipe leaves open, chosen from the data and the machine, with the reasons."""

import copy
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..data.decode import BadImage
from ..data.sources import Source, Splits
from ..machine import autocast
from .optimizer import make_optimizer
from .recipe import Recipe

WINDOW_PIXELS = 56  # stride 8 times window 7: sizes in these steps take no padding
MINUTES_WITHOUT_GPU = 30.0


def typical_side(source: Source, sample: int = 64) -> int:
    """Median of the shorter sides of some images, in pixels."""
    sides = []
    for i in np.linspace(0, len(source) - 1, min(sample, len(source))).astype(int):
        try:
            sides.append(min(source.image(int(i)).size))
        except BadImage:
            continue
    return int(np.median(sides)) if sides else 0


def fill_in(recipe: Recipe, splits: Splits, device: torch.device, processes: int) -> tuple[Recipe, list[str]]:
    """The recipe with everything set but the number of steps, and a line for each choice.

    Args:
        recipe: With open fields.
        splits: The data.
        device: Where it will run.
        processes: That share a batch equally.
    """
    said: list[str] = []

    def choose(recipe: Recipe, name: str, value, why: str) -> Recipe:
        if getattr(recipe, name) is not None:
            return recipe
        said.append(f"{name} = {value}: {why}")
        return replace(recipe, **{name: value})

    n, side, gpu = len(splits.train), typical_side(splits.train), device.type != "cpu"
    small = side <= 64
    if small:
        size = 32 if side <= 32 else -(-side // 16) * 16
        why = f"the images are about {side} px"
    else:
        size = min(224, max(112, side // WINDOW_PIXELS * WINDOW_PIXELS)) if gpu else 112
        why = f"the images are about {side} px" + ("" if gpu else " and there is no GPU")
    if recipe.init is None:
        recipe = choose(recipe, "img_size", size, why)
    small = small if recipe.img_size is None else recipe.img_size <= 64
    name = ("stt_micro" if n >= 10_000 else "stt_nano") if small else "stt_s14" if gpu and n >= 50_000 else "stt_t"
    if recipe.init is None:
        recipe = choose(recipe, "model", name, f"for {n:,} training images of this size")
    batch = 256 if n >= 20_000 and small else 64 if n >= 2_000 else 32
    shared = max(1, min(batch, n // 4) // (processes * recipe.accumulate)) * processes * recipe.accumulate
    recipe = choose(recipe, "batch_size", shared, f"for {n:,} training images")
    lr = (3e-3 if recipe.opt == "muon" else 1e-3) * (0.3 if recipe.init else 1.0)
    recipe = choose(recipe, "lr", lr, f"usual for {recipe.opt}" + (" when fine-tuning" if recipe.init else ""))
    recipe = choose(recipe, "crop", "shift" if small else "resized", "usual at this size")
    written = all(len(name) == 1 for name in splits.train.classes)
    why = "characters must not be mirrored" if written else "mirrored photographs are as likely"
    recipe = choose(recipe, "hflip", 0.0 if written else 0.5, why)
    if recipe.minutes is None and recipe.epochs is None:
        epochs = 30.0 if n >= 20_000 else 60.0 if n >= 1_000 else 100.0
        recipe = choose(recipe, "epochs", epochs, f"for {n:,} training images")
        if not gpu:
            said.append(
                f"at most {MINUTES_WITHOUT_GPU:.0f} minutes, as there is no GPU: --epochs or --minutes change it"
            )
    return recipe, said


def seconds_per_image(
    model: nn.Module, recipe: Recipe, device: torch.device, num_classes: int, seconds: float
) -> tuple[float, float]:
    """Measured on a copy of the model: seconds of a training step and of an evaluation, per image, as medians.

    Args:
        model: What will be trained.
        recipe: Decides batch size, image size, precision and optimizer.
        device: Where it computes.
        num_classes: K.
        seconds: For how long to measure each of the two, at least.
    """
    twin = copy.deepcopy(model).train()
    step = training_step(twin, recipe, device, num_classes)
    images = random_images(recipe, device)

    def evaluation() -> None:
        with torch.inference_mode():
            twin(images).sum().item()

    def median(work: Callable[[], None]) -> float:
        work()
        start = time.perf_counter()
        times: list[float] = []
        while len(times) < 3 or time.perf_counter() - start < seconds:
            began = time.perf_counter()
            work()
            if device.type != "cpu":
                torch.accelerator.synchronize(device)
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    training = median(step)
    twin.eval()
    return training / (recipe.accumulate * len(images)), median(evaluation) / len(images)


def random_images(recipe: Recipe, device: torch.device) -> Tensor:
    """As many as go through the model at once. [B, 3, H, W]"""
    assert recipe.batch_size is not None and recipe.img_size is not None
    shape = (recipe.batch_size // recipe.accumulate, 3, recipe.img_size, recipe.img_size)
    return torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)


def training_step(model: nn.Module, recipe: Recipe, device: torch.device, num_classes: int) -> Callable[[], None]:
    """What makes one step of the recipe on random images, to be timed; it changes the model.

    Args:
        model: On the device, as setup.to_train leaves it.
        recipe: Decides batch size, image size, precision and optimizer.
        device: Where it computes.
        num_classes: K.
    """
    optimizer = make_optimizer(model, recipe, device)
    images = random_images(recipe, device)
    targets = torch.randint(0, num_classes, (len(images),), device=device)

    def step() -> None:
        for _ in range(recipe.accumulate):
            with autocast(recipe.precision, device):
                logits = model(images).float()
            F.cross_entropy(logits, targets).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def steps_in(minutes: float, recipe: Recipe, train: int, val: int, speed: tuple[float, float]) -> int:
    """Steps that fit into a time budget, evaluations included, with a margin of 6 %.

    Args:
        minutes: The budget.
        recipe: Decides batch size and how often to evaluate.
        train: Training images.
        val: Validation images.
        speed: From seconds_per_image.
    """
    assert recipe.batch_size is not None
    per_image = speed[0] + speed[1] * val / (train * recipe.eval_epochs)
    images = (minutes * 60 * 0.94 - speed[1] * val) / per_image
    return max(1, int(images / recipe.batch_size))


def steps_until(minutes: float, step: int, seconds: float) -> int:
    """Steps of the whole run that fit into a time budget, at the speed of the run so far, with a margin of 1 %.

    Args:
        minutes: The budget.
        step: Where the run stands.
        seconds: What it took until there.
    """
    return max(step + 1, int(step * 60 * minutes * 0.99 / seconds))
