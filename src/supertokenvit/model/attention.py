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
                whole = attn.reshape(shape[:-2] + attn.shape[1:])
                collect[self.name + ".attention"] = whole
                attn = whole.reshape(attn.shape)  # the computation goes on with what is collected
            attn = self.attn_drop(attn)
            x = attn @ v
        x = x.transpose(1, 2).reshape(shape)
        return self.proj_drop(self.proj(x))

    def super_only(self, x: Tensor, mask: Optional[Tensor] = None) -> Tensor:
        """Answers token 0 alone, [..., tokens, C] -> [..., 1, C]: forward(x)[..., :1, :] at a fraction of the cost.

        No token gets a key or a value: the projections move behind the sums, to the one query of each head.
        q . (K x + k) = (K^T q) . x + q . k, of which softmax drops the last term, the same for all x;
        sum a (V x + v) = V (sum a x) + (sum a) v.
        Where something else stands in the place of the projection, or watches it, it is called as in forward.
        """
        if not torch.jit.is_scripting():  # noqa: SIM102  TorchScript leaves out what is behind this line alone
            if not is_plain(self.qkv):
                return self.forward(x, mask)[..., :1, :]
        C, d = x.shape[-1], x.shape[-1] // self.heads
        tokens = x.reshape(-1, x.shape[-2], C)  # [sequences, tokens, C]
        _, key, value = self.qkv.weight.reshape(3, self.heads, d, C).unbind(0)  # each [heads, d, C]
        value_bias = self.qkv.bias[2 * C :].reshape(self.heads, 1, d)
        q = F.linear(tokens[:, 0], self.qkv.weight[:C], self.qkv.bias[:C])
        q = q.reshape(-1, self.heads, d).transpose(0, 1) * self.scale  # [heads, sequences, d]
        attn = (q @ key).transpose(0, 1) @ tokens.transpose(1, 2)  # [sequences, heads, tokens]
        attn = maybe_add_mask(attn.unsqueeze(2), mask).softmax(dim=-1).squeeze(2)
        attn = self.attn_drop(attn)
        x_sum = (attn @ tokens).transpose(0, 1)  # [heads, sequences, C]
        attn_sum = attn.sum(-1).transpose(0, 1).unsqueeze(-1)  # [heads, sequences, 1]
        out = x_sum @ value.transpose(1, 2) + attn_sum * value_bias  # [heads, sequences, d]
        out = out.transpose(0, 1).reshape(x.shape[:-2] + (1, C))
        return self.proj_drop(self.proj(out))


def is_plain(layer: nn.Module) -> bool:
    """Says whether a layer is a Linear that nobody replaced (as LoRA and quantisation do) and no hook watches."""
    watched = layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks or layer._backward_pre_hooks
    return type(layer) is nn.Linear and not watched


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

    def forward(
        self,
        token: Tensor,
        super_tokens: Tensor,
        collect: Optional[Dict[str, Tensor]] = None,
        mask: Optional[Tensor] = None,
    ) -> Tensor:
        B, n, C = super_tokens.shape
        q = self.q(token).reshape(B, 1, self.heads, C // self.heads).transpose(1, 2)
        k, v = self.kv(super_tokens).reshape(B, n, 2, self.heads, C // self.heads).permute(2, 0, 3, 1, 4).unbind(0)
        if self.fused_attn and collect is None:
            x = F.scaled_dot_product_attention(q, k, v, mask, dropout_p=self.attn_drop.p if self.training else 0.0)
        else:
            attn = maybe_add_mask(q * self.scale @ k.transpose(-2, -1), mask).softmax(dim=-1)
            if collect is not None:
                collect[self.name + ".attention"] = attn
            attn = self.attn_drop(attn)
            x = attn @ v
        return self.proj_drop(self.proj(x.transpose(1, 2).reshape(B, 1, C)))
