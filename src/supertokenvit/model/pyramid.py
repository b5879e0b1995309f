"""Maps at strides 4, 8, 16 and 32 for segmentation and detection: what timm's `features_only` gives.

    image
      stem          -> strides below the patches': its own maps, of fine detail
      local layers  -> patch tokens, which know their window and those around it
      global layers -> Super tokens, which know the image; they are handed back to the patch tokens of their windows
                    -> the patches' stride; larger strides are pooled from it

An isotropic network has one size of map only. Pooling it for the larger strides is the simple feature pyramid of
ViTDet (arXiv 2203.16527, section 3); DIFF: finer maps are the stem's, not deconvolved patch tokens.
Letters in shapes: network.py.
"""

from typing import TYPE_CHECKING, List, Optional, Sequence, Set, Tuple, Union, cast

import torch
import torch.nn.functional as F
from timm.layers import get_device_dtype
from torch import Tensor, nn

from .stem import maps_of, part_of
from .timm_contract import FeatureInfo

if TYPE_CHECKING:
    from .network import SuperTokenTransformer

FINEST, COARSEST = 4, 32  # strides of the maps that decoders for dense tasks expect


def strides_of(stride: int) -> List[int]:
    """The strides of all maps of a network with such patches; stride 2 has a finer one."""
    return [1 << n for n in range(COARSEST.bit_length()) if 1 << n >= min(FINEST, stride)]


class Pyramid(nn.Module):
    """Images [B, in_chans, H, W] of any size -> maps [B, channels, ceil(H / stride), ceil(W / stride)], fine to coarse.

    timm makes it: `timm.create_model("stt_t", features_only=True)`. `feature_info` has the channels and strides.
    What no chosen map needs is dropped from the network: class layers and classifier always.

    Args:
        model: The network, of which it takes the parts.
        out_indices: Which of the maps to give, or the last n if an int.
        output_stride: Largest stride, 8, 16 or 32: pooling stops there, as dilated convolutions do in a ResNet.

    Raises:
        ValueError: An output stride below that of the patches, or a map that there is not.
    """

    def __init__(
        self,
        model: "SuperTokenTransformer",
        out_indices: Union[int, Sequence[int]],
        output_stride: int = COARSEST,
    ) -> None:
        super().__init__()
        a = model.architecture
        if output_stride not in (8, 16, 32) or output_stride < a.stride:
            raise ValueError(f"output_stride={output_stride!r}: must be 8, 16 or 32, and at least stride={a.stride}")
        self.stride, self.output_stride = a.stride, output_stride
        strides = strides_of(a.stride)
        levels = [
            {
                "num_chs": a.width * min(stride, a.stride) // a.stride,
                "reduction": min(stride, output_stride),
                "module": "stem" if stride < a.stride else "norm",
            }
            for stride in strides
        ]
        chosen = range(len(levels))[-out_indices:] if isinstance(out_indices, int) else out_indices
        for index in chosen:
            if not -len(levels) <= index < len(levels):
                raise ValueError(f"out_indices={out_indices!r}: there are {len(levels)} maps, of strides {strides}")
        self.out_indices = sorted({index % len(levels) for index in chosen})
        self.feature_info = FeatureInfo(levels, tuple(self.out_indices))
        self.strides = [strides[index] for index in self.out_indices]  # before the output stride limits them
        self.stem = part_of(cast(nn.Sequential, model.stem), max(self.strides))
        if max(self.strides) >= a.stride:
            self.windows, self.local_layers, self.global_layers = model.windows, model.local_layers, model.global_layers
            self.super_norm = model.norm
            self.norm = nn.LayerNorm(a.width, eps=1e-6, **get_device_dtype(model))

    def forward(self, x: Tensor) -> List[Tensor]:
        """Returns the chosen maps, fine to coarse."""
        maps = maps_of(self.stem, x)
        if max(self.strides) >= self.stride:
            maps[self.stride] = x = self.patches(maps[self.stride])
            for stride in range(self.stride.bit_length(), COARSEST.bit_length()):
                if 1 << stride <= self.output_stride:
                    x = F.max_pool2d(x, 3, stride=2, padding=1)
                maps[1 << stride] = x
        return [maps[stride] for stride in self.strides]

    def patches(self, x: Tensor) -> Tensor:
        """Patches of the stem [B, C, h, w] -> patch tokens that know window and image, [B, C, h, w]."""
        size = (x.shape[2], x.shape[3])
        x, mask, grid = self.windows(x)  # [B, gh*gw, T, C]
        for layer in self.local_layers:
            x = layer(x, grid, mask)
        super_tokens = x[:, :, 0]  # [B, gh*gw, C]
        for layer in self.global_layers:
            super_tokens = layer(super_tokens, grid)
        x = self.handed_back(self.norm(x), self.super_norm(super_tokens), grid, mask)
        return self.windows.patch_grid(x, grid, size)

    def handed_back(self, x: Tensor, super_tokens: Tensor, grid: Tuple[int, int], mask: Optional[Tensor]) -> Tensor:
        """Gives patch tokens [B, gh*gw, T, C] what the Super tokens of their windows [B, gh*gw, C] have learned."""
        return x + super_tokens.unsqueeze(2)

    @torch.jit.ignore
    def no_weight_decay(self) -> Set[str]:
        """Names of the learned grids, which weight decay must leave alone."""
        grids = {"windows.positions.weight", "windows.super_tokens.weight"}
        return grids & {name for name, _ in self.named_parameters()}

    @torch.jit.ignore
    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute attention and MLP of each layer in the backward pass instead of keeping what they made."""
        for layer in (*self.local_layers, *self.global_layers):
            layer.block.grad_checkpointing = enable
