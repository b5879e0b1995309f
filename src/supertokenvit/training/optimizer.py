"""The optimiser, from timm, and the learning rate as a pure function of the step."""

import functools
import math

import timm.optim.muon as timm_muon
import torch
from timm.optim import create_optimizer_v2
from torch import nn

from .recipe import Recipe


def make_optimizer(model: nn.Module, recipe: Recipe, device: torch.device) -> torch.optim.Optimizer:
    """AdamW or Muon over what is not frozen, with no weight decay on vectors, grids and tokens.

    Args:
        model: Whose parameters to train.
        recipe: Decides kind, learning rate, weight decay and layer decay.
        device: Where the model is.
    """
    options: dict = {}
    if recipe.opt == "muon":
        # learned grids and tokens are no matrices, whatever their shape: AdamW for what has no weight decay, too
        options = {"betas": (0.9, 0.95), "nesterov": True}
        options |= {"fallback_list": ends_of(model), "fallback_no_weight_decay": True}
        if device.type == "cpu":
            # timm iterates in bf16, which a CPU without bf16 units emulates: far slower than float32 there
            timm_muon.zeropower_via_newtonschulz = _float32_newtonschulz
    return create_optimizer_v2(
        model,
        opt=recipe.opt,
        lr=recipe.lr,
        weight_decay=recipe.weight_decay,
        layer_decay=recipe.layer_decay,
        **options,
    )


def ends_of(model: nn.Module) -> tuple[str, ...]:
    """Patterns of the first convolution and the classifier: one end of each is no hidden feature, so Muon's author
    advises AdamW for them (github.com/KellerJordan/Muon)."""
    cfg = getattr(model, "pretrained_cfg", {})
    names = [cfg.get("first_conv") or (), cfg.get("classifier") or ()]
    return tuple(f"{name}.*" for some in names for name in ([some] if isinstance(some, str) else some))


_float32_newtonschulz = functools.partial(timm_muon.zeropower_via_newtonschulz, dtype=torch.float32)


def learning_rate(step: int, steps: int, recipe: Recipe) -> float:
    """Learning rate of a step: a linear rise, then a fall to zero after the last step.

    Args:
        step: From 0.
        steps: Of the whole run.
        recipe: Decides the highest rate, the warm-up's share and the form of the fall.
    """
    assert recipe.lr is not None
    warmup = round(recipe.warmup * steps)
    if step < warmup:
        return recipe.lr * (step + 1) / (warmup + 1)
    left = 1 - (step - warmup) / max(1, steps - warmup)
    return recipe.lr * (left if recipe.schedule == "linear" else 0.5 - 0.5 * math.cos(math.pi * left))


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Gives each group its rate, scaled by its layer's share."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
