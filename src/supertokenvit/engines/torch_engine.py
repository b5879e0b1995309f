"""This module runs a network in torch, eager or compiled."""

from typing import Any

import torch
from torch import Tensor, nn

from ..machine import autocast
from ..products import fastest


class TorchNetwork:
    """Runs a torch model in eval mode and leaves each module's train/eval mode as it was.

    Gradients are kept unless the caller turns them off. A part that learns while the model as a whole is in eval mode
    is put into eval mode too, because its BatchNorm would otherwise learn from the images that it answers for.

    Args:
        model: The model, which is moved to the device.
        device: The device that computes.
        precision: "fp32", or "bf16" to run under autocast.
        compiled: Compile the model on the first call (torch.compile).
        by_convolution: Compute the products of Linear layers as convolutions (see products).
    """

    def __init__(
        self,
        model: nn.Module,
        device: torch.device,
        precision: str = "fp32",
        *,
        compiled: bool = False,
        by_convolution: bool = False,
    ) -> None:
        self.by_convolution = by_convolution
        self.model, self.device, self.precision = model.to(device), device, precision
        self.call: Any = torch.compile(model) if compiled else model

    @property
    def takes_sizes(self) -> bool:
        """Whether the model answers for images of different sizes in one batch."""
        return hasattr(self.model, "forward_padded")

    def __call__(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Returns float32 logits [N, K] on the device for normalised images [N, C, H, W] on any device.

        Args:
            images: All of one size, or each padded on the right and at the bottom.
            sizes: Height and width of each image [N, 2], for a model that takes them.
        """
        learning = [module for module in self.model.modules() if module.training]
        if not learning:
            return self.answer(images, sizes)
        self.model.eval()
        try:
            return self.answer(images, sizes)
        finally:
            for module in learning:  # one by one, because frozen parts were in eval mode
                module.training = True

    def answer(self, images: Tensor, sizes: Tensor | None = None) -> Tensor:
        """Returns the logits in the mode that the model is in."""
        with autocast(self.precision, self.device), fastest(self.by_convolution):
            images = images.to(self.device)
            return (self.call(images) if sizes is None else self.model.forward_padded(images, sizes)).float()  # type: ignore[operator]
