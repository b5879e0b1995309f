"""Image to patch grid. Shape letters as in network.py."""

import math

import torch
from timm.layers import ConvNormAct
from torch import nn


class Stem(nn.Sequential):
    """3x3 convolutions of stride 2 with BatchNorm and GELU, the last without GELU; the width doubles at each.

    Shapes: [B, in_chans, H, W] -> [B, C, h, w] with h = ceil(H / stride), w = ceil(W / stride).
    The form is XCiT's convolutional stem (arXiv 2106.09681, section 3.3). That the paper has a convolutional stem is
    second-hand, its layout is ours.

    Args:
        in_chans: Channels of the image.
        width: C, channels of a patch token.
        stride: Pixels per patch token and side, a power of two.
        device: Where the parameters are created.
        dtype: Of the parameters.
    """

    def __init__(self, in_chans: int, width: int, *, stride: int, device=None, dtype=None) -> None:
        depth = int(math.log2(stride))
        channels = [in_chans] + [width // 2 ** (depth - 1 - i) for i in range(depth)]
        super().__init__(
            *(
                ConvNormAct(
                    channels[i],
                    channels[i + 1],
                    kernel_size=3,
                    stride=2,
                    padding=1,
                    apply_act=i + 1 < depth,
                    act_layer=nn.GELU,
                    device=device,
                    dtype=dtype,
                )
                for i in range(depth)
            )
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self:
            x = layer(x)
        return x
