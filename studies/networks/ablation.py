"""The arms of the ablation that the package does not offer: it keeps only what wins.

Importing this registers `stt_ablation` with timm: a SuperTokenTransformer whose `parts` replace some of its modules.
"""

from typing import Any

import torch
from timm.layers import ConvNormAct, LayerNorm2d, RelPosBias
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from supertokenvit.model.attention import Attention
from supertokenvit.model.layers import LocalLayer
from supertokenvit.model.learned_grid import LearnedGrid
from supertokenvit.model.network import SuperTokenTransformer, init_module

PARTS = ("pointwise", "hand_back", "shared", "patchify", "stem_norm", "stem_width", "positions")
# what the options of Architecture were when the rows were made, where a queue does not say
USUAL = {"img_size": 32, "local_layers": 4, "global_layers": 21, "local_mlp_ratio": 4.0, "layer_scale": None}
CFG = {"num_classes": 10, "input_size": (3, 32, 32), "fixed_input_size": True}
default_cfgs = generate_default_cfgs({"stt_ablation": CFG | {"first_conv": "stem.0.conv", "classifier": "head"}})


class Ablation(SuperTokenTransformer):
    """A SuperTokenTransformer with some parts replaced.

    Args:
        parts: "pointwise": a 1x1 convolution behind the mixer's; "hand_back" False: see KeptAbove; "shared": one Super
            token for all windows; "patchify": a single convolution as wide as its stride; "stem_norm": "batch",
            "layer" or "none"; "stem_width": of all but its last convolution, as a multiple;
            "positions": "grid", "none", "relative" or "conv".
        **kwargs: Of SuperTokenTransformer.
    """

    def __init__(self, parts: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        parts = dict(parts or {})
        unknown = set(parts) - set(PARTS)
        if unknown:
            raise ValueError(f"parts: no {sorted(unknown)[0]}; there are {', '.join(PARTS)}")
        width, window = self.architecture.width, self.architecture.window
        locals_: Any = list(self.local_layers)
        if parts.get("patchify"):
            stride = self.architecture.stride
            self.stem = nn.Conv2d(self.in_chans, width, stride, stride=stride)
            nn.init.trunc_normal_(self.stem.weight, std=0.02)
        if "stem_width" in parts:
            narrow(self.stem, parts["stem_width"])
        if parts.get("stem_norm", "batch") != "batch":
            stem: Any = self.stem
            for layer in stem:
                replace_norm(layer, parts["stem_norm"])
        if parts.get("pointwise"):
            for layer in locals_:
                layer.mixer.mix.conv = nn.Sequential(layer.mixer.mix.conv, pointwise(width))
        if parts.get("shared"):
            self.windows.super_tokens = Shared(width)
        if not parts.get("hand_back", True):
            for layer in locals_:
                layer.__class__ = KeptAbove
        positions = parts.get("positions", "grid")
        if positions != "grid":
            self.windows.positions = Nothing()  # type: ignore[assignment]
        if positions == "conv":
            self.stem = nn.Sequential(self.stem, Convolution(width))
        if positions == "relative":
            for layer in locals_:
                layer.block.attn.__class__ = Relative
                layer.block.attn.bias = RelPosBias((window, window), layer.block.attn.heads, prefix_tokens=1)

    def forward_features(
        self, x: Tensor, collect: dict[str, Tensor] | None = None, sizes: Tensor | None = None
    ) -> Tensor:
        """As in the base; what is kept above (see KeptAbove) is added where the global layers begin."""
        for layer in self.local_layers:
            layer.kept = []  # type: ignore[assignment]
        if not any(isinstance(layer, KeptAbove) for layer in self.local_layers):
            return super().forward_features(x, collect, sizes)
        x = self.stem(x)
        x, mask, grid = self.windows(x)
        for i, layer in enumerate(self.local_layers):
            x = layer(x, grid, mask, collect, super_only=i == len(self.local_layers) - 1)
        x = x[:, :, 0] + torch.stack([update for layer in self.local_layers for update in layer.kept]).sum(0)  # type: ignore[union-attr]
        for layer in self.global_layers:
            x = layer(x, grid, collect)
        return self.norm(x).transpose(1, 2).unflatten(2, grid)


class KeptAbove(LocalLayer):
    """A local layer whose mixer's answer does not go back into the window: the global layers get the sum of all."""

    def forward(self, x, grid, mask=None, collect=None, super_only=False):  # noqa: D102
        x = self.block(x, mask, collect, super_only)
        self.kept = [] if self.mixer is None else [self.mixer(x[:, :, 0], grid, collect)]
        return x


class Relative(Attention):
    """Attention with a learned bias for each pair of places in the window (Swin's; timm's RelPosBias)."""

    def forward(self, x, mask=None, collect=None):  # noqa: D102
        bias = self.bias.get_bias()
        return super().forward(x, bias if mask is None else mask + bias, collect)

    def super_only(self, x, mask=None):  # noqa: D102
        return self.forward(x, mask)[..., :1, :]


class Shared(LearnedGrid):
    """One learned Super token, the same at every window."""

    def __init__(self, width: int) -> None:
        super().__init__(width, (1, 1))
        nn.init.trunc_normal_(self.weight, std=0.02)

    def forward(self, rows: int, columns: int) -> Tensor:  # noqa: D102
        return self.weight.expand(-1, -1, rows, columns)


class Nothing(nn.Module):
    """No positions."""

    def forward(self, rows: int, columns: int) -> float:  # noqa: D102
        return 0.0


class Convolution(nn.Module):
    """Positions from a depthwise 3x3 convolution of the patch grid, added to it (arXiv 2102.10882)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width)

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        return x + self.conv(x)


def narrow(stem: Any, ratio: float) -> None:
    """Makes every convolution of a stem but the last `ratio` times as wide."""
    for i, layer in enumerate(stem):
        channels = stem[i - 1].conv.out_channels if i else layer.conv.in_channels
        out = layer.conv.out_channels if i == len(stem) - 1 else int(ratio * layer.conv.out_channels)
        stride, act = layer.conv.stride, i < len(stem) - 1
        stem[i] = ConvNormAct(channels, out, 3, stride=stride, padding=1, apply_act=act, act_layer=nn.GELU)
        init_module(stem[i].conv, needs_reset=False)


def replace_norm(layer: Any, kind: str) -> None:
    """LayerNorm over channels, or none, instead of a stem layer's BatchNorm."""
    old: Any = layer.conv
    act: Any = layer.bn.act
    layer.conv = nn.Conv2d(old.in_channels, old.out_channels, 3, stride=old.stride, padding=1)
    layer.conv.weight, layer.conv.bias.data[:] = old.weight, 0.0
    layer.bn = nn.Sequential(LayerNorm2d(old.out_channels), act) if kind == "layer" else act


def pointwise(width: int) -> nn.Conv2d:
    """A 1x1 convolution."""
    conv = nn.Conv2d(width, width, 1)
    nn.init.trunc_normal_(conv.weight, std=0.02)
    conv.bias = nn.Parameter(torch.zeros(width))
    return conv


@register_model
def stt_ablation(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """A SuperTokenTransformer of any architecture, some parts of it replaced."""
    parts = kwargs.get("parts") or {}
    first = "stem" if parts.get("patchify") else "stem.0.0.conv" if parts.get("positions") == "conv" else "stem.0.conv"
    overlay = {"first_conv": first, **(kwargs.pop("pretrained_cfg_overlay", None) or {})}
    args = {**USUAL, "pretrained_cfg_overlay": overlay, **kwargs}
    return build_model_with_cfg(Ablation, "stt_ablation", pretrained, **args)
