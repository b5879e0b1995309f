"""What tasks have in common whose network is a backbone with a head."""

import json
from pathlib import Path
from typing import Any, ClassVar

from safetensors.torch import load_file, save_file
from torch import nn

from ..tasks import Task


class Headed(Task):
    """A task whose network is a head on the maps of any timm backbone.

    A model folder holds weights and config.json, like timm's but for the names of the weights.
    """

    at_once = 8
    network: ClassVar[type[nn.Module]]
    """Made of a backbone's name, the number of classes and a head's name; has the `pretrained_cfg` of its backbone, and
    `head` and `options`, from which it is made again."""

    @classmethod
    def create(cls, name: str, num_classes: int, head: str | None, **options: Any) -> nn.Module:
        """Makes backbone and head."""
        return cls.network(name, num_classes, head or cls.heads[0], **options)

    @classmethod
    def write(cls, model: Any, folder: Path, classes: list[str], data_config: dict[str, Any]) -> None:
        """Writes the weights of both, and what makes them again."""
        weights = {name: weight.contiguous() for name, weight in model.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
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

    @classmethod
    def read(cls, folder: Path, content: dict[str, Any], **sized: Any) -> nn.Module:
        """Makes them again; a network for any size is one for another size too."""
        model = cls.create(content["architecture"], content["num_classes"], content["head"], **content["model_args"])
        model.load_state_dict(load_file(folder / "model.safetensors"))
        return model
