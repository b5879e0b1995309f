"""How many steps fit into a time budget: the speed is measured first, and planned anew as the run goes on."""

import copy
import statistics
import time
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from ..machine import wait_for
from ..tasks import Task
from .checkpoint import Standing
from .optimizer import make_optimizer
from .recipe import Recipe
from .step import TrainingStep

RECENT = 1000  # steps whose times are remembered
DISTURBED = 5.0  # a step that takes so many times as long as usual was disturbed by something else


def recipe_step(model: nn.Module, recipe: Recipe, device: torch.device, task: Task) -> TrainingStep:
    """Makes the recipe's training step for one process, to be timed on random images.

    Args:
        model: On the device, as assembly.to_train leaves it.
        recipe: Decides batch size, precision, optimiser and clipping.
        device: Where it computes.
        task: Its loss.
    """
    optimizer = make_optimizer(model, recipe, device)
    step = TrainingStep(model, optimizer, task, device, precision=recipe.precision)
    step.accumulate, step.clip_grad = recipe.accumulate, recipe.clip_grad
    return step


def random_images(recipe: Recipe, device: torch.device, size: int) -> Tensor:
    """Makes a batch of random images [B, 3, size, size], as a step of the recipe sees them."""
    assert recipe.batch_size is not None
    shape = (recipe.batch_size, 3, size, size)
    return torch.randn(shape, device=device).contiguous(memory_format=torch.channels_last)


def seconds_per_image(
    model: nn.Module, recipe: Recipe, device: torch.device, task: Task, num_classes: int, seconds: float
) -> tuple[float, float]:
    """Measures a copy of the model: seconds of a training step and of an evaluation, per image, as medians.

    With several sizes of training images those of a step are their mean.

    Args:
        model: What will be trained.
        recipe: Decides batch size, image sizes, precision and optimizer.
        device: Where it computes.
        task: What is learned.
        num_classes: K.
        seconds: For how long to measure each of the two, at least.
    """
    assert recipe.batch_size is not None and recipe.img_size is not None
    twin = copy.deepcopy(model).train()
    step = recipe_step(twin, recipe, device, task)
    batches = [random_images(recipe, device, size) for size in recipe.training_sizes]
    targets = [task.blank_targets(len(x), x.shape[-1], num_classes).to(device) for x in batches]
    part = random_images(recipe, device, recipe.img_size)[: recipe.batch_size // recipe.accumulate]

    def training() -> None:
        for images, wanted in zip(batches, targets, strict=True):
            step(images, wanted, lr=recipe.lr or 0.0)

    def evaluation() -> None:
        with torch.inference_mode():
            twin(part)

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

    of_training = median(training) / (len(batches) * recipe.batch_size)
    twin.eval()
    return of_training, median(evaluation) / len(part)


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


@dataclass
class Pace:
    """How long the steps and evaluations of a run take, to plan the rest of a time budget.

    Args:
        evaluation: Seconds of an evaluation, as far as they are known before the first one.
    """

    evaluation: float = 0.0
    steps: list[tuple[int, float]] = field(default_factory=list)
    """Size of the images and seconds of the steps that this process has made, the last RECENT of them."""

    def note(self, seconds: float, size: int) -> None:
        """Notes the time of a step with images of that side in pixels."""
        self.steps.append((size, seconds))
        del self.steps[:-RECENT]

    @property
    def step(self) -> float:
        """Seconds of a step: their mean, in which no step counts more than several usual ones of its size."""
        times: dict[int, list[float]] = defaultdict(list)
        for size, seconds in self.steps:
            times[size].append(seconds)
        most = {size: DISTURBED * statistics.median(those) for size, those in times.items()}
        return statistics.fmean(min(seconds, most[size]) for size, seconds in self.steps)


def steps_until(minutes: float, at: Standing, eval_every: int, pace: Pace) -> int:
    """Counts the steps of the whole run that fit into a time budget, less 1 %, with the evaluations still to come.

    Args:
        minutes: The budget.
        at: Where the run stands.
        eval_every: Steps from one evaluation to the next; one more follows the last step.
        pace: Of the run so far.
    """
    left = 60 * minutes * 0.99 - at.seconds
    evaluation = at.evaluating / at.evaluations if at.evaluations else pace.evaluation

    def seconds(steps: int) -> float:
        evaluations = -(-(at.step + steps) // eval_every) - at.step // eval_every  # the last step has one, too
        return steps * pace.step + evaluations * evaluation

    most = max(1, int(left / pace.step) + 1)
    return at.step + max(1, bisect_right(range(1, most + 1), left, key=seconds))
