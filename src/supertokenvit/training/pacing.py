"""How many steps fit into a time budget: the speed is measured first, and planned anew as the run goes on."""

import copy
import statistics
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..machine import wait_for
from ..tasks import Classification
from .optimizer import make_optimizer
from .recipe import Recipe
from .step import TrainingStep


def recipe_step(model: nn.Module, recipe: Recipe, device: torch.device) -> TrainingStep:
    """Makes the recipe's training step for one process, to be timed on random images.

    Args:
        model: On the device, as assembly.to_train leaves it.
        recipe: Decides batch size, precision, optimiser and clipping.
        device: Where it computes.
    """
    optimizer, task = make_optimizer(model, recipe, device), Classification()
    step = TrainingStep(model, optimizer, task, device, precision=recipe.precision)
    step.accumulate, step.clip_grad = recipe.accumulate, recipe.clip_grad
    return step


def random_images(recipe: Recipe, device: torch.device) -> Tensor:
    """Makes a batch of random images [B, 3, H, W], as a step of the recipe sees them."""
    assert recipe.batch_size is not None and recipe.img_size is not None
    shape = (recipe.batch_size, 3, recipe.img_size, recipe.img_size)
    return torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)


def seconds_per_image(
    model: nn.Module, recipe: Recipe, device: torch.device, num_classes: int, seconds: float
) -> tuple[float, float]:
    """Measures a copy of the model: seconds of a training step and of an evaluation, per image, as medians.

    Args:
        model: What will be trained.
        recipe: Decides batch size, image size, precision and optimizer.
        device: Where it computes.
        num_classes: K.
        seconds: For how long to measure each of the two, at least.
    """
    twin = copy.deepcopy(model).train()
    step, images = recipe_step(twin, recipe, device), random_images(recipe, device)
    targets = torch.randint(0, num_classes, (len(images),), device=device)
    part = images[: len(images) // recipe.accumulate]

    def evaluation() -> None:
        with torch.inference_mode():
            twin(part).sum().item()

    def median(work: Callable[[], object]) -> float:
        work()
        start = time.perf_counter()
        times: list[float] = []
        while len(times) < 3 or time.perf_counter() - start < seconds:
            began = time.perf_counter()
            work()
            wait_for(device)
            times.append(time.perf_counter() - began)
        return statistics.median(times)

    training = median(lambda: step(images, targets, lr=recipe.lr or 0.0))
    twin.eval()
    return training / len(images), median(evaluation) / len(part)


def steps_in(minutes: float, recipe: Recipe, train: int, val: int, speed: tuple[float, float]) -> int:
    """Counts the steps that fit into a time budget, evaluations included, with a margin of 6 %.

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
    """Counts the steps of the whole run that fit into a time budget, at the speed of the run so far, less 1 %.

    Args:
        minutes: The budget.
        step: Where the run stands.
        seconds: What it took until there.
    """
    return max(step + 1, int(step * 60 * minutes * 0.99 / seconds))
