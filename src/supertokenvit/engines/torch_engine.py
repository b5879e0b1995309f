"""A network in torch, eager or compiled."""

from typing import Any

import torch
from torch import Tensor, nn

from ..machine import autocast


class TorchNetwork:
    """A torch model as a callable that answers in eval mode and leaves the model's modes as it found them.

    Gradients are kept unless the caller turns them off.

    Args:
        model: Put on the device.
        device: Where it computes.
        precision: Of the products: "fp32", or "bf16" under autocast.
        compiled: Compile it on the first call (torch.compile).
    """

    def __init__(
        self, model: nn.Module, device: torch.device, precision: str = "fp32", *, compiled: bool = False
    ) -> None:
        self.model, self.device, self.precision = model.to(device), device, precision
        self.call: Any = torch.compile(model) if compiled else model

    def __call__(self, images: Tensor) -> Tensor:
        """Answers for normalised images [N, C, H, W] with float32 logits [N, K] on the device."""
        if not self.model.training:
            return self.answer(images)
        learning = [module for module in self.model.modules() if module.training]
        self.model.eval()
        try:
            return self.answer(images)
        finally:
            for module in learning:  # one by one: what is frozen was in eval mode
                module.training = True

    def answer(self, images: Tensor) -> Tensor:
        """Answers in the mode that the model is in."""
        with autocast(self.precision, self.device):
            return self.call(images.to(self.device)).float()
