"""A peer that timm has no name for, built from timm's classes."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from timm.layers import HybridEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from torch import nn

default_cfgs = generate_default_cfgs(
    {
        "cct_like": {
            "num_classes": 10,
            "input_size": (3, 32, 32),
            "first_conv": "patch_embed.backbone.0.conv",
            "classifier": "head",
            "mean": (0.485, 0.456, 0.406),
            "std": (0.229, 0.224, 0.225),
        }
    }
)


@register_model
def cct_like(
    pretrained: bool = False, embed_dim: int = 128, strides: Sequence[int] = (1, 2, 2), **kwargs: Any
) -> nn.Module:
    """After CCT (arXiv 2104.05704): convolutions make the tokens, there is no class token, the mean is classified."""
    stem = ConvStem(depth=3, channels=(32, embed_dim // 2, embed_dim), stride=tuple(strides), act_layer=nn.GELU)
    args = {"img_size": 32, "patch_size": 1, "class_token": False, "global_pool": "avg", "embed_dim": embed_dim}
    args["embed_layer"] = partial(HybridEmbed, backbone=stem, proj=False)
    return build_model_with_cfg(VisionTransformer, "cct_like", pretrained, **(args | kwargs))
