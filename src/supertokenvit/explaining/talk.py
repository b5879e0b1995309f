"""Which windows a window listened to: the path of the Super tokens through the global layers."""

import torch
from torch import Tensor

from ..model.network import SuperTokenTransformer


def listened(model: SuperTokenTransformer, images: Tensor) -> Tensor:
    """Follows the attention of the Super tokens through all global layers (attention rollout, arXiv 2005.00928).

    What a layer adds to a token and what the token was before count as one half each, and heads count alike. The
    mixers of the local layers, by which neighbouring windows also speak, are left out.

    Args:
        model: In eval mode.
        images: Normalised [B, in_chans, H, W].

    Returns:
        How much each window (row) holds of each window (column) behind the last global layer; rows add up to one,
        float32 [B, gh*gw, gh*gw].
    """
    with torch.no_grad():
        _, collect = model.forward_collect(images)
    n = int(collect["grid"].prod())
    held = torch.eye(n, device=images.device).expand(len(images), n, n)
    for i in range(len(model.global_layers)):
        attention = collect[f"global.{i}.attention"].mean(1)  # over the heads
        held = (held + attention @ held) / 2
    return held
