"""How Super tokens of different windows talk: the only path between windows below the global layers."""

from typing import Dict, Optional, Tuple

import torch
from timm.layers import DropPath, LayerScale
from torch import Tensor, nn

from .attention import Attention
from .folding import fold_scale

MIXERS = ("conv", "attention", "none")


class DepthwiseConv(nn.Module):
    """Depthwise 3x3 convolution over the grid of windows. [B, gh*gw, C] -> the same shape.

    A "separable convolution mixer" is second-hand knowledge of the paper; ours has no pointwise part by choice:
    49M parameters leave no room for one.

    Args:
        width: C.
        device: Where the parameters are created.
        dtype: Of the parameters.
    """

    def __init__(self, width: int, *, device=None, dtype=None) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1, groups=width, device=device, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        grid: Tuple[int, int],
        collect: Optional[Dict[str, Tensor]] = None,
        mask: Optional[Tensor] = None,
    ) -> Tensor:
        if mask is not None:  # what an image is alone, zeros lie behind its border
            x = x.masked_fill(mask[:, 0, 0, :, None] < 0, 0.0)
        x = x.transpose(1, 2).unflatten(2, (grid[0], grid[1]))
        return self.conv(x).flatten(2).transpose(1, 2)


class SuperAttention(nn.Module):
    """Attention of the Super tokens to each other. [B, gh*gw, C] -> the same shape.

    Args:
        width: C.
        heads: Number of heads.
        name: Under which the weights [B, heads, gh*gw, gh*gw] are collected, with ".attention" appended.
        device: Where the parameters are created.
        dtype: Of the parameters.
    """

    def __init__(self, width: int, heads: int, *, name: str = "", device=None, dtype=None) -> None:
        super().__init__()
        self.attn = Attention(width, heads, name=name, device=device, dtype=dtype)

    def forward(
        self,
        x: Tensor,
        grid: Tuple[int, int],
        collect: Optional[Dict[str, Tensor]] = None,
        mask: Optional[Tensor] = None,
    ) -> Tensor:
        return self.attn(x, mask, collect)


class Mixer(nn.Module):
    """What the Super tokens [B, gh*gw, C] of all windows have to add to each: norm, mixing, scale, drop path.

    An additive mask [B, 1, 1, gh*gw] leaves out Super tokens of windows that are no image's own.

    Args:
        kind: "conv" or "attention".
        width: C.
        heads: Of the attention; "conv" has none.
        layer_scale: Initial value of the learned scale; None for no scale.
        drop_path: Probability that a sample skips the mixer in training.
        name: Prefix of what is collected.
        device: Where the parameters are created.
        dtype: Of the parameters.
    """

    def __init__(
        self,
        kind: str,
        width: int,
        heads: int,
        *,
        layer_scale: Optional[float] = None,
        drop_path: float = 0.0,
        name: str = "",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.norm = nn.LayerNorm(width, eps=1e-6, **dd)
        self.mix = DepthwiseConv(width, **dd) if kind == "conv" else SuperAttention(width, heads, name=name, **dd)
        self.ls = LayerScale(width, layer_scale, **dd) if layer_scale else nn.Identity()
        self.drop_path = DropPath(drop_path)

    def forward(
        self,
        x: Tensor,
        grid: Tuple[int, int],
        collect: Optional[Dict[str, Tensor]] = None,
        mask: Optional[Tensor] = None,
    ) -> Tensor:
        return self.drop_path(self.ls(self.mix(self.norm(x), grid, collect, mask)))

    @torch.jit.ignore
    def reparameterize(self) -> None:
        """Folds the LayerScale into the mixer's last weights (timm's reparameterize_model calls it)."""
        self.ls = fold_scale(self.ls, self.mix.conv if isinstance(self.mix, DepthwiseConv) else self.mix.attn.proj)
