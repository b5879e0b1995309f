"""The three kinds of layer: local, global, class. Shape letters as in network.py."""

from typing import Dict, Optional, Tuple

import torch
from timm.layers import DropPath, LayerScale, Mlp
from timm.models import checkpoint
from torch import Tensor, nn

from .attention import Attention, ClassAttention
from .folding import fold_scale
from .mixer import Mixer


class Block(nn.Module):
    """Attention and MLP, each pre-normalised and added to its input. [..., tokens, C] -> the same shape.

    With `super_only` the answer is that of token 0 alone, [..., 1, C]: the same values at a fraction of the cost.

    Args:
        width: C.
        heads: Number of attention heads.
        mlp_ratio: Hidden width of the MLP as a multiple of C.
        layer_scale: Initial value of the learned scale of each branch; None for no scale.
        drop: Dropout after the projections.
        attn_drop: Dropout of the attention weights.
        drop_path: Probability that a sample skips a branch in training.
        name: Prefix of what is collected.
        device: Where the parameters are created.
        dtype: Of the parameters.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float,
        layer_scale: Optional[float] = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        drop_path: float = 0.0,
        name: str = "",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.norm1 = nn.LayerNorm(width, eps=1e-6, **dd)
        self.attn = Attention(width, heads, attn_drop=attn_drop, proj_drop=drop, name=name, **dd)
        self.ls1 = LayerScale(width, layer_scale, **dd) if layer_scale else nn.Identity()
        self.drop_path1 = DropPath(drop_path)
        self.norm2 = nn.LayerNorm(width, eps=1e-6, **dd)
        self.mlp = Mlp(width, int(width * mlp_ratio), drop=drop, **dd)
        self.ls2 = LayerScale(width, layer_scale, **dd) if layer_scale else nn.Identity()
        self.drop_path2 = DropPath(drop_path)
        self.grad_checkpointing = False

    def forward(
        self,
        x: Tensor,
        mask: Optional[Tensor] = None,
        collect: Optional[Dict[str, Tensor]] = None,
        super_only: bool = False,
    ) -> Tensor:
        if self.grad_checkpointing and not torch.jit.is_scripting():
            return checkpoint(self.residuals, x, mask, collect, super_only)
        return self.residuals(x, mask, collect, super_only)

    def residuals(
        self, x: Tensor, mask: Optional[Tensor], collect: Optional[Dict[str, Tensor]], super_only: bool
    ) -> Tensor:
        """Computes the two lines of a transformer block; with `super_only` the other tokens are attended to only."""
        y = self.norm1(x)
        if super_only:
            x, y = x[..., :1, :], self.attn.super_only(y, mask)
        else:
            y = self.attn(y, mask, collect)
        x = x + self.drop_path1(self.ls1(y))
        return x + self.drop_path2(self.ls2(self.mlp(self.norm2(x))))

    @torch.jit.ignore
    def reparameterize(self) -> None:
        """Folds the LayerScales into the projections before them (timm's reparameterize_model calls it)."""
        self.ls1 = fold_scale(self.ls1, self.attn.proj)
        self.ls2 = fold_scale(self.ls2, self.mlp.fc2)


class LocalLayer(nn.Module):
    """Attention and MLP within each window; then the mixer over the Super tokens alone, whose answer is added to them.

    Shapes: tokens [B, gh*gw, T, C] -> the same, or with `super_only` the Super tokens alone, [B, gh*gw, 1, C].
    Collects `{name}.tokens` (before the mixer) and `{name}.super_tokens` (behind it).

    Args:
        block: Attention and MLP of the window.
        mixer: Of the Super tokens; None leaves the windows apart.
        name: Prefix of what is collected.
    """

    def __init__(self, block: Block, mixer: Optional[Mixer], *, name: str) -> None:
        super().__init__()
        self.name = name
        self.block = block
        self.mixer = mixer

    def forward(
        self,
        x: Tensor,
        grid: Tuple[int, int],
        mask: Optional[Tensor] = None,
        collect: Optional[Dict[str, Tensor]] = None,
        super_only: bool = False,
        super_mask: Optional[Tensor] = None,
    ) -> Tensor:
        x = self.block(x, mask, collect, super_only)
        super_tokens = x[:, :, 0]
        if self.mixer is not None:
            super_tokens = super_tokens + self.mixer(super_tokens, grid, collect, super_mask)
        if collect is not None:  # the computation goes on with what is collected, so that gradients reach it
            collect[self.name + ".tokens"] = x
            collect[self.name + ".super_tokens"] = super_tokens
        return super_tokens.unsqueeze(2) if super_only else torch.cat([super_tokens.unsqueeze(2), x[:, :, 1:]], dim=2)


class GlobalLayer(nn.Module):
    """Attention and MLP over the Super tokens alone [B, gh*gw, C], then, if there is one, the mixer.

    Collects `{name}.super_tokens`.

    Args:
        block: Attention and MLP of the Super tokens.
        mixer: Of the Super tokens, or None.
        name: Prefix of what is collected.
    """

    def __init__(self, block: Block, mixer: Optional[Mixer], *, name: str) -> None:
        super().__init__()
        self.name = name
        self.block = block
        self.mixer = mixer

    def forward(
        self,
        x: Tensor,
        grid: Tuple[int, int],
        collect: Optional[Dict[str, Tensor]] = None,
        super_mask: Optional[Tensor] = None,
    ) -> Tensor:
        x = self.block(x, super_mask, collect)
        if self.mixer is not None:
            x = x + self.mixer(x, grid, collect, super_mask)
        if collect is not None:
            collect[self.name + ".super_tokens"] = x
        return x


class ClassLayer(nn.Module):
    """Class attention and MLP of the class token [B, 1, C] over the Super tokens [B, gh*gw, C], which stay as they are.

    Args:
        width: C.
        heads: Number of attention heads.
        mlp_ratio: Hidden width of the MLP as a multiple of C.
        layer_scale: Initial value of the learned scale of each branch; None for no scale.
        drop: Dropout after the projections.
        attn_drop: Dropout of the attention weights.
        name: Prefix of what is collected.
        device: Where the parameters are created.
        dtype: Of the parameters.
    """

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        mlp_ratio: float,
        layer_scale: Optional[float] = None,
        drop: float = 0.0,
        attn_drop: float = 0.0,
        name: str = "",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.norm1 = nn.LayerNorm(width, eps=1e-6, **dd)
        self.attn = ClassAttention(width, heads, attn_drop=attn_drop, proj_drop=drop, name=name, **dd)
        self.ls1 = LayerScale(width, layer_scale, **dd) if layer_scale else nn.Identity()
        self.norm2 = nn.LayerNorm(width, eps=1e-6, **dd)
        self.mlp = Mlp(width, int(width * mlp_ratio), drop=drop, **dd)
        self.ls2 = LayerScale(width, layer_scale, **dd) if layer_scale else nn.Identity()

    def forward(
        self,
        token: Tensor,
        super_tokens: Tensor,
        collect: Optional[Dict[str, Tensor]] = None,
        super_mask: Optional[Tensor] = None,
    ) -> Tensor:
        token = token + self.ls1(self.attn(self.norm1(token), super_tokens, collect, super_mask))
        return token + self.ls2(self.mlp(self.norm2(token)))

    @torch.jit.ignore
    def reparameterize(self) -> None:
        """Folds the LayerScales into the projections before them (timm's reparameterize_model calls it)."""
        self.ls1 = fold_scale(self.ls1, self.attn.proj)
        self.ls2 = fold_scale(self.ls2, self.mlp.fc2)
