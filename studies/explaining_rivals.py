"""The methods that studies.explaining compares: ours, those of two libraries, and maps that look at nothing."""

from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from typing import Any
from unittest import mock

import captum.attr
import torch
import torch.nn.functional as F
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget
from torch import Tensor, nn

from supertokenvit.explaining import methods
from supertokenvit.explaining.explanation import METHODS, seen_both_ways
from supertokenvit.explaining.methods import Maps, chosen, composed_gradients, summed

Explain = Callable[[Tensor, Tensor], Tensor]
MASKS = 128  # of RISE


def contestants(model: Any) -> dict[str, Explain]:
    """Returns every method by name; each gives maps [B, h, w] of images [B, 3, H, W] and classes [B]."""
    stride = model.architecture.stride
    found: dict[str, Explain] = {
        "random": partial(random_map, stride=stride, generator=torch.Generator().manual_seed(0)),
        "centre": partial(centre_map, stride=stride),
    }

    def patches(method: Callable[..., Maps], images: Tensor, target: Tensor) -> Tensor:
        return method(model, images, target).patches

    found |= {name: partial(patches, method) for name, method in METHODS.items() if name != "gradcam"}
    found["composed, mirrored"] = partial(mirrored, model)
    found["composed, gates free"] = partial(gates_free, model)
    found["composed, each head"] = partial(each_head, model)
    found["rollout"] = partial(rollout, model)
    found["Grad-CAM"] = partial(cam, GradCAM, model, model.super_map)
    found["Grad-CAM++"] = partial(cam, GradCAMPlusPlus, model, model.super_map)
    found["Grad-CAM, patches"] = partial(patch_cam, model)
    found["gradient x input"] = partial(gradient_times_input, model)
    found[f"RISE {MASKS}"] = partial(rise, model)
    return found


def random_map(images: Tensor, target: Tensor, *, stride: int, generator: torch.Generator) -> Tensor:
    """Makes maps of random values [B, h, w]."""
    return torch.rand(len(images), images.shape[2] // stride, images.shape[3] // stride, generator=generator)


def centre_map(images: Tensor, target: Tensor, *, stride: int) -> Tensor:
    """Makes maps that fall from the middle of the image outwards [B, h, w], whatever is on it."""
    h, w = images.shape[2] // stride, images.shape[3] // stride
    rows, columns = torch.linspace(-1, 1, h)[:, None], torch.linspace(-1, 1, w)[None, :]
    return (-(rows.square() + columns.square())).exp().expand(len(images), h, w)


def mirrored(model: Any, images: Tensor, target: Tensor) -> Tensor:
    """Composes gradients of each image and of its mirror image, as `explain` does where the answer looks at both."""
    return seen_both_ways(composed_gradients, model, images, target, "flip").patches


def gates_free(model: Any, images: Tensor, target: Tensor) -> Tensor:
    """Composes gradients without holding gates."""
    with mock.patch.object(methods, "GatesHeld", nullcontext):
        return composed_gradients(model, images, target).patches


def each_head(model: Any, images: Tensor, target: Tensor) -> Tensor:
    """Composes gradients as Chefer et al. do: what is negative is dropped in each head."""

    def flowing(gradient: Tensor, attention: Tensor) -> Tensor:
        return (gradient * attention).clamp(min=0).mean(-3).detach()

    with mock.patch.object(methods, "flowing", flowing):
        return composed_gradients(model, images, target).patches


def rollout(model: Any, images: Tensor, target: Tensor) -> Tensor:
    """Attention rollout (arXiv 2005.00928) through the windows: blind to the class."""
    with torch.no_grad():
        logits, collect = model.forward_collect(images)

    def of(kind: str) -> list[Tensor]:
        names = [name for name in collect if name.startswith(f"{kind}.") and name.endswith(".attention")]
        return [collect[name].mean(-3) for name in names if ".mixer" not in name]

    read: Any = sum(layer[:, 0] for layer in of("class"))
    for layer in reversed(of("global")):
        read = (read + (read[:, None] @ layer)[:, 0]) / 2
    local = of("local")
    tokens = torch.zeros(local[-1].shape[:-1])
    tokens[..., 0] = read
    for layer in reversed(local):
        tokens = (tokens + (tokens[..., None, :] @ layer)[..., 0, :]) / 2
    return methods.placed(model, collect, tokens, read, logits).patches


def cam(kind: Any, model: Any, layer: nn.Module, images: Tensor, target: Tensor) -> Tensor:
    """Runs a method of pytorch-grad-cam, and sums its pixels in patches."""
    with kind(model, target_layers=[layer]) as explainer:
        found = explainer(images, [ClassifierOutputTarget(k) for k in target.tolist()])
    model.zero_grad(set_to_none=True)
    return summed(torch.from_numpy(found), model.architecture.stride)


def patch_cam(model: Any, images: Tensor, target: Tensor) -> Tensor:
    """Grad-CAM on the patch tokens of the last local layer but one, the last that are read, written out."""
    with torch.enable_grad():
        logits, collect = model.forward_collect(images)
        tokens = collect[f"local.{max(0, len(model.local_layers) - 2)}.tokens"]
        (gradient,) = torch.autograd.grad(chosen(logits, target).sum(), tokens)
    weights = gradient[:, :, 1:].mean((1, 2), keepdim=True)
    values = F.relu((weights * tokens).sum(-1)).detach()
    return methods.placed(model, collect, values, values[..., 0], logits).patches


def gradient_times_input(model: Any, images: Tensor, target: Tensor) -> Tensor:
    """Runs captum's InputXGradient, and sums its pixels in patches."""
    found = captum.attr.InputXGradient(model).attribute(images.detach().requires_grad_(), target=target)
    return summed(found.detach().sum(1), model.architecture.stride)


def rise(model: Any, images: Tensor, target: Tensor) -> Tensor:
    """Runs RISE (Petsiuk et al., arXiv 1806.07421): the mean of random masks, each weighted by the probability left."""
    generator = torch.Generator().manual_seed(0)
    H, W = images.shape[2:]
    side = 7  # cells of a mask, of which half are open
    cells = (torch.rand(MASKS, 1, side + 1, side + 1, generator=generator) < 0.5).float()
    masks = F.interpolate(cells, (H + H // side, W + W // side), mode="bilinear")
    total = torch.zeros(len(images), H, W)
    for mask in masks:
        top, left = (int(torch.randint(0, length // side + 1, (), generator=generator)) for length in (H, W))
        seen = mask[:, top : top + H, left : left + W]
        with torch.inference_mode():
            left_over = chosen(model(images * seen).softmax(1), target)
        total += left_over[:, None, None] * (seen - 0.5)
    return summed(total, model.architecture.stride)
