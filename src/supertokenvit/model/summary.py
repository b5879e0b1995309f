"""Sizes and costs of the variants."""

from dataclasses import asdict
from typing import Any, Dict, List

import timm
import torch
from rich.table import Column, Table
from torch.utils.flop_counter import FlopCounterMode

from ..console import user_console
from .family import VARIANTS, architecture_of_variant


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


def print_summaries() -> None:
    """Prints the variants as a table."""
    table = Table(
        Column("model", no_wrap=True), "params", "GMACs", "image", "stride", "window", "width", "layers L/G/K"
    )
    for row in summaries():
        cells = [row["name"], f"{row['parameters'] / 1e6:.2f}M", f"{row['macs'] / 1e9:.3f}", f"{row['img_size']} px"]
        cells += [str(row[key]) for key in ("stride", "window", "width")]
        table.add_row(*cells, f"{row['local_layers']}/{row['global_layers']}/{row['class_layers']}")
    user_console().print(table)


def changed(name: str, args: Dict[str, Any]) -> Dict[str, Any]:
    """Of the arguments of a model, the fields of Architecture that are not what the variant of that name has.

    Args:
        name: Of a variant; any other has no fields.
        args: Of the model.
    """
    if name not in VARIANTS:
        return {}
    fields = asdict(architecture_of_variant(name))
    return {key: value for key, value in args.items() if key in fields and fields[key] != value}
