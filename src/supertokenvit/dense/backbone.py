"""Backbones of timm's that take images of any size."""

import contextlib
from collections.abc import Callable
from typing import Any, TypeVar

from timm.models import get_pretrained_cfg

T = TypeVar("T")


def of_any_size(make: Callable[..., T], name: str, **options: Any) -> T:
    """Makes a network on a model of timm's for images of any size, also if the model usually insists on one.

    Args:
        make: Makes it of arguments of timm.create_model.
        name: Of the model.
        **options: Such arguments.
    """
    cfg = get_pretrained_cfg(name)
    # what ViT and what Swin call it; others raise a TypeError
    ways: list[dict[str, Any]] = [{"dynamic_img_size": True}, {"strict_img_size": False}]
    for way in ways if cfg is not None and cfg.fixed_input_size else []:
        with contextlib.suppress(TypeError):
            return make(**options, **way)
    return make(**options)
