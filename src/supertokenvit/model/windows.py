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

Images of different sizes in one batch are padded to one size, also on the right and at the bottom, so that the windows
of each are the first rows and columns of the window grid. Each then gets the learned grids of its own size, and a mask
of its own. A second mask keeps the Super tokens of windows that lie wholly in the padding out of what windows tell each
other.
"""

from typing import Optional, Tuple, Union

import torch
import torch.nn.functional as F
from timm.layers import to_2tuple
from timm.models import register_notrace_module
from torch import Tensor, nn

from .learned_grid import LearnedGrid, is_open


@register_notrace_module  # reason: padding and mask depend on the size
class Windows(nn.Module):
    """Adds positions to the patches, cuts them into windows, and puts the learned Super token of each place in front.

    Args:
        width: C, channels of a token.
        side: M, patch tokens along a window's side.
        grid_size: Patch tokens along height and width at which the learned grids are made.
        add_means: Add the mean of each window's patches to its Super token.
        device: Where the parameters are created.
        dtype: Of the parameters.
    """

    def __init__(
        self, width: int, side: int, grid_size: Tuple[int, int], *, add_means: bool = False, device=None, dtype=None
    ) -> None:
        super().__init__()
        self.side, self.add_means = side, add_means
        self.positions = LearnedGrid(width, grid_size, device=device, dtype=dtype)
        self.super_tokens = LearnedGrid(width, self.window_grid(grid_size), device=device, dtype=dtype)

    def window_grid(self, grid_size: Tuple[int, int]) -> Tuple[int, int]:
        """Returns (gh, gw) for a patch grid of (h, w)."""
        return at_least(grid_size[0], self.side), at_least(grid_size[1], self.side)

    def set_grid_size(self, grid_size: Tuple[int, int]) -> None:
        """Learns positions and Super tokens at another patch grid from now on."""
        self.positions.set_size(*grid_size)
        self.super_tokens.set_size(*self.window_grid(grid_size))

    def forward(self, x: Tensor, sizes: Optional[Tensor] = None) -> Tuple[Tensor, Optional[Tensor], Tuple[int, int]]:
        """Patches [B, C, h, w] -> tokens [B, gh*gw, T, C], additive mask [B*gh*gw, 1, 1, T] or None, (gh, gw).

        Args:
            x: Patches.
            sizes: Rows and columns of patches that are each image's own [B, 2]; None if all are.
        """
        B, C, h, w = x.shape
        M = self.side
        gh, gw = self.window_grid((h, w))
        if sizes is None:
            positions, super_tokens = self.positions(h, w), self.super_tokens(gh, gw)
        else:
            positions = self.positions.of_each(sizes, h, w)
            super_tokens = self.super_tokens.of_each(at_least_each(sizes, M), gh, gw)
        # All of x, as a slice: a slice's gradient is a fresh tensor. The views below would send back, from one window
        # of one image, strides for which the stem's BatchNorm computes wrong gradients (torch 2.14.1 on CPU).
        x = x.narrow(0, 0, B) + positions
        mask: Optional[Tensor] = None
        if sizes is not None or is_open(h, w) or gh * M != h or gw * M != w:
            x = F.pad(x, (0, gw * M - w, 0, gh * M - h))
            mask = self.padding_mask(x, h, w).repeat(B, 1, 1, 1) if sizes is None else self.padding_masks(x, sizes)
        x = x.reshape(B, C, gh, M, gw, M).permute(0, 2, 4, 3, 5, 1).reshape(B, gh * gw, M * M, C)
        super_tokens = super_tokens.flatten(2).transpose(1, 2).unsqueeze(2)  # [1 or B, gh*gw, 1, C]
        if self.add_means:
            super_tokens = super_tokens + self.means(x, mask)
        return torch.cat([super_tokens.expand(B, -1, -1, -1), x], dim=2), mask, (gh, gw)

    def means(self, x: Tensor, mask: Optional[Tensor]) -> Tensor:
        """Patches [B, gh*gw, M*M, C] and their mask, as forward returns it -> mean of each window [B, gh*gw, 1, C].

        Padding does not count; a window of nothing but padding has the mean 0.
        """
        if mask is None:
            return x.mean(2, keepdim=True)
        real = (mask[:, 0, 0, 1:] == 0).to(x.dtype).reshape(x.shape[0], x.shape[1], -1, 1)
        return (x * real).sum(2, keepdim=True) / real.sum(2, keepdim=True).clamp(min=1)

    def padding_mask(self, padded: Tensor, h: int, w: int) -> Tensor:
        """[gh*gw, 1, 1, T]: 0 for Super tokens and real patch tokens, -inf for padding behind row h or column w."""
        rows = torch.arange(padded.shape[2], device=padded.device) >= h
        columns = torch.arange(padded.shape[3], device=padded.device) >= w
        return self.mask_of_windows(rows[:, None] | columns[None, :], padded.dtype)

    def padding_masks(self, padded: Tensor, sizes: Tensor) -> Tensor:
        """[B*gh*gw, 1, 1, T]: the same for images that have `sizes` [B, 2] rows and columns of patches each."""
        outside = beyond(sizes, padded.shape[2], padded.shape[3])
        return self.mask_of_windows(outside.flatten(0, 1), padded.dtype)

    def mask_of_windows(self, outside: Tensor, dtype: torch.dtype) -> Tensor:
        """Bool [n*gh*M, gw*M], true for padding -> additive mask [n*gh*gw, 1, 1, T], 0 for Super tokens."""
        M = self.side
        outside = outside.reshape(-1, M, outside.shape[1] // M, M).transpose(1, 2).reshape(-1, M * M)
        return additive_mask(F.pad(outside, (1, 0)), dtype)[:, None, None, :]

    def super_mask(self, sizes: Tensor, grid: Tuple[int, int], dtype: torch.dtype) -> Tensor:
        """[B, 1, 1, gh*gw]: 0 for Super tokens of windows with a patch of the image's own, -inf for those of none.

        Args:
            sizes: Rows and columns of patches that are each image's own [B, 2].
            grid: (gh, gw)
            dtype: Of the tokens.
        """
        outside = beyond(at_least_each(sizes, self.side), grid[0], grid[1])
        return additive_mask(outside.flatten(1), dtype)[:, None, None, :]

    def patch_grid(self, x: Tensor, grid: Tuple[int, int], size: Tuple[int, int]) -> Tensor:
        """Tokens [B, gh*gw, T, C] -> patch tokens back in their places [B, C, h, w], padding cut off."""
        B, _, _, C = x.shape
        M = self.side
        x = x[:, :, 1:].reshape(B, grid[0], grid[1], M, M, C).permute(0, 5, 1, 3, 2, 4)
        x = x.reshape(B, C, grid[0] * M, grid[1] * M)
        # not a slice, whose strides would keep an exported graph from sizes that fill their windows
        return F.pad(x, (0, size[1] - grid[1] * M, 0, size[0] - grid[0] * M))


def beyond(sizes: Tensor, rows: int, columns: int) -> Tensor:
    """Says which places of a map lie beyond each image's own `sizes` [B, 2] in rows and columns: [B, rows, columns]."""
    down = torch.arange(rows, device=sizes.device)[:, None] >= sizes[:, 0, None, None]
    right = torch.arange(columns, device=sizes.device)[None, :] >= sizes[:, 1, None, None]
    return down | right


