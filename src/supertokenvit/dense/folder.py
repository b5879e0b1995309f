"""Writes and reads networks of a backbone and a head: weights and config.json, like timm's but for the names inside."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import nn


def write(model: Any, folder: Path, classes: list[str], data_config: dict[str, Any]) -> None:
    """Writes weights and config.json.

    Args:
        model: With `pretrained_cfg` of its backbone, `head` and `options`, from which `make` makes it again.
        folder: Where to.
        classes: Names in the order of the logits.
        data_config: timm's description of the preprocessing.
    """
    save_file({name: weight.contiguous() for name, weight in model.state_dict().items()}, folder / "model.safetensors")
    kept = ("architecture", "license")
    cfg = {key: model.pretrained_cfg[key] for key in kept if model.pretrained_cfg.get(key)} | data_config
    content = {
        "architecture": model.pretrained_cfg["architecture"],
        "num_classes": len(classes),
        "label_names": classes,
        "head": model.head,
        "model_args": model.options,
        "pretrained_cfg": cfg,
    }
    (folder / "config.json").write_text(json.dumps(content), encoding="utf-8")


def read(make: Callable[..., nn.Module], folder: Path, content: dict[str, Any]) -> nn.Module:
    """Makes the network of a folder again, with its weights.

    Args:
        make: Task.create.
        folder: With the weights.
        content: Of config.json.
    """
    model = make(content["architecture"], content["num_classes"], content["head"], **content["model_args"])
    model.load_state_dict(load_file(folder / "model.safetensors"))
    return model
