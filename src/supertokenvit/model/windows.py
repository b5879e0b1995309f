"""Patch grid <-> windows, padding and its mask, and grids of learned vectors that fit any size. Letters: network.py."""

from typing import Optional, Tuple, Union

import torch
import torch.nn.functional as F
from timm.layers import is_exporting, to_2tuple
from timm.models import register_notrace_function, register_notrace_module
from torch import Tensor, nn


@register_notrace_module  # reason: compares the asked size with its own
class LearnedGrid(nn.Module):
    """A learned vector for each position of a grid, resized (bicubic) when another size is asked for.

    Resized grids are kept in eval mode without gradients, for up to 16 sizes, until the weight changes.

    Args:
        width: C, length of each vector.
        size: Rows and columns at which it is learned.
        device: Where the parameter is created.
        dtype: Of the parameter.
    """

    def __init__(self, width: int, size: Tuple[int, int], *, device=None, dtype=None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, width, size[0], size[1], device=device, dtype=dtype))
        self._kept: dict = {}

    def forward(self, rows: int, columns: int) -> Tensor:
        """[1, C, rows, columns]"""
        if not is_open(rows, columns) and (rows, columns) == (self.weight.shape[2], self.weight.shape[3]):
            return self.weight
        if torch.jit.is_scripting():
            return self.resized(rows, columns)
        return self._kept_or_resized(rows, columns)

    def resized(self, rows: int, columns: int) -> Tensor:
        """[1, C, rows, columns]"""
        return resize_grid(self.weight, rows, columns)

    @torch.jit.ignore
    def resized_from(self, weight: Tensor) -> Tensor:
        """A checkpoint's grid [1, C, any, any] at the size of this one."""
        rows, columns = self.weight.shape[2:]
        return weight if weight.shape[2:] == (rows, columns) else resize_grid(weight, rows, columns)

    @torch.jit.unused
    def _kept_or_resized(self, rows: int, columns: int) -> Tensor:
        weight = self.weight
        # functional_call puts plain or functorch tensors in the parameter's place: those must not be kept
        keep = not (self.training or torch.is_grad_enabled() or torch.compiler.is_compiling())
        if not keep or type(weight) is not nn.Parameter or weight.is_inference():
            return self.resized(rows, columns)
        state = (weight._version, weight.data_ptr(), weight.dtype, weight.device)
        if self._kept.get("state") != state or len(self._kept) == 2 + 16 and (rows, columns) not in self._kept:
            # holding the weight's memory keeps a later weight from having the same address
            self._kept = {"state": state, "weight": weight.detach()}
        if (rows, columns) not in self._kept:
            self._kept[rows, columns] = self.resized(rows, columns)
        return self._kept[rows, columns]

    def train(self, mode: bool = True) -> "LearnedGrid":
        self._kept = {}
        return super().train(mode)

    @torch.jit.ignore
    def set_size(self, rows: int, columns: int) -> None:
        """Learn at another size from now on; what was learned is resized."""
        if (rows, columns) != tuple(self.weight.shape[2:]):
            with torch.no_grad():
                resized = self.resized(rows, columns)
            self.weight = nn.Parameter(resized, requires_grad=self.weight.requires_grad)


def is_open(rows: int, columns: int) -> bool:
    """Whether a graph is being exported that is to serve every size: it has to take the general path."""
    return is_exporting() and not (isinstance(rows, int) and isinstance(columns, int))


def resize_grid(grid: Tensor, rows: int, columns: int) -> Tensor:
    """[1, C, any, any] -> [1, C, rows, columns], bicubic in at least float32."""
    precise = grid if grid.dtype == torch.float64 else grid.float()
    return F.interpolate(precise, size=[rows, columns], mode="bicubic", align_corners=False).to(grid.dtype)


@register_notrace_module  # reason: padding and mask depend on the size
class Windows(nn.Module):
    """Cuts the patch grid into windows of side M and puts the Super token of its position in front of each.

    A grid that does not fill whole windows is padded on the right and at the bottom, and a mask keeps the padding from
    being attended to; one that does takes no padding and no mask.

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
        """[gh, gw] for a patch grid of [h, w]."""
        return -(-grid_size[0] // self.side), -(-grid_size[1] // self.side)

    def set_grid_size(self, grid_size: Tuple[int, int]) -> None:
        """Learn positions and Super tokens at another patch grid from now on."""
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
        super_tokens = self.super_tokens(gh, gw).flatten(2).transpose(1, 2).unsqueeze(2)
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
        return x.reshape(B, C, grid[0] * M, grid[1] * M)[:, :, : size[0], : size[1]]


@torch.fx.wrap
@register_notrace_function
def add_to_super_tokens(x: Tensor, update: Tensor) -> Tensor:
    """Adds [B, gh*gw, C] to token 0 of each window of x [B, gh*gw, T, C], in place: no other token is copied."""
    x[:, :, 0] += update
    return x


def patch_grid_size(img_size: Union[int, Tuple[int, int]], stride: int) -> Tuple[int, int]:
    """(h, w), rows and columns of patch tokens of an image of (H, W) pixels."""
    H, W = to_2tuple(img_size)
    if min(H, W) < 1:
        raise ValueError(f"img_size={img_size}: must be at least 1 pixel")
    return -(-H // stride), -(-W // stride)


def super_token_map(x: Tensor, grid: Tuple[int, int]) -> Tensor:
    """[B, gh*gw, C] -> [B, C, gh, gw]"""
    return x.transpose(1, 2).unflatten(2, (grid[0], grid[1]))
