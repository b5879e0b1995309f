"""Attention within a sequence of tokens, and of the class token. Shape letters as in network.py."""

from typing import Dict, Optional

import torch
import torch.nn.functional as F
from timm.layers import maybe_add_mask, use_fused_attn
from torch import Tensor, nn


class Attention(nn.Module):
    """Multi-head attention of each token to all tokens of its own sequence, [..., tokens, C] -> the same shape.

    Leading dimensions (batch, windows) are independent sequences.

    Args:
        width: C.
        heads: Number of heads; divides C.
        attn_drop: Dropout of the attention weights.
        proj_drop: Dropout of the output.
        name: Under which the weights [..., heads, tokens, tokens] are collected, with ".attention" appended.
        device: Where the parameters are created.
        dtype: Of the parameters.
    """

    fused_attn: torch.jit.Final[bool]

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        name: str = "",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.fused_attn = use_fused_attn()
        self.name = name
        self.qkv = nn.Linear(width, 3 * width, **dd)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(width, width, **dd)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, x: Tensor, mask: Optional[Tensor] = None, collect: Optional[Dict[str, Tensor]] = None) -> Tensor:
        shape = x.shape
        qkv = self.qkv(x).reshape(-1, shape[-2], 3, self.heads, shape[-1] // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each [sequences, heads, tokens, C / heads]
        if self.fused_attn and collect is None:
            x = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=self.attn_drop.p if self.training else 0.0)
        else:
            attn = maybe_add_mask(q * self.scale @ k.transpose(-2, -1), mask)
            attn = attn.softmax(dim=-1)
            if collect is not None:
                collect[self.name + ".attention"] = attn.reshape(shape[:-2] + attn.shape[1:])
            attn = self.attn_drop(attn)
            x = attn @ v
        x = x.transpose(1, 2).reshape(shape)
        return self.proj_drop(self.proj(x))


class ClassAttention(nn.Module):
    """Attention of a class token [B, 1, C] to the Super tokens [B, gh*gw, C], after CaiT (arXiv 2103.17239).

    DIFF: the class token does not attend to itself, so that its weights over the Super tokens sum to one.

    Args:
        width: C.
        heads: Number of heads; divides C.
        attn_drop: Dropout of the attention weights.
        proj_drop: Dropout of the output.
        name: Under which the weights [B, heads, 1, gh*gw] are collected, with ".attention" appended.
        device: Where the parameters are created.
        dtype: Of the parameters.
    """

    fused_attn: torch.jit.Final[bool]

    def __init__(
        self,
        width: int,
        heads: int,
        *,
        attn_drop: float = 0.0,
        proj_drop: float = 0.0,
        name: str = "",
        device=None,
        dtype=None,
    ) -> None:
        super().__init__()
        dd = {"device": device, "dtype": dtype}
        self.heads = heads
        self.scale = (width // heads) ** -0.5
        self.fused_attn = use_fused_attn()
        self.name = name
        self.q = nn.Linear(width, width, **dd)
        self.kv = nn.Linear(width, 2 * width, **dd)
        self.attn_drop = nn.Dropout(attn_drop)
        self.proj = nn.Linear(width, width, **dd)
        self.proj_drop = nn.Dropout(proj_drop)

    def forward(self, token: Tensor, super_tokens: Tensor, collect: Optional[Dict[str, Tensor]] = None) -> Tensor:
        B, n, C = super_tokens.shape
        q = self.q(token).reshape(B, 1, self.heads, C // self.heads).transpose(1, 2)
        k, v = self.kv(super_tokens).reshape(B, n, 2, self.heads, C // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused_attn and collect is None:
            x = F.scaled_dot_product_attention(q, k, v, dropout_p=self.attn_drop.p if self.training else 0.0)
        else:
            attn = (q * self.scale @ k.transpose(-2, -1)).softmax(dim=-1)
            if collect is not None:
                collect[self.name + ".attention"] = attn
            attn = self.attn_drop(attn)
            x = attn @ v
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(B, 1, C)))
