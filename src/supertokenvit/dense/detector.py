"""A detector: one of torchvision's heads on a feature pyramid of any timm backbone. Letters as in model/network.py.

images     [B, 3, H, W]
 backbone  maps at strides 8, 16, 32, as timm's features_only gives them
 pyramid   [B, C, H/8, W/8] ... [B, C, H/64, W/64]: the maps at one width, from the coarsest to the finest
 head      for each place of each level: a score for each class, and a box
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import timm
import torch
from timm.layers import Format
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.fcos import FCOSHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.retinanet import RetinaNetHead
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool

from .backbone import of_any_size

CHANNELS = 128  # of the pyramid; 256, as in the papers, would take longer than a small backbone
CONVOLUTIONS = 2  # of the head before its answers, for the same reason; the papers have 4
FINEST = 8  # stride of the finest level
LEAST_SCORE = 0.05  # what is less sure is not answered at all; the usual value for the curve of precision over recall
MOST_BOXES = 100  # of an image, as COCO counts
MULTIPLE = 32  # pixels of a side: torchvision takes the places of a level to divide it
BACKBONE = "net.backbone.backbone."  # where the backbone's weights are in a detector
ANSWERS = ("cls_logits", "bbox_reg", "bbox_ctrness")  # the last convolutions of heads

normalisation = partial(nn.GroupNorm, 32)  # in pyramid and head: batches for detection are small


class Found(NamedTuple):
    """What a detector found on one image, the surest first.

    Args:
        boxes: Left, upper, right and lower edge in pixels, [n, 4].
        labels: Class numbers [n].
        scores: 0 to 1, [n].
    """

    boxes: Tensor
    labels: Tensor
    scores: Tensor


class Pyramid(nn.Module):
    """Images [B, 3, H, W] -> maps of one width by the names of their levels, from fine to coarse.

    Args:
        backbone: Made by timm with features_only. Of its maps those from stride FINEST on are used, or else the last.
        channels: Width of each map.
    """

    def __init__(self, backbone: Any, channels: int = CHANNELS) -> None:
        super().__init__()
        self.backbone, self.out_channels = backbone, channels
        self.channels_behind = getattr(backbone, "output_fmt", Format.NCHW) == Format.NHWC  # Swin
        strides = backbone.feature_info.reduction()
        last = {stride: n for n, stride in enumerate(strides)}  # a plain ViT has several maps of one stride
        self.levels = [n for stride, n in last.items() if stride >= FINEST] or [len(strides) - 1]
        self.strides = [strides[n] for n in self.levels]
        self.strides.append(2 * self.strides[-1])  # of the level that is pooled from the last
        widths = [backbone.feature_info.channels()[n] for n in self.levels]
        self.fpn = FeaturePyramidNetwork(widths, channels, LastLevelMaxPool(), norm_layer=normalisation)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Returns the maps."""
        maps = self.backbone(images)
        if self.channels_behind:
            maps = [m.permute(0, 3, 1, 2) for m in maps]
        return self.fpn(OrderedDict((str(n), maps[n]) for n in self.levels))


class _FCOSHead(FCOSHead):
    """torchvision's, whose answers are float32 whatever the precision of the rest: the loss sums thousands of them."""

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        return {name: answer.float() for name, answer in super().forward(x).items()}


class _RetinaNetHead(RetinaNetHead):
    """Likewise, with CONVOLUTIONS convolutions."""

    def __init__(self, channels: int, anchors: int, num_classes: int) -> None:
        super().__init__(channels, anchors, num_classes, norm_layer=normalisation)
        for part in (self.classification_head, self.regression_head):
            part.conv = part.conv[:CONVOLUTIONS]

    def forward(self, x: list[Tensor]) -> dict[str, Tensor]:
        return {name: answer.float() for name, answer in super().forward(x).items()}


def fcos(pyramid: Pyramid, num_classes: int) -> FCOS:
    """FCOS (arXiv 1904.01355): each place within an object says how far the object's four edges are."""
    anchors = AnchorGenerator(tuple((stride,) for stride in pyramid.strides), ((1.0,),) * len(pyramid.strides))
    head = _FCOSHead(pyramid.out_channels, 1, num_classes, num_convs=CONVOLUTIONS)
    return FCOS(
        pyramid, num_classes, anchor_generator=anchors, head=head, score_thresh=LEAST_SCORE,
        detections_per_img=MOST_BOXES,
    )  # fmt: skip


def retinanet(pyramid: Pyramid, num_classes: int) -> RetinaNet:
    """RetinaNet (arXiv 1708.02002): each place says how nine boxes around it are to be changed."""
    sizes = tuple(tuple(round(4 * stride * 2 ** (n / 3)) for n in range(3)) for stride in pyramid.strides)
    anchors = AnchorGenerator(sizes, ((0.5, 1.0, 2.0),) * len(sizes))
    return RetinaNet(
        pyramid, num_classes, anchor_generator=anchors, head=_RetinaNetHead(pyramid.out_channels, 9, num_classes),
        score_thresh=LEAST_SCORE, detections_per_img=MOST_BOXES,
    )  # fmt: skip


