"""The variants, registered with timm: each is a short dict of what differs from stt_s25, and of the image size.

Names and sizes other than STT-S25's are ours, and so is the geometry of all of them. It was decided by measuring
(docs/ablations.md): two or three local layers on many patches, a narrow MLP in local layers; for small images a deep
convolutional stem, which was worth its cost there.

Up to 18 layers LayerScale begins at 0.1, which is CaiT's rule (arXiv 2103.17239, section 2). It stands twice on the way
from the image to the class token: with 1e-5 the logits of an untrained network would not depend on the image at all.
"""

import json
from pathlib import Path
from typing import Any, Dict

from timm.data import IMAGENET_DEFAULT_MEAN, IMAGENET_DEFAULT_STD
from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from torch import Tensor, nn

from .architecture import Architecture
from .network import SuperTokenTransformer
from .pyramid import Pyramid, strides_of
from .windows import at_least, patch_grid_size

_SMALL: Dict[str, Any] = dict(
    stride=4,
    window=4,
    heads=4,
    local_layers=2,
    class_layers=1,
    stem_convs=3,
    stem_order="behind",
    layer_scale=None,
)
VARIANTS: Dict[str, Dict[str, Any]] = {
    "stt_s25": dict(),
    "stt_s25_p1": dict(local_layers=4, global_layers=21, local_mlp_ratio=4.0),
    "stt_s25_p3": dict(stride=16, local_layers=12, global_layers=17),
    "stt_s14": dict(local_layers=2, global_layers=10, layer_scale=0.1),
    "stt_t": dict(width=192, heads=4, global_layers=8, layer_scale=0.1),
    "stt_micro": dict(img_size=32, width=128, global_layers=7, **_SMALL),
    "stt_nano": dict(img_size=32, width=96, global_layers=3, **_SMALL),
}


def is_variant(name: str) -> bool:
    """Says whether a name is that of a variant, with or without a tag of weights behind a dot."""
    return name.partition(".")[0] in VARIANTS


def architecture_of_variant(name: str) -> Architecture:
    """Returns the architecture of a variant."""
    return Architecture(**{key: value for key, value in VARIANTS[name].items() if key != "img_size"})


def _cfg(**variant) -> Dict[str, Any]:
    img_size = variant.get("img_size", 224)
    architecture = Architecture(**{k: v for k, v in variant.items() if k != "img_size"})
    h, w = patch_grid_size(img_size, architecture.stride)
    return {
        "num_classes": 1000,
        "input_size": (3, img_size, img_size),
        "min_input_size": (3, architecture.stride, architecture.stride),
        "pool_size": (at_least(h, architecture.window), at_least(w, architecture.window)),
        "crop_pct": 1.0,
        "interpolation": "bicubic",
        "mean": IMAGENET_DEFAULT_MEAN,
        "std": IMAGENET_DEFAULT_STD,
        "first_conv": "stem.0.conv",
        "classifier": "head",
        "license": "apache-2.0",
        "paper_ids": "arXiv:2111.13156",
        "paper_name": "Global Interaction Modelling in Vision Transformer via Super Tokens",
    }


def _shipped(folder: Path) -> Dict[str, Dict[str, Any]]:
    """Of the weights that come with the package, by NAME.TAG: each is a folder as timm's `local-dir:` reads it."""
    found = {}
    for path in sorted(folder.glob("*/config.json")):
        content = json.loads(path.read_text())
        labels = {key: content[key] for key in ("num_classes", "label_names")}
        found[path.parent.name] = {
            **content["pretrained_cfg"],
            **labels,
            "file": str(path.with_name("model.safetensors")),
        }
    return found


WEIGHTS = Path(__file__).parents[1] / "weights"
SHIPPED = _shipped(WEIGHTS)
# star and last place keep the name without a tag what it is without weights: random ones, 1000 classes
_UNTRAINED: Dict[str, Any] = {f"{name}.*": _cfg(**variant) for name, variant in VARIANTS.items()}
default_cfgs = generate_default_cfgs({**SHIPPED, **_UNTRAINED})


def checkpoint_filter_fn(state_dict: Dict[str, Any], model: nn.Module) -> Dict[str, Tensor]:
    """Unwraps a training checkpoint and resizes learned grids to those of the model.

    Args:
        state_dict: Weights by name, or a dict with them under "state_dict" or "model".
        model: Where they are to go.
    """
    state_dict = state_dict.get("state_dict", state_dict.get("model", state_dict))
    grids = {n: m for n, m in model.named_modules() if hasattr(m, "resized_from")}
    out = {}
    for name, weight in state_dict.items():
        grid = grids.get(name.removesuffix(".weight"))
        out[name] = weight if grid is None else grid.resized_from(weight)
    return out


def _create(variant: str, pretrained: bool = False, **kwargs) -> nn.Module:
    args = {**VARIANTS[variant], **kwargs}
    usual = architecture_of_variant(variant)
    stride, L, G = (args.get(key, getattr(usual, key)) for key in ("stride", "local_layers", "global_layers"))
    features: Dict[str, Any] = {"feature_cls": Pyramid, "out_indices": tuple(range(len(strides_of(stride))))}
    if args.get("features_only"):
        features.update({key: args.pop(key) for key in ("feature_cls", "output_stride") if key in args})
    if isinstance(features["feature_cls"], str):  # timm's own: maps of single layers, of patch and of Super tokens
        features["out_indices"] = tuple(sorted({0, L - 1, L + G - 1}))
    return build_model_with_cfg(
        SuperTokenTransformer,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg=features,
        **args,
    )


@register_model
def stt_s25(pretrained: bool = False, **kwargs) -> nn.Module:
    """49M parameters: the size, depth and name of the paper's STT-S25, in our reconstruction."""
    return _create("stt_s25", pretrained, **kwargs)


@register_model
def stt_s25_p1(pretrained: bool = False, **kwargs) -> nn.Module:
    """What stt_s25 was before any measurement: a local layer more, with MLPs of ratio 4 in local layers too."""
    return _create("stt_s25_p1", pretrained, **kwargs)


@register_model
def stt_s25_p3(pretrained: bool = False, **kwargs) -> nn.Module:
    """The runner-up: many local layers on few patches, and 4 Super tokens instead of 16 at 224 px."""
    return _create("stt_s25_p3", pretrained, **kwargs)


@register_model
def stt_s14(pretrained: bool = False, **kwargs) -> nn.Module:
    """About half of stt_s25."""
    return _create("stt_s14", pretrained, **kwargs)


@register_model
def stt_t(pretrained: bool = False, **kwargs) -> nn.Module:
    """Tiny: 5-7M parameters, for photographs."""
    return _create("stt_t", pretrained, **kwargs)


@register_model
def stt_micro(pretrained: bool = False, **kwargs) -> nn.Module:
    """2-4M parameters, for images of 28-64 px."""
    return _create("stt_micro", pretrained, **kwargs)


@register_model
def stt_nano(pretrained: bool = False, **kwargs) -> nn.Module:
    """Under 1M parameters, for images of 28-64 px."""
    return _create("stt_nano", pretrained, **kwargs)
