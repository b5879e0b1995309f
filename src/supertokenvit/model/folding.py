"""Learned scales that inference need not multiply by: they go into the weights before them."""

import torch
from timm.layers import LayerScale
from torch import nn


@torch.no_grad()
def fold_scale(scale: LayerScale | nn.Identity, layer: nn.Linear | nn.Conv2d) -> LayerScale | nn.Identity:
    """Multiplies the output channels of `layer` by a LayerScale, in place.

    Args:
        scale: A LayerScale, or what stands where there is none.
        layer: Whose output the scale is applied to.

    Returns:
        What takes the scale's place.
    """
    if not isinstance(scale, LayerScale):
        return scale
    layer.weight.mul_(scale.gamma.view(-1, *[1] * (layer.weight.ndim - 1)))
    if layer.bias is not None:
        layer.bias.mul_(scale.gamma)
    return nn.Identity()
