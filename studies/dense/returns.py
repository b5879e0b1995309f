"""Ways in which what the Super tokens have learned returns to the patch tokens; the package has the winner."""

from typing import Any

import torch
import torch.nn.functional as F
from timm.models import register_model
from torch import Tensor, nn

from supertokenvit.model.attention import Attention
from supertokenvit.model.family import _create
from supertokenvit.model.layers import Block
from supertokenvit.model.pyramid import Pyramid
from supertokenvit.model.windows import super_token_map


def _initialise(part: nn.Module) -> None:
    """As the network does (SuperTokenTransformer.init_weights)."""
    for module in part.modules():
        if isinstance(module, nn.Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            nn.init.zeros_(module.bias)


class Alone(Pyramid):
    """They do not return: patch tokens know what the local layers told them."""

    def handed_back(self, x: Tensor, super_tokens: Tensor, grid: Any, mask: Any) -> Tensor:
        """Returns the patch tokens as they are."""
        return x + 0 * super_tokens.unsqueeze(2)


class Spread(Pyramid):
    """Added to all patch tokens of the window."""

    def handed_back(self, x: Tensor, super_tokens: Tensor, grid: Any, mask: Any) -> Tensor:
        """Adds the window's Super token."""
        return x + super_tokens.unsqueeze(2)


class Smooth(Pyramid):
    """Added to the patch tokens, interpolated between the middles of the windows."""

    def handed_back(self, x: Tensor, super_tokens: Tensor, grid: Any, mask: Any) -> Tensor:
        """Adds the Super tokens around."""
        M, (gh, gw) = self.windows.side, grid
        spread = F.interpolate(super_token_map(super_tokens, grid), scale_factor=M, mode="bilinear")
        spread = spread.reshape(*spread.shape[:2], gh, M, gw, M).permute(0, 2, 4, 3, 5, 1)
        return x + F.pad(spread.reshape(x.shape[0], gh * gw, M * M, -1), (0, 0, 1, 0))


class Attending(Pyramid):
    """Each patch token attends to all Super tokens."""

    def __init__(self, model: Any, *args: Any, **options: Any) -> None:
        super().__init__(model, *args, **options)
        self.attn = Attention(model.num_features, model.architecture.heads)
        _initialise(self.attn)

    def handed_back(self, x: Tensor, super_tokens: Tensor, grid: Any, mask: Any) -> Tensor:
        """Adds what each patch token reads from the Super tokens."""
        B, n, T, C = x.shape
        a, sources = self.attn, (x.reshape(B, n * T, C), super_tokens, super_tokens)
        weights, biases = a.qkv.weight.chunk(3), a.qkv.bias.chunk(3)
        q, k, v = (F.linear(y, w, b) for y, w, b in zip(sources, weights, biases, strict=True))
        q, k, v = (y.reshape(B, -1, a.heads, C // a.heads).transpose(1, 2) for y in (q, k, v))
        read = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(B, n, T, C)
        return x + a.proj(read)


class Relocal(Pyramid):
    """Put back into their windows, and one more local layer."""

    def __init__(self, model: Any, *args: Any, **options: Any) -> None:
        super().__init__(model, *args, **options)
        a = model.architecture
        self.block = Block(a.width, a.heads, mlp_ratio=a.local_mlp_ratio, layer_scale=a.layer_scale)
        _initialise(self.block)

    def handed_back(self, x: Tensor, super_tokens: Tensor, grid: Any, mask: Any) -> Tensor:
        """Lets the window attend to its Super token."""
        return self.block(torch.cat([super_tokens.unsqueeze(2), x[:, :, 1:]], dim=2), mask)


class Both(Relocal):
    """Added to all patch tokens of the window, then one more local layer."""

    def handed_back(self, x: Tensor, super_tokens: Tensor, grid: Any, mask: Any) -> Tensor:
        """Adds the window's Super token, then lets the window attend."""
        return self.block(x + super_tokens.unsqueeze(2), mask)


WAYS = {"alone": Alone, "spread": Spread, "smooth": Smooth, "attending": Attending, "relocal": Relocal, "both": Both}


def _register(way: str) -> None:
    def model(pretrained: bool = False, **options: Any) -> nn.Module:
        made: Any = _create("stt_t", pretrained, **{"feature_cls": WAYS[way]} | options)
        made.pretrained_cfg = dict(made.pretrained_cfg) | {"architecture": name}
        return made

    name = model.__name__ = f"stt_t_{way}"
    model.__module__ = __name__
    register_model(model)


for _way in WAYS:
    _register(_way)
