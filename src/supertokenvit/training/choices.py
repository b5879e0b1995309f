"""What a recipe leaves open, chosen from the data and the machine, with the reasons."""

from dataclasses import replace

import numpy as np
import timm
import torch
from timm.models import get_pretrained_cfg

from ..data.decode import BadImage
from ..data.sources import Source
from ..data.splits import Splits
from ..dense import TASKS
from ..model.family import is_variant
from .recipe import Recipe
from .starting_model import size_of_start

WINDOW_PIXELS = 56  # stride 8 times window 7: sizes in these steps take no padding
MINUTES_WITHOUT_GPU = 30.0


def typical_side(source: Source, sample: int = 64) -> int:
    """Returns the median of the shorter sides of some images, in pixels."""
    sides = []
    for i in np.linspace(0, len(source) - 1, min(sample, len(source))).astype(int):
        try:
            sides.append(min(source.image(int(i)).size))
        except BadImage:
            continue
    return int(np.median(sides)) if sides else 0


def fill_in(recipe: Recipe, splits: Splits, device: torch.device, processes: int) -> tuple[Recipe, list[str]]:
    """Sets everything that the recipe leaves open but the number of steps, with a line for each choice.

    Args:
        recipe: With open fields.
        splits: The data.
        device: Where it will run.
        processes: That share a batch equally.
    """
    said: list[str] = []

    def choose(recipe: Recipe, name: str, value, why: str) -> Recipe:
        if getattr(recipe, name) is not None:
            return recipe
        said.append(f"{name} = {value}: {why}")
        return replace(recipe, **{name: value})

    n, side, gpu = len(splits.train), typical_side(splits.train), device.type != "cpu"
    usual = TASKS[splits.train.task]().usual(n, side, gpu)
    shared = processes * recipe.accumulate
    for option, (value, why) in usual.items():
        if option == "batch_size":
            value = max(1, value // shared) * shared
        if option != "model" or recipe.init is None:
            recipe = choose(recipe, option, value, why)
    small = side <= 64
    foreign = None
    if recipe.init is not None:
        foreign, of = size_of_start(recipe.init), recipe.init
    elif recipe.model is not None and not is_variant(recipe.model) and timm.is_model(recipe.model.partition(".")[0]):
        cfg = get_pretrained_cfg(recipe.model)
        foreign, of = None if cfg is None else cfg.input_size[-1], recipe.model
    if recipe.sizes:
        size, why = max(recipe.training_sizes), "the largest of sizes"
    elif foreign is not None:
        size, why = foreign, f"that of {of}; the images are about {side} px"
    elif small:
        size = 32 if side <= 32 else -(-side // 16) * 16
        why = f"the images are about {side} px"
    else:
        size = min(224, max(112, side // WINDOW_PIXELS * WINDOW_PIXELS)) if gpu else 112
        why = f"the images are about {side} px" + ("" if gpu else " and there is no GPU")
    recipe = choose(recipe, "img_size", size, why)
    small = small if recipe.img_size is None else recipe.img_size <= 64
    name = ("stt_micro" if n >= 10_000 else "stt_nano") if small else "stt_s14" if gpu and n >= 50_000 else "stt_t"
    if recipe.init is None:
        recipe = choose(recipe, "model", name, f"for {n:,} training images of this size")
    batch = 256 if n >= 20_000 and small else 64 if n >= 2_000 else 32
    recipe = choose(recipe, "batch_size", max(1, min(batch, n // 4) // shared) * shared, f"for {n:,} training images")
    lr = (3e-3 if recipe.opt == "muon" else 1e-3) * (0.3 if recipe.init else 1.0)
    recipe = choose(recipe, "lr", lr, f"usual for {recipe.opt}" + (" when fine-tuning" if recipe.init else ""))
    recipe = choose(recipe, "crop", "shift" if small else "resized", "usual at this size")
    written = all(len(name) == 1 for name in splits.train.classes)
    why = "characters must not be mirrored" if written else "mirrored photographs are as likely"
    recipe = choose(recipe, "hflip", 0.0 if written else 0.5, why)
    if recipe.minutes is None and recipe.epochs is None:
        epochs = 30.0 if n >= 20_000 else 60.0 if n >= 1_000 else 100.0
        recipe = choose(recipe, "epochs", epochs, f"for {n:,} training images")
        if not gpu:
            said.append(
                f"at most {MINUTES_WITHOUT_GPU:.0f} minutes, as there is no GPU: --epochs or --minutes change it"
            )
    return recipe, said
