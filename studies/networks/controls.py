"""Controls: how much of the Super Token Transformer's accuracy is its stem's?

`stem_alone` is that stem with the mean of its patches classified; `swin_with_stem` and `vit_with_stem` are timm's
transformers with that stem in the place of their patch embedding.
"""

from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models.swin_transformer import SwinTransformer
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor, nn

from supertokenvit.model.network import init_module
from supertokenvit.model.stem import Stem

CFG = {"num_classes": 10, "input_size": (3, 32, 32), "mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
EMBEDDING = CFG | {"first_conv": "patch_embed.proj.0.conv", "fixed_input_size": True}
default_cfgs = generate_default_cfgs(
    {
        "stem_alone": CFG | {"first_conv": "stem.0.conv", "classifier": "head"},
        "swin_with_stem": EMBEDDING | {"classifier": "head.fc"},
        "vit_with_stem": EMBEDDING | {"classifier": "head"},
    }
)


def begun(stem: Stem) -> Stem:
    """The same stem, its convolutions begun as in a SuperTokenTransformer."""
    for module in stem.modules():
        if isinstance(module, nn.Conv2d):
            init_module(module, needs_reset=False)
    return stem


class StemAlone(nn.Module):
    """Stem, LayerNorm, mean of the patches, classifier. [B, in_chans, H, W] -> [B, num_classes]

    Args:
        num_classes: Classes.
        in_chans: Channels of the image.
        width: Channels of a patch.
        stride: Pixels per patch and side.
        convs: Convolutions for each halving of the size.
        order: Of the stem.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Of nothing: it has no layers to drop.
    """

    def __init__(
        self,
        num_classes: int = 10,
        in_chans: int = 3,
        width: int = 96,
        stride: int = 4,
        convs: int = 3,
        order: str = "behind",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if drop_path_rate:
            raise ValueError("drop_path_rate: a stem has no layers to drop")
        self.num_classes, self.num_features = num_classes, width
        self.stem = begun(Stem(in_chans, width, stride=stride, convs=convs, order=order))
        self.norm = nn.LayerNorm(width, eps=1e-6)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(width, num_classes)
        init_module(self.head, needs_reset=False)

    def get_classifier(self) -> nn.Module:
        """Of timm's interface."""
        return self.head

    def forward(self, x: Tensor) -> Tensor:  # noqa: D102
        patches = self.stem(x).flatten(2).transpose(1, 2)
        return self.head(self.head_drop(self.norm(patches).mean(dim=1)))


class SwinWithStem(SwinTransformer):
    """Swin whose patches come from that stem, three convolutions for each halving."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        take_stem(self)


class ViTWithStem(VisionTransformer):
    """ViT whose patches come from that stem, three convolutions for each halving."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        take_stem(self)


def take_stem(model: Any) -> None:
    """Replaces the convolution that embeds patches by a stem of the same stride and width."""
    conv = model.patch_embed.proj
    stem = Stem(conv.in_channels, conv.out_channels, stride=conv.stride[0], convs=3, order="behind")
    model.patch_embed.proj = begun(stem)


@register_model
def stem_alone(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """The stem of a SuperTokenTransformer, its mean classified."""
    return build_model_with_cfg(StemAlone, "stem_alone", pretrained, **kwargs)


@register_model
def swin_with_stem(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """timm's Swin behind that stem."""
    return build_model_with_cfg(SwinWithStem, "swin_with_stem", pretrained, **kwargs)


@register_model
def vit_with_stem(pretrained: bool = False, **kwargs: Any) -> nn.Module:
    """timm's ViT behind that stem, shaped as DeiT-tiny where nothing else is said."""
    usual = {"patch_size": 16, "embed_dim": 192, "depth": 12, "num_heads": 3}
    return build_model_with_cfg(ViTWithStem, "vit_with_stem", pretrained, **usual | kwargs)
