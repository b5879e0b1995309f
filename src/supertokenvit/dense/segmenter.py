"""A network for segmentation: a head of segmentation-models-pytorch on any timm backbone. Letters: model/network.py.

images     [B, 3, H, W]     any H, W
 backbone  maps at strides 4 (or 2) to 32, as timm's features_only gives them
 head      a class for each place, at a stride of 4
 logits    [B, K, H, W]     enlarged to the image
"""

from functools import partial
from importlib.util import find_spec
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from ..errors import UsageError
from .backbone import of_any_size

HEADS = (
    "fpn",
    "upernet",
    "unet",
    "unetplusplus",
    "segformer",
    "linknet",
    "manet",
    "pspnet",
    "deeplabv3",
    "deeplabv3plus",
)
MULTIPLE = 32  # pixels: heads put maps of all strides together


class Segmenter(nn.Module):
    """Says of each pixel which class it is of: normalised images [B, 3, H, W] -> logits [B, K, H, W].

    Images whose sides are no multiples of 32 are padded with zeros on the right and at the bottom.

    Args:
        name: Of a model of timm's.
        num_classes: K.
        head: One of HEADS.
        pretrained: Load the backbone's weights (with `pretrained_cfg_overlay`, those that it names).
        **options: Further arguments of timm.create_model.

    Raises:
        UsageError: segmentation-models-pytorch is not installed.
        ValueError: It has no such head, or the backbone's maps do not fit it.
    """

    def __init__(self, name: str, num_classes: int, head: str, *, pretrained: bool = False, **options: Any) -> None:
        super().__init__()
        if find_spec("segmentation_models_pytorch") is None:
            raise UsageError("segmentation needs segmentation-models-pytorch: pip install 'supertokenvit[dense]'")
        import segmentation_models_pytorch as smp

        weights = "pretrained" if pretrained else None
        make = partial(smp.create_model, head, f"tu-{name}", encoder_weights=weights, classes=num_classes)
        self.net = of_any_size(make, name, **options)
        self.num_classes, self.head = num_classes, head
        self.options = {key: value for key, value in options.items() if key != "pretrained_cfg_overlay"}
        self.backbone = [self.net.encoder.model]  # in a list: its weights are those of `net`
        cfg = dict(self.backbone[0].pretrained_cfg)
        first = cfg.get("first_conv") or ()
        self.pretrained_cfg = cfg | {
            "num_classes": num_classes,
            "first_conv": tuple(f"net.encoder.model.{n}" for n in ([first] if isinstance(first, str) else first)),
            "classifier": "net.segmentation_head.0",
        }

    def forward(self, x: Tensor) -> Tensor:
        H, W = x.shape[2:]
        x = F.pad(x, (0, -W % MULTIPLE, 0, -H % MULTIPLE))
        return self.net(x)[:, :, :H, :W]

    def get_classifier(self) -> tuple[nn.Module, ...]:
        """What is not the backbone."""
        return self.net.decoder, self.net.segmentation_head

    def no_weight_decay(self) -> set[str]:
        """Names of the backbone's grids and tokens."""
        network: Any = self.network()
        known = network.no_weight_decay() if hasattr(network, "no_weight_decay") else set()
        return {name for name, _ in self.named_parameters() if name.removeprefix("net.encoder.model.") in known}

    def network(self) -> nn.Module:
        """timm's network inside of what gives the maps."""
        maps = self.backbone[0]
        return maps.model if isinstance(getattr(maps, "model", None), nn.Module) else maps

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations of the backbone in the backward pass instead of keeping them."""
        self.backbone[0].set_grad_checkpointing(enable)
