"""Scales that inference need not multiply by: they go into the weights before them."""

from typing import Any

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


@torch.no_grad()
def divide_logits(model: Any, by: float) -> bool:
    """Divides the weights of a timm model's classifier, and so its logits, in place.

    Args:
        model: With a classifier that is a Linear layer or a convolution, or with several of them.
        by: A number above 0.

    Returns:
        Whether the model has such a classifier; another one stays as it is.
    """
    found = model.get_classifier()
    classifiers = found if isinstance(found, tuple) else (found,)  # a distilled model has two
    if not all(isinstance(classifier, (nn.Linear, nn.Conv2d)) for classifier in classifiers):
        return False
    for classifier in classifiers:
        for parameter in classifier.parameters():
            parameter.div_(by)
    return True
