"""The options of the architecture, validated once."""

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Optional

from .mixer import MIXERS


@dataclass(frozen=True)
class Architecture:
    """Everything that decides which weights a SuperTokenTransformer has, apart from image channels, size and head.

    The defaults are those of stt_s25.

    Raises:
        ValueError: A field's value is impossible; the message names the field.
    """

    stride: int = 8
    """Pixels per patch token and side: a power of two from 2 to 32."""
    window: int = 7
    """M, patch tokens along a window's side."""
    width: int = 384
    """C, channels of every token."""
    heads: int = 8
    """Attention heads; divides `width`."""
    local_layers: int = 3
    """L, layers with window attention."""
    global_layers: int = 23
    """G, layers on Super tokens alone."""
    class_layers: int = 2
    """K, layers in which the class token reads the Super tokens."""
    mixer: str = "conv"
    """How Super tokens talk in local layers: "conv", "attention" or "none"."""
    global_mixer: str = "none"
    """How they talk in global layers, besides attention: "conv", "attention" or "none"."""
    mlp_ratio: float = 4.0
    """Hidden width of the MLPs of global and class layers, as a multiple of `width`."""
    local_mlp_ratio: float = 2.0
    """Hidden width of the MLPs of local layers, as a multiple of `width`."""
    stem_convs: int = 1
    """3x3 convolutions of the stem for each halving of the size; one of them has stride 2."""
    stem_order: str = "before"
    """Where the others are: "before" that one, at the larger size, or "behind" it; then one more comes first of all."""
    token_start: str = "learned"
    """How Super tokens and class token begin: "learned", or "mean", which adds the mean of what they read to it."""
    layer_scale: Optional[float] = 1e-5
    """Initial value of the learned scale on every branch; None for no scale."""

    def __post_init__(self) -> None:
        def check(ok: bool, field: str, rule: str) -> None:
            if not ok:
                raise ValueError(f"{field}={getattr(self, field)!r}: must be {rule}")

        for field in (
            "stride",
            "window",
            "width",
            "heads",
            "local_layers",
            "global_layers",
            "class_layers",
            "stem_convs",
        ):
            value = getattr(self, field)
            check(isinstance(value, Integral) and not isinstance(value, bool), field, "a whole number")
        for field in ("window", "width", "heads", "local_layers", "stem_convs"):
            check(getattr(self, field) >= 1, field, "at least 1")
        for field in ("global_layers", "class_layers"):
            check(getattr(self, field) >= 0, field, "at least 0")
        check(self.stride in (2, 4, 8, 16, 32), "stride", "a power of two from 2 to 32")
        check(self.width % self.heads == 0, "heads", f"a divisor of width={self.width}")
        check(self.width % self.stride == 0, "width", f"a multiple of stride={self.stride}, for the stem")
        check(self.stem_order in ("before", "behind"), "stem_order", "before or behind")
        check(self.token_start in ("learned", "mean"), "token_start", "learned or mean")
        for field in ("mixer", "global_mixer"):
            check(getattr(self, field) in MIXERS, field, f"one of {', '.join(MIXERS)}")
        for field in ("mlp_ratio", "local_mlp_ratio"):
            check(isinstance(getattr(self, field), Real), field, "a number")
            # less would leave an MLP without hidden channels
            check(1 <= self.width * getattr(self, field) < math.inf, field, f"at least 1 / width={self.width}")
        scale = self.layer_scale
        ok = scale is None or (isinstance(scale, Real) and 0 < scale < math.inf)
        check(ok, "layer_scale", "above 0, or None for no scale")
