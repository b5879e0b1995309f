"""Detectors: torchvision's heads behind one call."""

import pytest
import timm
import torch
from torchvision.models.detection.transform import GeneralizedRCNNTransform

from supertokenvit.dense.detector import HEADS, MOST_BOXES, Detector, Pyramid, found_in

STT = {"width": 32, "heads": 2, "local_layers": 1, "global_layers": 1, "class_layers": 1}
SWIN = {"img_size": 64, "embed_dim": 16, "depths": (1, 1, 1, 1), "num_heads": (1, 1, 2, 2), "window_size": 4}
BACKBONES = {
    "stt_t": STT | {"img_size": 64},
    "stt_nano": STT,
    "resnet10t": {},
    "test_vit": {"img_size": 64},
    "swin_tiny_patch4_window7_224": SWIN,
    "convnext_atto": {"dims": (8, 16, 24, 32)},
}


def detector(head="fcos", name="resnet10t", classes=3):
    torch.manual_seed(0)
    return Detector(name, classes, head, **BACKBONES[name])


def batch(count=2, size=(64, 96)):
    torch.manual_seed(1)
    one = {"boxes": torch.tensor([[4.0, 4.0, 50.0, 40.0], [20.0, 8.0, 60.0, 60.0]]), "labels": torch.tensor([0, 2])}
    none = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64)}
    return torch.randn(count, 3, *size), [one, none][:count]


@pytest.mark.parametrize("head", HEADS)
def test_losses_and_boxes_equal_those_of_torchvisions_own_call(head):
    model = detector(head)
    images, targets = batch()
    losses = model(images, targets)
    assert all(loss.ndim == 0 and loss > 0 for loss in losses.values())
    model.net.transform = GeneralizedRCNNTransform(64, 96, [0.0] * 3, [1.0] * 3, _skip_resize=True)
    theirs = model.net(list(images), targets)
    assert losses.keys() == theirs.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, theirs[name])
    torch.nn.init.normal_(model.net.head.classification_head.cls_logits.weight, std=0.3)  # so that something is found
    model.eval()
    with torch.no_grad():
        found = [found_in(rows) for rows in model(images)]
        theirs = model.net(list(images))
    assert all(5 < len(f.scores) <= MOST_BOXES for f in found)
    for mine, other in zip(found, theirs, strict=True):
        torch.testing.assert_close(mine._asdict(), other)
        assert (mine.scores.diff() <= 0).all() and set(mine.labels.tolist()) <= {0, 1, 2}


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("name", ["stt_t", "resnet10t", "stt_nano"])
def test_every_parameter_learns(head, name):
    model = detector(head, name)
    losses = model(*batch())
    sum(losses.values()).backward()
    assert not [n for n, p in model.named_parameters() if p.grad is None]


@pytest.mark.parametrize("name", BACKBONES)
def test_backbones_of_every_kind_take_images_of_any_size(name):
    model = detector(name=name).eval()
    with torch.no_grad():
        for size in ((64, 64), (64, 96), (128, 32)):
            assert model(torch.randn(1, 3, *size)).shape == (1, MOST_BOXES, 6)


def test_levels_are_those_of_the_backbone_from_stride_8_and_one_more():
    assert detector().net.backbone.strides == [8, 16, 32, 64]
    pyramid = Pyramid(timm.create_model("resnet10t", features_only=True, out_indices=(1,)), 32)
    assert pyramid.strides == [4, 8]  # a backbone without coarse maps
    maps = pyramid(torch.randn(1, 3, 64, 64))
    assert [tuple(m.shape) for m in maps.values()] == [(1, 32, 16, 16), (1, 32, 8, 8)]


def test_answers_that_are_no_numbers_are_seen():
    model = detector().eval()
    with torch.no_grad():
        model.net.head.classification_head.cls_logits.bias[1] = float("nan")
        assert model(torch.zeros(1, 3, 64, 64))[0, :, 4].isnan().all()


@pytest.mark.parametrize("name", ["stt_t", "resnet10t", "test_vit"])
def test_parts_have_the_names_that_optimiser_and_freezing_ask_for(name):
    model = detector(name=name)
    names, parameters = dict(model.named_modules()), dict(model.named_parameters())
    ends = [*model.pretrained_cfg["first_conv"], *model.pretrained_cfg["classifier"]]
    assert len(ends) == 4 and all(isinstance(names[end], torch.nn.Conv2d) for end in ends)
    assert model.no_weight_decay() <= parameters.keys()
    assert ("net.backbone.backbone.windows.positions.weight" in model.no_weight_decay()) == (name == "stt_t")
    kept = {id(p) for part in model.get_classifier() for p in part.parameters()}
    backbone = {id(p) for p in model.net.backbone.backbone.parameters()}
    assert not kept & backbone and len(kept | backbone) == len(parameters)


def test_images_of_nothing_have_rows_without_a_box():
    model = detector().eval()
    with torch.no_grad():
        rows = model(torch.zeros(2, 3, 64, 64))
    assert rows.shape == (2, MOST_BOXES, 6)
    assert found_in(torch.zeros(MOST_BOXES, 6)).boxes.shape == (0, 4)


def test_the_loss_is_exact_in_bf16():
    """The answers of the head are float32: a sum over thousands of places in bf16 is off by a percent."""
    model = detector()
    images, targets = batch()
    exact = model(images, targets)
    with torch.autocast("cpu", torch.bfloat16):
        rough = model(images, targets)
    for name, loss in rough.items():
        assert loss.dtype == torch.float32
        torch.testing.assert_close(loss, exact[name], rtol=0.02, atol=0.01)


def test_a_small_picture_is_learned():
    model = detector(classes=2)
    images = torch.zeros(2, 3, 64, 64)
    images[0, :, 8:40, 12:52], images[1, :, 20:60, 4:30] = 2.0, -2.0
    targets = [
        {"boxes": torch.tensor([[12.0, 8.0, 52.0, 40.0]]), "labels": torch.tensor([0])},
        {"boxes": torch.tensor([[4.0, 20.0, 30.0, 60.0]]), "labels": torch.tensor([1])},
    ]
    optimizer = torch.optim.AdamW(model.parameters(), 2e-3)
    for _ in range(60):
        loss = sum(model(images, targets).values())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    model.eval()
    with torch.no_grad():
        found = [found_in(rows) for rows in model(images)]
    for f, target in zip(found, targets, strict=True):
        assert f.labels[0] == target["labels"][0]
        assert (f.boxes[0] - target["boxes"][0]).abs().max() < 4, f.boxes[0]
