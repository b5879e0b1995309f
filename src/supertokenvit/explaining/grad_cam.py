"""Grad-CAM by the library pytorch-grad-cam, for models of every family of timm."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ..engines.packages import need
from ..errors import UserError
from ..model.network import SuperTokenTransformer
from .methods import Maps, summed


class UnknownLayer(UserError):
    """A model of which nobody knows the layer that Grad-CAM should watch."""


def grad_cam(model: nn.Module, images: Tensor, target: Tensor) -> Maps:
    """Grad-CAM (Selvaraju et al., arXiv 1610.02391) on the last map of a network, as pytorch-grad-cam computes it.

    The library scales the map of each image to values from 0 to 1, one for each pixel.

    Args:
        model: In eval mode; of a Super Token Transformer the map of Super tokens is watched.
        images: Normalised [B, in_chans, H, W].
        target: The class of each image [B].

    Raises:
        EngineError: The library is not installed.
        UnknownLayer: The model does not say where its last map is.
    """
    cam = need("pytorch_grad_cam", extra="explain")
    targets = need("pytorch_grad_cam.utils.model_targets", extra="explain").ClassifierOutputTarget
    with cam.GradCAM(model, target_layers=[watched_layer(model)], reshape_transform=map_of(model)) as explainer:
        found = explainer(images, [targets(k) for k in target.tolist()])
    model.zero_grad(set_to_none=True)  # the library's backward pass leaves gradients in the parameters
    pixels = torch.from_numpy(found)
    with torch.no_grad():
        logits = model(images)
    if not isinstance(model, SuperTokenTransformer):
        return Maps(pixels, None, logits, patch=1)
    return Maps(pixels, summed(pixels, model.architecture.stride * model.architecture.window), logits, patch=1)


def watched_layer(model: nn.Module) -> nn.Module:
    """Returns the layer behind which the last map of features, or the last patch tokens that are read, can be seen.

    Raises:
        UnknownLayer: timm does not say where it is.
    """
    if isinstance(model, SuperTokenTransformer):
        return model.super_map
    if getattr(model, "num_prefix_tokens", 0):  # behind the last block, a class token alone is read
        return model.get_submodule(f"blocks.{len(model.blocks) - 1}.norm1")  # type: ignore[arg-type]
    info: Any = getattr(model, "feature_info", None)
    if not info:
        raise UnknownLayer(f"{type(model).__name__}: timm names no layer of it that Grad-CAM could watch")
    return model.get_submodule(info[-1]["module"])


def map_of(model: nn.Module) -> Callable[[Tensor], Tensor] | None:
    """Returns what turns the watched layer's output into a map [B, C, h, w]; None where it is one already."""
    channels = getattr(model, "num_features", 0)

    def as_map(x: Tensor) -> Tensor:
        if x.ndim == 3:  # tokens [B, N, C], on a square grid unless the model says otherwise
            x = x[:, getattr(model, "num_prefix_tokens", 0) :]
            h, w = getattr(getattr(model, "patch_embed", None), "grid_size", None) or (0, 0)
            side = round(x.shape[1] ** 0.5)
            x = x.unflatten(1, (h, w) if h * w == x.shape[1] else (side, side))
        return x.permute(0, 3, 1, 2) if x.shape[3] == channels and x.shape[1] != channels else x

    return None if isinstance(model, SuperTokenTransformer) else as_map