def zero_beyond(x: Tensor, sizes: Tensor) -> Tensor:
    """Sets a map [B, C, h, w] to zero beyond each image's own `sizes` [B, 2] in rows and columns, whatever is there."""
    return x.masked_fill(beyond(sizes, x.shape[2], x.shape[3]).unsqueeze(1), 0.0)


def additive_mask(outside: Tensor, dtype: torch.dtype) -> Tensor:
    """Makes the mask that is added to attention logits: 0, and -inf where `outside`."""
    return torch.zeros(outside.shape, dtype=dtype, device=outside.device).masked_fill(outside, float("-inf"))


def at_least(length: int, unit: int) -> int:
    """Counts the units that hold a length.

    Written so that an exported graph computes it rightly too: the integer division of ONNX rounds towards zero, where
    Python's `-(-length // unit)` rounds down.
    """
    return (length + unit - 1) // unit


def at_least_each(lengths: Tensor, unit: int) -> Tensor:
    """Counts the units that hold each of several lengths."""
    return (lengths + unit - 1) // unit


def patch_grid_size(img_size: Union[int, Tuple[int, int]], stride: int) -> Tuple[int, int]:
    """Returns (h, w), rows and columns of patch tokens of an image of (H, W) pixels.

    Raises:
        ValueError: The image has no pixel.
    """
    sides = to_2tuple(img_size)
    if len(sides) != 2 or not all(isinstance(side, int) and side >= 1 for side in sides):
        raise ValueError(f"img_size={img_size!r}: must be one or two whole numbers of at least 1")
    return at_least(sides[0], stride), at_least(sides[1], stride)


class SuperTokenMap(nn.Module):
    """Lays the Super tokens [B, gh*gw, C] out by their windows, as a map [B, C, gh, gw].

    It is a module so that Grad-CAM and its like can watch its output, which has the shape of a convolution's.
    """

    def forward(self, x: Tensor, grid: Tuple[int, int]) -> Tensor:
        return super_token_map(x, grid)


def super_token_map(x: Tensor, grid: Tuple[int, int]) -> Tensor:
    """[B, gh*gw, C] -> [B, C, gh, gw]"""
    return x.transpose(1, 2).unflatten(2, (grid[0], grid[1]))
