"""Image to patch grid. Shape letters as in network.py."""

from itertools import accumulate
from operator import mul
from typing import Any, Dict, List, Optional

import torch
from timm.layers import ConvNormAct
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from .windows import at_least_each, zero_beyond


def channels_last(x: torch.Tensor) -> torch.Tensor:
    """The same images in channels-last memory; torch's own memory_format does not go with vmap."""
    return x.permute(0, 2, 3, 1).contiguous().permute(0, 3, 1, 2)


class ChannelsLast(nn.Sequential):
    """One after the other, in channels-last memory: convolutions are faster so, and so is the cut into windows."""

    def forward(self, x: Tensor, sizes: Optional[Tensor] = None) -> Tensor:
        """Computes the layers; with `sizes` [B, 2] each image ends at its own height and width, and zeros follow.

        They have to be zeros again before each convolution: BatchNorm has added its shift to them, and what an image
        is alone, zeros lie behind its border in every layer.
        """
        x = channels_last(x)
        for layer in self:
            if sizes is None:
                x = layer(x)
            else:
                rows, columns = x.shape[2], x.shape[3]
                x = layer(zero_beyond(x, sizes))
                if (x.shape[2], x.shape[3]) != (rows, columns):
                    sizes = at_least_each(sizes, 2)
        return x


def maps_of(stem: nn.Sequential, x: torch.Tensor) -> Dict[int, torch.Tensor]:
    """Images [B, in_chans, H, W] -> the stem's last map at each stride, by stride; the last is its answer."""
    x, maps = channels_last(x), {}
    for layer, stride in zip(stem, strides_in(stem), strict=True):
        maps[stride] = x = layer(x)
    return maps


def part_of(stem: nn.Sequential, stride: int) -> nn.Sequential:
    """Returns the part of a stem that gives the maps up to a stride."""
    kept = [layer for layer, reached in zip(stem, strides_in(stem), strict=True) if reached <= stride]
    return ChannelsLast(*kept) if len(kept) < len(stem) else stem


def strides_in(stem: nn.Sequential) -> List[int]:
    """Counts the pixels from one place to the next in what each layer of a stem gives."""
    convs = [getattr(layer, "conv", layer) for layer in stem]
    return list(accumulate((conv.stride[0] if isinstance(conv, nn.Conv2d) else 1 for conv in convs), mul))


class Stem(ChannelsLast):
    """3x3 convolutions with BatchNorm and GELU, the last without GELU; the width doubles with each halving of the size.

    Shapes: [B, in_chans, H, W] -> [B, C, h, w] with h = ceil(H / stride), w = ceil(W / stride).
    The form is XCiT's convolutional stem (arXiv 2106.09681, section 3.3). That the paper has a convolutional stem is
    second-hand, its layout is ours.

    Args:
        in_chans: Channels of the image.
        width: C, channels of a patch token.
        stride: Pixels per patch token and side, a power of two.
        convs: Convolutions for each halving; one of them has stride 2.
        order: "before": the others come before it, at the larger size; "behind": behind it, and one more comes first.
        device: Where the parameters are created.
        dtype: Of the parameters.
    """

    def __init__(
        self, in_chans: int, width: int, *, stride: int, convs: int, order: str = "before", device=None, dtype=None
    ) -> None:
        halvings = stride.bit_length() - 1
        steps = [(width >> halvings, 1)] if order == "behind" else []  # channels and stride of each convolution
        for level in range(halvings, 0, -1):
            here, behind = width >> level, width >> level - 1
            if order == "before":
                steps += [(here, 1)] * (convs - 1) + [(behind, 2)]
            else:
                steps += [(behind, 2)] + [(behind, 1)] * (convs - 1)
        layers = []
        for number, (out, step) in enumerate(steps, 1):
            layers.append(
                ConvNormAct(
                    in_chans,
                    out,
                    kernel_size=3,
                    stride=step,
                    padding=1,
                    apply_act=number < len(steps),
                    act_layer=nn.GELU,
                    device=device,
                    dtype=dtype,
                )
            )
            in_chans = out
        super().__init__(*layers)

    @torch.jit.ignore
    def fuse(self) -> nn.Sequential:
        """The same in eval mode, BatchNorms folded into the convolutions (timm's reparameterize_model calls it)."""
        layers: List[nn.Module] = []
        layer: Any
        for layer in self.children():
            layers += [fuse_conv_bn_eval(layer.conv.eval(), layer.bn.eval()), layer.bn.act]
        return ChannelsLast(*layers)
