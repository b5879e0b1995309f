"""What is minimised, and what is counted as right."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass
class Objective:
    """Cross-entropy, or binary cross-entropy for each label; sums over images, so that parts of a batch add up.

    Args:
        multi_label: Whether an image may have several classes.
        class_weights: [K], or None.
        smoothing: Of labels, for one class an image.
    """

    multi_label: bool
    class_weights: Tensor | None
    smoothing: float

    def loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        """Summed over logits [N, K], of targets [N] or [N, K]."""
        w = self.class_weights
        if self.multi_label:
            return F.binary_cross_entropy_with_logits(logits, targets.float(), pos_weight=w, reduction="sum")
        return F.cross_entropy(logits, targets, weight=w, label_smoothing=self.smoothing, reduction="sum")

    def weight(self, targets: Tensor) -> float:
        """What the summed loss is to be divided by for torch's mean."""
        if self.multi_label:
            return targets.numel()
        if self.class_weights is None or targets.ndim == 2:
            return len(targets)
        return self.class_weights[targets].sum().item()

    def hits(self, logits: Tensor, targets: Tensor) -> float:
        """Images whose likeliest class is right; with several labels, the share of right labels summed over images."""
        if self.multi_label:
            return ((logits > 0) == (targets > 0.5)).float().mean(1).sum().item()
        return (logits.argmax(1) == (targets.argmax(1) if targets.ndim == 2 else targets)).sum().item()