HEADS: dict[str, Callable[[Pyramid, int], Any]] = {"fcos": fcos, "retinanet": retinanet}


def backbone_of(name: str, **options: Any) -> Any:
    """Makes timm's network of a name that gives maps of images of any size, also if it usually insists on one.

    Args:
        name: Of the model.
        **options: Further arguments of timm.create_model.
    """
    return of_any_size(partial(timm.create_model, name, features_only=True), name, **options)


class Detector(nn.Module):
    """Normalised images [B, 3, H, W] -> boxes [B, MOST_BOXES, 6]: four edges in pixels, score and class number of each.

    The surest box of an image comes first. Rows without a box have a score of 0. H and W must be multiples of MULTIPLE.

    Args:
        name: Of a model of timm's.
        num_classes: K.
        head: One of HEADS.
        pretrained: Load the backbone's weights (with `pretrained_cfg_overlay`, those that it names).
        **options: Further arguments of timm.create_model.
    """

    def __init__(self, name: str, num_classes: int, head: str, *, pretrained: bool = False, **options: Any) -> None:
        super().__init__()
        backbone = backbone_of(name, pretrained=pretrained, **options)
        self.num_classes, self.head = num_classes, head
        self.options = {key: value for key, value in options.items() if key != "pretrained_cfg_overlay"}
        self.net = HEADS[head](Pyramid(backbone), num_classes)
        del self.net.transform  # torchvision's resizing and normalising: images come as the network sees them
        first = backbone.pretrained_cfg.get("first_conv") or ()
        inside = f"{BACKBONE}model." if self.network() is not backbone else BACKBONE
        self.pretrained_cfg = dict(backbone.pretrained_cfg) | {
            "num_classes": num_classes,
            "first_conv": tuple(f"{inside}{n}" for n in ([first] if isinstance(first, str) else first)),
            "classifier": tuple(n for n, _ in self.named_modules() if n.rpartition(".")[2] in ANSWERS),
        }

    def forward(self, images: Tensor, targets: Sequence[dict[str, Tensor]] | None = None) -> Tensor | dict[str, Tensor]:
        """Returns the boxes; or, if there are targets, the parts of the loss.

        Args:
            images: Normalised.
            targets: For each image "boxes" [n, 4] in its pixels and their "labels" [n].
        """
        sizes = [(images.shape[2], images.shape[3])] * len(images)
        maps = list(self.net.backbone(images).values())
        answers = self.net.head(maps)
        anchors = self.net.anchor_generator(ImageList(images, sizes), maps)
        places = [m.shape[2] * m.shape[3] for m in maps]
        each = [n * (answers["cls_logits"].shape[1] // sum(places)) for n in places]  # answers of each level
        if targets is not None:
            levels = [each] if isinstance(self.net, FCOS) else []
            return self.net.compute_loss(list(targets), answers, anchors, *levels)
        split = {name: list(answer.split(each, dim=1)) for name, answer in answers.items()}
        found = self.net.postprocess_detections(split, [list(a.split(each)) for a in anchors], sizes)
        rows = torch.stack([_rows(f["boxes"], f["scores"], f["labels"]) for f in found])
        # an answer that is no number is above no threshold: without this nobody would see it
        return rows + torch.stack([0 * answer.sum((1, 2)) for answer in answers.values()]).sum(0)[:, None, None]

    def network(self) -> nn.Module:
        """timm's network inside of what gives the maps."""
        maps = self.net.backbone.backbone
        return maps.model if isinstance(getattr(maps, "model", None), nn.Module) else maps

    def get_classifier(self) -> tuple[nn.Module, ...]:
        """What is not the backbone."""
        return self.net.backbone.fpn, self.net.head

    def no_weight_decay(self) -> set[str]:
        """Names of the backbone's grids and tokens."""
        known: set[str] = getattr(self.network(), "no_weight_decay", set)()
        return {n for n, _ in self.named_parameters() if n.removeprefix(BACKBONE).removeprefix("model.") in known}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations of the backbone in the backward pass instead of keeping them."""
        self.net.backbone.backbone.set_grad_checkpointing(enable)


def _rows(boxes: Tensor, scores: Tensor, labels: Tensor) -> Tensor:
    """Boxes of one image as [MOST_BOXES, 6]."""
    rows = torch.cat([boxes, scores[:, None], labels[:, None].to(boxes)], 1)
    return nn.functional.pad(rows, (0, 0, 0, MOST_BOXES - len(rows)))


def found_in(rows: Tensor) -> Found:
    """Boxes of one image [MOST_BOXES, 6] without the rows that hold none."""
    rows = rows[~(rows[:, 4] <= 0)]  # a score that is no number stays
    return Found(rows[:, :4], rows[:, 5].long(), rows[:, 4])
