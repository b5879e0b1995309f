"""Sizes and costs of the variants."""

from typing import Any, Dict, List

import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from .family import VARIANTS


def summaries() -> List[Dict[str, Any]]:
    """For each variant: name, parameters at 1000 classes, MACs of one image of its size, and its architecture."""
    rows = []
    for name, variant in VARIANTS.items():
        model = timm.create_model(name, device="meta").eval().requires_grad_(False)
        size = variant.get("img_size", 224)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, size, size, device="meta"))
        row = {"name": name, "img_size": size, "macs": counter.get_total_flops() // 2}
        row["parameters"] = sum(p.numel() for p in model.parameters())
        rows.append(row | vars(model.architecture))
    return rows
