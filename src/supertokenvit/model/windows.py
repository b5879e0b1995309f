"""Windows: the patch grid is cut once, and stays cut until the patch tokens are left behind. Letters: network.py.

With M = 2 a patch grid of 4 x 4 becomes gh x gw = 2 x 2 windows. Each window is one row of T = 1 + M*M tokens, and its
Super token stands in front:

    a b | c d          s0  a b e f        [B, C, h, w]
    e f | g h          s1  c d g h     -> [B, C, gh, M, gw, M]
    ----+----    ->    s2  i j m n     -> [B, gh*gw, M*M, C]
    i j | k l          s3  k l o p     -> [B, gh*gw, T, C]
    m n | o p

Attention within windows is then plain attention over the rows, and what Super tokens do with each other is done on
column 0 alone: no layer moves tokens again.

A grid that does not fill whole windows is padded on the right and at the bottom. A mask of 0 (real) and -inf (padding)
is added to the attention logits, so that padding is not attended to; it is cut off before anybody sees it. A grid that
fills its windows takes neither padding nor mask.
"""

from typing import Optional, Tuple, Union

import torch
import torch.nn.functional as F
from timm.layers import to_2tuple
from timm.models import register_notrace_function, register_notrace_module
from torch import Tensor, nn

from .learned_grid import LearnedGrid, is_open


@register_notrace_module  # reason: padding and mask depend on the size
class Windows(nn.Module):
    """Adds positions to the patches, cuts them into windows, and puts the learned Super token of each place in front.

    Args:
        width: C, channels of a token.
        side: M, patch tokens along a window's side.
        grid_size: Patch tokens along height and width at which the learned grids are made.
        device: Where the parameters are created.
        dtype: Of the parameters.
    """

    def __init__(self, width: int, side: int, grid_size: Tuple[int, int], *, device=None, dtype=None) -> None:
        super().__init__()
        self.side = side
        self.positions = LearnedGrid(width, grid_size, device=device, dtype=dtype)
        self.super_tokens = LearnedGrid(width, self.window_grid(grid_size), device=device, dtype=dtype)

    def window_grid(self, grid_size: Tuple[int, int]) -> Tuple[int, int]:
        """Returns (gh, gw) for a patch grid of (h, w)."""
        return at_least(grid_size[0], self.side), at_least(grid_size[1], self.side)

    def set_grid_size(self, grid_size: Tuple[int, int]) -> None:
        """Learns positions and Super tokens at another patch grid from now on."""
        self.positions.set_size(*grid_size)
        self.super_tokens.set_size(*self.window_grid(grid_size))

    def forward(self, x: Tensor) -> Tuple[Tensor, Optional[Tensor], Tuple[int, int]]:
        """Patches [B, C, h, w] -> tokens [B, gh*gw, T, C], additive mask [B*gh*gw, 1, 1, T] or None, (gh, gw)."""
        B, C, h, w = x.shape
        M = self.side
        gh, gw = self.window_grid((h, w))
        # All of x, as a slice: a slice's gradient is a fresh tensor. The views below would send back, from one window
        # of one image, strides for which the stem's BatchNorm computes wrong gradients (torch 2.14.1 on CPU).
        x = x.narrow(0, 0, B) + self.positions(h, w)
        mask: Optional[Tensor] = None
        if is_open(h, w) or gh * M != h or gw * M != w:
            x = F.pad(x, (0, gw * M - w, 0, gh * M - h))
            mask = self.padding_mask(x, h, w).repeat(B, 1, 1, 1)
        x = x.reshape(B, C, gh, M, gw, M).permute(0, 2, 4, 3, 5, 1).reshape(B, gh * gw, M * M, C)
        super_tokens = self.super_tokens(gh, gw).flatten(2).transpose(1, 2).unsqueeze(2)  # [1, gh*gw, 1, C]
        return torch.cat([super_tokens.expand(B, -1, -1, -1), x], dim=2), mask, (gh, gw)

    def padding_mask(self, padded: Tensor, h: int, w: int) -> Tensor:
        """[gh*gw, 1, 1, T]: 0 for Super tokens and real patch tokens, -inf for padding behind row h or column w."""
        M = self.side
        rows = torch.arange(padded.shape[2], device=padded.device) >= h
        columns = torch.arange(padded.shape[3], device=padded.device) >= w
        outside = rows[:, None] | columns[None, :]
        outside = outside.reshape(-1, M, outside.shape[1] // M, M).transpose(1, 2).reshape(-1, M * M)
        outside = F.pad(outside, (1, 0))
        mask = torch.zeros(outside.shape, dtype=padded.dtype, device=padded.device)
        return mask.masked_fill(outside, float("-inf"))[:, None, None, :]

    def patch_grid(self, x: Tensor, grid: Tuple[int, int], size: Tuple[int, int]) -> Tensor:
        """Tokens [B, gh*gw, T, C] -> patch tokens back in their places [B, C, h, w], padding cut off."""
        B, _, _, C = x.shape
        M = self.side
        x = x[:, :, 1:].reshape(B, grid[0], grid[1], M, M, C).permute(0, 5, 1, 3, 2, 4)
        x = x.reshape(B, C, grid[0] * M, grid[1] * M)
        # not a slice, whose strides would keep an exported graph from sizes that fill their windows
        return F.pad(x, (0, size[1] - grid[1] * M, 0, size[0] - grid[0] * M))


@torch.fx.wrap
@register_notrace_function
def add_to_super_tokens(x: Tensor, update: Tensor) -> Tensor:
    """Adds [B, gh*gw, C] to token 0 of each window of x [B, gh*gw, T, C], in place: no other token is copied."""
    x[:, :, 0] += update
    return x


def at_least(length: int, unit: int) -> int:
    """Counts the units that hold a length.

    Written so that an exported graph computes it rightly too: the integer division of ONNX rounds towards zero, where
    Python's `-(-length // unit)` rounds down.
    """
    return (length + unit - 1) // unit


def patch_grid_size(img_size: Union[int, Tuple[int, int]], stride: int) -> Tuple[int, int]:
    """Returns (h, w), rows and columns of patch tokens of an image of (H, W) pixels.

    Raises:
        ValueError: The image has no pixel.
    """
    sides = to_2tuple(img_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(f"img_size={img_size!r}: must be one or two whole numbers of at least 1")
    return at_least(sides[0], stride), at_least(sides[1], stride)


def super_token_map(x: Tensor, grid: Tuple[int, int]) -> Tensor:
    """[B, gh*gw, C] -> [B, C, gh, gw]"""
    return x.transpose(1, 2).unflatten(2, (grid[0], grid[1]))
