"""Maps of what spoke for a class, from the named intermediates of a Super Token Transformer.

The path from the class to a pixel is short: each class layer reads Super tokens alone, and each Super token reads one
window. Every method gives a value for each patch and for each window. Shape letters as in model/network.py.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from ..model.network import SuperTokenTransformer

STEPS = 16  # of the path of integrated gradients


@dataclass
class Maps:
    """What a method says of a batch of images.

    Args:
        patches: A value for each patch [B, h, w]; what spoke against the class may be negative.
        windows: A value for each window [B, gh, gw]; None of a model without windows.
        logits: [B, K]
        patch: Side of a patch in pixels.
    """

    patches: Tensor
    windows: Tensor | None
    logits: Tensor
    patch: int


class GatesHeld(TorchFunctionMode):
    """While this lasts, LayerNorm's division and GELU's gate are constants for the backward pass.

    Their values do not change. A gradient then says how the answer follows from what a token holds, and not also how
    the scale of the token would change: maps are less noisy (measured in docs/explanations.md).
    """

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Computes one of torch's functions; torch calls this for each."""
        if func is F.layer_norm:
            return layer_norm(*args, **(kwargs or {}))
        if func is F.gelu:
            return gelu(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def layer_norm(x: Tensor, shape: Any, weight: Tensor, bias: Tensor, eps: float = 1e-5) -> Tensor:
    """Computes LayerNorm over the last dimension, whose standard deviation has no gradient."""
    centred = x - x.mean(-1, keepdim=True)
    std = (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return centred / std.detach() * weight + bias


def gelu(x: Tensor, approximate: str = "none") -> Tensor:
    """Computes GELU as x times a gate, which has no gradient."""
    gate = (
        torch.special.ndtr(x) if approximate == "none" else torch.where(x == 0, 0.5, F.gelu(x, approximate="tanh") / x)
    )
    return x * gate.detach()


def composed_gradients(model: SuperTokenTransformer, images: Tensor, target: Tensor) -> Maps:
    """Gradient times attention of all layers, composed from the class to the patches, with gates held.

    The rule is that of Chefer et al., arXiv 2103.15679, section 3.2, for a class token that reads Super tokens. One
    step differs: what is negative is dropped behind the mean over the heads and not before it. Heads that speak against
    each other then cancel (studies.explaining compares both).

    Args:
        model: In eval mode.
        images: Normalised [B, in_chans, H, W].
        target: The class of each image [B].
    """
    with torch.enable_grad(), GatesHeld():
        logits, collect = model.forward_collect(images)
        names = [name for name in collect if name.endswith(".attention") and name.split(".")[0] in KINDS]
        gradients = torch.autograd.grad(chosen(logits, target).sum(), [collect[name] for name in names])
    flow = {name: flowing(g, collect[name]) for name, g in zip(names, gradients, strict=True)}
    read: Any = sum(flow[name][:, 0] for name in names if name.startswith("class."))  # [B, gh*gw]
    for name in reversed([name for name in names if name.startswith("global.")]):
        read = read + (read[:, None] @ flow[name])[:, 0]
    locals_ = [flow[name] for name in names if name.startswith("local.")]  # each [B, gh*gw, T, T]
    tokens = read.new_zeros(locals_[-1].shape[:-1])
    tokens[..., 0] = read
    for layer in reversed(locals_):
        tokens = tokens + (tokens[..., None, :] @ layer)[..., 0, :]
    return placed(model, collect, tokens, read, logits)


KINDS = ("local", "global", "class")


def flowing(gradient: Tensor, attention: Tensor) -> Tensor:
    """Says how much of each token flows to each other one for a class, [..., heads, T, T] -> [..., T, T]."""
    return (gradient * attention).mean(-3).clamp(min=0).detach()


def attention_only(model: SuperTokenTransformer, images: Tensor, target: Tensor) -> Maps:
    """The attention of the class to the Super tokens, handed on to the patches that each of them reads.

    It is blind to the class: all classes of an image have the same map.

    Args:
        model: In eval mode.
        images: Normalised [B, in_chans, H, W].
        target: Not read.
    """
    with torch.no_grad():
        logits, collect = model.forward_collect(images)
    heads = [collect[name].mean(-3) for name in collect if name.startswith("class.") and name.endswith(".attention")]
    read = torch.stack([weights[:, 0] for weights in heads]).mean(0)
    last = collect[f"local.{len(model.local_layers) - 1}.attention"].mean(-3)  # [B, gh*gw, T, T]
    return placed(model, collect, read[..., None] * last[:, :, 0], read, logits)


def token_gradients(model: SuperTokenTransformer, images: Tensor, target: Tensor) -> Maps:
    """Gradient times token, with gates held: what each token adds to the logit.

    The patch tokens are those of the last local layer but one, the last that are read, and the Super tokens those of
    the last local layer. With a single local layer each window's value is spread over its patches.

    Args:
        model: In eval mode.
        images: Normalised [B, in_chans, H, W].
        target: The class of each image [B].
    """
    L = len(model.local_layers)
    names = ([f"local.{L - 2}.tokens"] if L > 1 else []) + [f"local.{L - 1}.super_tokens"]
    with torch.enable_grad(), GatesHeld():
        logits, collect = model.forward_collect(images)
        gradients = torch.autograd.grad(chosen(logits, target).sum(), [collect[name] for name in names])
    parts = [(gradient * collect[name]).sum(-1).detach() for name, gradient in zip(names, gradients, strict=True)]
    read = parts[-1]
    tokens = parts[0] if len(parts) > 1 else spread(model, read)
    return placed(model, collect, tokens, read, logits)


def integrated_gradients(model: SuperTokenTransformer, images: Tensor, target: Tensor) -> Maps:
    """Integrated gradients (Sundararajan et al., arXiv 1703.01365) from the mean colour, summed in patches.

    Args:
        model: In eval mode.
        images: Normalised [B, in_chans, H, W].
        target: The class of each image [B].
    """
    total = torch.zeros_like(images)
    for step in range(STEPS):
        with torch.enable_grad():
            point = (images * ((step + 0.5) / STEPS)).detach().requires_grad_()
            total += torch.autograd.grad(chosen(model(point), target).sum(), point)[0]
    with torch.no_grad():
        logits = model(images)
    stride = model.architecture.stride
    patches = summed((total / STEPS * images).sum(1), stride)
    return Maps(patches, summed(patches, model.windows.side), logits, stride)


def occlusion(model: SuperTokenTransformer, images: Tensor, target: Tensor) -> Maps:
    """How much the logit falls when the class may not read the Super token of a window, exact for each window.

    The layers above are computed once for each window without it; the rest of the network only once.

    Args:
        model: In eval mode.
        images: Normalised [B, in_chans, H, W].
        target: The class of each image [B].
    """
    with torch.no_grad():
        logits, collect = model.forward_collect(images)
        tokens = collect[f"local.{len(model.local_layers) - 1}.super_tokens"]  # [B, gh*gw, C]
        grid = tuple(collect["grid"].tolist())
        whole = chosen(logits, target)
        falls = []
        for window in range(tokens.shape[1]):
            others = [i for i in range(tokens.shape[1]) if i != window] or [window]
            falls.append(whole - chosen(above(model, tokens[:, others], grid), target))
    read = torch.stack(falls, 1)
    return placed(model, collect, spread(model, read), read, logits)


def above(model: SuperTokenTransformer, tokens: Tensor, grid: tuple[int, ...]) -> Tensor:
    """Runs everything above the local layers on some of the Super tokens [B, n, C] -> logits [B, K]."""
    x = tokens
    for layer in model.global_layers:
        x = layer(x, grid, None)
    x = model.norm(x).transpose(1, 2).unsqueeze(3)  # as if they were one column of windows
    return model.forward_head(x)


def chosen(logits: Tensor, target: Tensor) -> Tensor:
    """Returns the logit of each image's class [B]."""
    return logits.gather(1, target[:, None])[:, 0]


def spread(model: SuperTokenTransformer, read: Tensor) -> Tensor:
    """Spreads the value of each window [B, gh*gw] equally over its tokens [B, gh*gw, T]."""
    M = model.windows.side
    return (read / (M * M))[..., None].expand(*read.shape, 1 + M * M)


def placed(
    model: SuperTokenTransformer, collect: dict[str, Tensor], tokens: Tensor, read: Tensor, logits: Tensor
) -> Maps:
    """Puts the values of tokens [B, gh*gw, T] and of windows [B, gh*gw] into their places."""
    grid, size = (tuple(collect[name].tolist()) for name in ("grid", "size"))
    patches = model.windows.patch_grid(tokens.unsqueeze(-1), grid, size)[:, 0]
    return Maps(patches, read.unflatten(1, grid), logits.detach(), model.architecture.stride)


def summed(values: Tensor, side: int) -> Tensor:
    """Sums values [B, H, W] in squares of that side [B, gh, gw]; the last ones may be cut off."""
    padded = F.pad(values, (0, -values.shape[2] % side, 0, -values.shape[1] % side))
    return padded.unflatten(2, (-1, side)).unflatten(1, (-1, side)).sum((2, 4))


Method = Callable[[SuperTokenTransformer, Tensor, Tensor], Maps]
SUPER_TOKEN_METHODS: dict[str, Method] = {
    "composed": composed_gradients,
    "gradient": token_gradients,
    "attention": attention_only,
    "integrated": integrated_gradients,
    "occlusion": occlusion,
}
"""The methods of this file by name."""
