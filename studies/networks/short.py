"""The arms of the short recipe that the package does not offer: it keeps only what wins.

Importing this registers `stt_short` with timm: a SuperTokenTransformer whose `parts` replace some of its modules.
"""

from typing import Any

import torch
import torch.nn.functional as F
from timm.layers import ConvNormAct
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from supertokenvit.model.attention import Attention
from supertokenvit.model.network import SuperTokenTransformer, init_module
from supertokenvit.model.stem import ChannelsLast, Stem

from .whitening import Whitening

PARTS = ("stem", "whitened", "dirac", "shifted", "own_scale", "small_steps")
# what the options of Architecture were when the rows were made, where a queue does not say
USUAL = {"img_size": 32, "local_layers": 4, "global_layers": 21, "local_mlp_ratio": 4.0, "layer_scale": None}
CFG = {"num_classes": 10, "input_size": (3, 32, 32), "fixed_input_size": True}
default_cfgs = generate_default_cfgs({"stt_short": CFG | {"first_conv": "stem.0.conv", "classifier": "head"}})


class Short(SuperTokenTransformer):
    """A SuperTokenTransformer with some parts replaced.

    Args:
        parts: "stem": channels and stride of each 3x3 convolution, as "96:2 96:1 192:2"; "whitened": behind
            a frozen convolution that whitens patches (arXiv 2404.00498); "dirac": those of stride 1
            begin as the identity; "shifted": the stem sees the image also moved to its four corners (SPT, arXiv
            2112.13492); "own_scale": the scale of attention is learned, no token attends to itself (LSA, the same);
            "small_steps": so many steps of training see the image at half its size.
        **kwargs: Of SuperTokenTransformer.
    """

    def __init__(self, parts: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        parts = dict(parts or {})
        unknown = set(parts) - set(PARTS)
        if unknown:
            raise ValueError(f"parts: no {sorted(unknown)[0]}; there are {', '.join(PARTS)}")
        a, shifted = self.architecture, parts.get("shifted", False)
        channels = Whitening.channels if parts.get("whitened") else self.in_chans * (5 if shifted else 1)
        stem: Any = self.stem
        if "stem" in parts:
            stem = spelled(parts["stem"], channels)
        elif shifted:
            stem = Stem(channels, a.width, stride=a.stride, convs=a.stem_convs, order=a.stem_order)
        for layer in stem:
            init_module(layer.conv, needs_reset=False)
            if parts.get("dirac") and layer.conv.stride == (1, 1):
                nn.init.dirac_(layer.conv.weight[: layer.conv.in_channels].data)
        first = Shifted(a.stride // 2) if shifted else Whitening() if parts.get("whitened") else None
        self.stem = nn.Sequential(first, stem) if first is not None else stem
        self.small_steps = parts.get("small_steps", 0)
        if parts.get("own_scale"):
            layers: Any = [*self.local_layers, *self.global_layers]
            for layer in layers:
                layer.block.attn.__class__ = OwnScale
                layer.block.attn.log_scale = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        if self.training and self.small_steps > 0:
            self.small_steps -= 1  # a run that is resumed begins with small images anew: these runs are short
            x = F.avg_pool2d(x, 2)
        return super().forward(x)


class Shifted(nn.Module):
    """An image, and moved by some pixels to each of its corners. [B, 3, H, W] -> [B, 15, H, W]"""

    def __init__(self, by: int) -> None:
        super().__init__()
        self.by = by

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        H, W = x.shape[2:]
        padded = F.pad(x, [self.by] * 4)
        corners = ((0, 0), (0, 2 * self.by), (2 * self.by, 0), (2 * self.by, 2 * self.by))
        return torch.cat([x, *(padded[:, :, i : i + H, j : j + W] for i, j in corners)], dim=1)


class OwnScale(Attention):
    """Attention whose scale is learned, and in which no token attends to itself."""

    def forward(self, x, mask=None, collect=None):  # noqa: D102
        tokens, C = x.shape[-2], x.shape[-1]
        qkv = self.qkv(x).reshape(-1, tokens, 3, self.heads, C // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        others = torch.eye(tokens, dtype=torch.bool, device=x.device)
        hidden = torch.zeros_like(others, dtype=x.dtype).masked_fill(others, float("-inf"))
        out = F.scaled_dot_product_attention(q * self.log_scale.exp(), k, v, hidden if mask is None else mask + hidden)
        return self.proj_drop(self.proj(out.transpose(1, 2).reshape(x.shape)))

    def super_only(self, x, mask=None):  # noqa: D102
        return self.forward(x, mask)[..., :1, :]


def spelled(text: str, channels: int) -> ChannelsLast:
    """Convolutions with BatchNorm and GELU, the last without GELU."""
    steps = [tuple(map(int, part.split(":"))) for part in text.split()]
    layers = []
    for i, (out, stride) in enumerate(steps):
        act = i < len(steps) - 1
        layers.append(ConvNormAct(channels, out, 3, stride=stride, padding=1, apply_act=act, act_layer=nn.GELU))
        channels = out
    return ChannelsLast(*layers)


@register_model
def stt_short(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A SuperTokenTransformer of any architecture, some parts of it replaced."""
    parts = kwargs.get("parts") or {}
    first = "stem.1.0.conv" if parts.get("shifted") else "stem.0.1" if parts.get("whitened") else "stem.0.conv"
    overlay = {"first_conv": first, **(kwargs.pop("pretrained_cfg_overlay", None) or {})}
    args = {**USUAL, "pretrained_cfg_overlay": overlay, **kwargs}
    return build_model_with_cfg(Short, "stt_short", pretrained, **args)
