"""The one training step: a run, the planning of its time and the benchmark all make this one."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import UserError
from ..machine import autocast
from ..tasks import Task
from .distillation import Teacher
from .optimizer import set_learning_rate
from .processes import OneProcess


class NotFinite(UserError):
    """The loss of a step, or its gradient, is infinite or no number."""


@dataclass
class Outcome:
    """What a step says of its batch, over all processes.

    Args:
        loss: Summed over the images.
        hits: Images that were answered rightly.
        images: In the batch.
    """

    loss: float
    hits: float
    images: int


class TrainingStep:
    """One update of the weights: learning rate, forward, backward, clipping, optimiser.

    Args:
        model: As it is called: compiled, or wrapped by DDP or FSDP2, if it is to be.
        optimizer: Of its parameters.
        task: Its loss.
        device: Where it computes.
        precision: Of the products: "fp32", "bf16" or "fp16".
        accumulate: Parts in which the batch is computed.
        clip_grad: Largest norm of the gradient; None for no limit.
        teacher: Whose answers to learn as well, or None.
        teacher_share: Fraction of the loss that comes from the teacher's answers.
        processes: That share each batch.
    """

    def __init__(
        self,
        model: nn.Module | Any,
        optimizer: torch.optim.Optimizer,
        task: Task,
        device: torch.device,
        *,
        precision: str = "fp32",
        accumulate: int = 1,
        clip_grad: float | None = None,
        teacher: Teacher | None = None,
        teacher_share: float = 0.0,
        processes: OneProcess | None = None,
    ) -> None:
        self.model, self.optimizer, self.task, self.device = model, optimizer, task, device
        self.precision, self.accumulate, self.clip_grad = precision, accumulate, clip_grad
        self.teacher, self.teacher_share = teacher, teacher_share
        self.processes = processes or OneProcess()

    def answer(self, *inputs: Any) -> Any:
        """Calls the model in the precision of the training."""
        with autocast(self.precision, self.device):
            return self.model(*inputs)

    def __call__(self, images: Tensor, targets: Any, lr: float) -> Outcome:
        """Makes the step.

        Args:
            images: This process's share of the batch, normalised [N, 3, H, W].
            targets: Class numbers [N], or a value for each class [N, K], or what else the task learns.
            lr: Learning rate.

        Raises:
            NotFinite: The loss or the gradient is infinite or no number; the weights stay as they were.
        """
        set_learning_rate(self.optimizer, lr)
        images, targets = images.to(self.device), targets.to(self.device)
        count, weight = self.processes.total(len(images), self.task.weight(targets))
        outcome = Outcome(0.0, 0, int(count))
        parts = zip(images.tensor_split(self.accumulate), targets.tensor_split(self.accumulate), strict=True)
        for number, (x, y) in enumerate(parts, 1):
            with self.processes.gradients(self.model, last=number == self.accumulate):
                loss, right, logits = self.task.learn(self.answer, x, y)
                loss = loss / weight
                if self.teacher is not None and logits is not None:
                    loss = torch.lerp(loss, self.teacher.loss(x, logits) / count, self.teacher_share)
                value, hits = self.processes.total(loss.item(), right)
                if not math.isfinite(value):
                    raise NotFinite("the loss is not finite")
                # gradients are averaged over the processes, and the sum is wanted
                self.processes.backward(loss * self.processes.count)
            outcome.loss += value * count
            outcome.hits += hits
        norm = self.processes.clip(self.model, math.inf if self.clip_grad is None else self.clip_grad)
        if not math.isfinite(norm):
            self.optimizer.zero_grad()
            raise NotFinite("the gradient is not finite")
        self.optimizer.step()
        self.optimizer.zero_grad()
        return outcome
