"""Peers that timm has no name for, where it can be built from timm's classes."""

from collections.abc import Sequence
from functools import partial
from typing import Any

from timm.layers import HybridEmbed
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.vision_transformer import VisionTransformer
from timm.models.vision_transformer_hybrid import ConvStem
from torch import Tensor, nn

from .whitening import Whitening

USUAL = {
    "num_classes": 10,
    "input_size": (3, 32, 32),
    "classifier": "head",
    "mean": (0.485, 0.456, 0.406),
    "std": (0.229, 0.224, 0.225),
}
default_cfgs = generate_default_cfgs(
    {
        "cct_like": USUAL | {"first_conv": "patch_embed.backbone.0.conv"},
        "airbench_like": USUAL | {"first_conv": "whiten.1"},
    }
)


@register_model
def cct_like(
    pretrained: bool = False, embed_dim: int = 128, strides: Sequence[int] = (1, 2, 2), **kwargs: Any
) -> nn.Module:
    """After CCT (arXiv 2104.05704): convolutions make the tokens, there is no class token, the mean is classified."""
    stem = ConvStem(depth=3, channels=(32, embed_dim // 2, embed_dim), stride=tuple(strides), act_layer=nn.GELU)
    args: dict[str, Any] = {
        "img_size": 32,
        "patch_size": 1,
        "class_token": False,
        "global_pool": "avg",
        "embed_dim": embed_dim,
    }
    args["embed_layer"] = partial(HybridEmbed, backbone=stem, proj=False)
    return build_model_with_cfg(VisionTransformer, "cct_like", pretrained, **(args | kwargs))


class AirbenchLike(nn.Module):
    """The network of airbench94 (arXiv 2404.00498, section 3.1), which holds the record of short trainings on CIFAR-10.

    Frozen whitening, three pairs of 3x3 convolutions with BatchNorm without scale, begun as identities; the largest
    value of each channel is classified, and the logits are divided by nine.

    Args:
        num_classes: Classes.
        in_chans: Channels of the image, three.
        drop_rate: Of nothing: it has no dropout.
        drop_path_rate: The same.
        widths: Channels of each pair.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        widths: Sequence[int] = (64, 256, 256),
    ) -> None:
        super().__init__()
        if in_chans != 3 or drop_rate or drop_path_rate:
            raise ValueError("three channels, and nothing is dropped")
        self.num_classes, self.num_features = num_classes, widths[-1]
        self.whiten = Whitening(pad=0)
        channels, layers = self.whiten.channels, list[nn.Module]()
        for width in widths:
            layers += [convolution(channels, width), nn.MaxPool2d(2), norm(width), nn.GELU()]
            layers += [convolution(width, width), norm(width), nn.GELU()]
            channels = width
        self.body = nn.Sequential(*layers, nn.MaxPool2d(3), nn.Flatten())
        self.head = nn.Linear(channels, num_classes, bias=False)

    def get_classifier(self) -> nn.Module:
        """Of timm's interface."""
        return self.head

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, 32, 32] -> [B, num_classes]"""
        return self.head(self.body(self.whiten(x))) / 9


def convolution(channels: int, width: int) -> nn.Conv2d:
    """Without bias, the first channels passed through as they are."""
    conv = nn.Conv2d(channels, width, 3, padding=1, bias=False)
    nn.init.dirac_(conv.weight[:channels].data)
    return conv


def norm(width: int) -> nn.BatchNorm2d:
    """Without a learned scale; it forgets faster than torch's."""
    bn = nn.BatchNorm2d(width, momentum=0.4, eps=1e-12)
    bn.weight.requires_grad_(False)
    return bn


@register_model
def airbench_like(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """After airbench94 (arXiv 2404.00498)."""
    return build_model_with_cfg(AirbenchLike, "airbench_like", pretrained, **kwargs)
