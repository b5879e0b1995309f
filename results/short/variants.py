"""The arms of the short recipe that the package does not offer: it keeps only what wins.

Importing this registers `stt_short` with timm: a SuperTokenTransformer with a stem spelled out.
"""

from typing import Any

from timm.layers import ConvNormAct
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import nn

from supertoken.model.network import SuperTokenTransformer, init_module

default_cfgs = generate_default_cfgs(
    {"stt_short": {"num_classes": 10, "input_size": (3, 32, 32), "first_conv": "stem.0.conv", "classifier": "head"}}
)


class Short(SuperTokenTransformer):
    """A SuperTokenTransformer whose stem is a list of 3x3 convolutions.

    Args:
        stem: Output channels and stride of each, as "96:2 96:1 192:2"; their strides multiply to `stride`.
        **kwargs: Of SuperTokenTransformer.
    """

    def __init__(self, stem: str = "", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if stem:
            self.stem = spelled(stem, self.in_chans)  # type: ignore[assignment]


def spelled(text: str, channels: int) -> nn.Sequential:
    """Convolutions with BatchNorm and GELU, the last without GELU."""
    steps = [tuple(map(int, part.split(":"))) for part in text.split()]
    layers = []
    for i, (out, stride) in enumerate(steps):
        last = i == len(steps) - 1
        layers.append(ConvNormAct(channels, out, 3, stride=stride, padding=1, apply_act=not last, act_layer=nn.GELU))
        init_module(layers[-1].conv, needs_reset=False)
        channels = out
    return nn.Sequential(*layers)


@register_model
def stt_short(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A SuperTokenTransformer of any architecture with any stem."""
    return build_model_with_cfg(Short, "stt_short", pretrained, **{"img_size": 32, **kwargs})
