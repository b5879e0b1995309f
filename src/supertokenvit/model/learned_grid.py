"""Learned vectors for the places of a grid, which fit any size. Letters in shapes: network.py."""

from typing import Tuple

import torch
import torch.nn.functional as F
from timm.layers import is_exporting
from timm.models import register_notrace_module
from torch import Tensor, nn


@register_notrace_module  # reason: compares the asked size with its own
class LearnedGrid(nn.Module):
    """A learned vector for each place of a grid, resized (bicubic) when another size is asked for.

    Args:
        width: C, length of each vector.
        size: Rows and columns at which it is learned.
        device: Where the parameter is created.
        dtype: Of the parameter.
    """

    def __init__(self, width: int, size: Tuple[int, int], *, device=None, dtype=None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(1, width, size[0], size[1], device=device, dtype=dtype))

    def forward(self, rows: int, columns: int) -> Tensor:
        """Returns the vectors of a grid of that size, [1, C, rows, columns]."""
        if not is_open(rows, columns) and (rows, columns) == (self.weight.shape[2], self.weight.shape[3]):
            return self.weight
        return resize_grid(self.weight, rows, columns)

    @torch.jit.unused
    def of_each(self, sizes: Tensor, rows: int, columns: int) -> Tensor:
        """Returns the vectors of a grid of its own size for each of `sizes` [B, 2], with zeros behind it.

        Returns:
            [B, C, rows, columns]
        """
        shapes = [tuple(size) for size in sizes.tolist()]
        grids = {(h, w): F.pad(self(h, w), (0, columns - w, 0, rows - h)) for h, w in dict.fromkeys(shapes)}
        return torch.cat([grids[shape] for shape in shapes])

    @torch.jit.ignore
    def resized_from(self, weight: Tensor) -> Tensor:
        """Resizes a checkpoint's grid [1, C, any, any] to the size of this one."""
        rows, columns = self.weight.shape[2:]
        return weight if weight.shape[2:] == (rows, columns) else resize_grid(weight, rows, columns)

    @torch.jit.ignore
    def set_size(self, rows: int, columns: int) -> None:
        """Learns at another size from now on; what was learned is resized."""
        if (rows, columns) != tuple(self.weight.shape[2:]):
            with torch.no_grad():
                resized = resize_grid(self.weight, rows, columns)
            self.weight = nn.Parameter(resized, requires_grad=self.weight.requires_grad)


def is_open(rows: int, columns: int) -> bool:
    """Says whether a graph is being exported that is to serve every size: it has to take the general path."""
    return is_exporting() and not (isinstance(rows, int) and isinstance(columns, int))


def resize_grid(grid: Tensor, rows: int, columns: int) -> Tensor:
    """Resizes [1, C, any, any] to [1, C, rows, columns], bicubic in at least float32."""
    precise = grid if grid.dtype == torch.float64 else grid.float()
    return F.interpolate(precise, size=[rows, columns], mode="bicubic", align_corners=False).to(grid.dtype)
