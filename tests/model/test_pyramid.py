"""The maps that decoders for dense tasks take, alone and inside the libraries that ask for them."""

import math
from collections import OrderedDict

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from timm.utils import reparameterize_model
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import FCOS, FasterRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.ops import FeaturePyramidNetwork

from supertokenvit.model.family import VARIANTS

SMALL = {"width": 32, "heads": 2, "local_layers": 2, "global_layers": 2, "layer_scale": None}


def pyramid(name="stt_t", **changes):
    torch.manual_seed(0)
    return timm.create_model(name, features_only=True, **(SMALL | changes)).eval()


def x(height=64, width=96, batch=2):
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_variant_has_the_strides_that_decoders_expect(name):
    model = timm.create_model(name, features_only=True, device="meta")
    assert model.feature_info.reduction() == [4, 8, 16, 32]
    maps = model(torch.empty(1, 3, 128, 64, device="meta"))
    assert [m.shape[1:] for m in maps] == [
        (channels, 128 // stride, 64 // stride)
        for channels, stride in zip(model.feature_info.channels(), [4, 8, 16, 32], strict=True)
    ]


@pytest.mark.parametrize("stride", [2, 4, 8, 16, 32])
@pytest.mark.parametrize("size", [(64, 96), (65, 33), (37, 61), (32, 31), (1, 1)], ids=str)
def test_maps_have_the_sizes_of_a_resnets(stride, size):
    model, resnet = pyramid(stride=stride), timm.create_model("resnet10t", features_only=True).eval()
    sizes = {r: m.shape[2:] for r, m in zip(resnet.feature_info.reduction(), resnet(x(*size)), strict=True)}
    maps = model(x(*size))
    for reduction, channels, found in zip(
        model.feature_info.reduction(), model.feature_info.channels(), maps, strict=True
    ):
        assert found.shape == (2, channels, *sizes[reduction])
        assert found.shape[2:] == tuple(math.ceil(side / reduction) for side in size)


@pytest.mark.parametrize("size", [(56, 112), (75, 101)], ids=str)
def test_maps_are_what_the_network_itself_computes(size):
    """The stem's map, and each patch token with the Super token of its window, put together one by one."""
    torch.manual_seed(0)
    network = timm.create_model("stt_t", **SMALL).eval()
    model = pyramid()
    model.load_state_dict(network.state_dict(), strict=False)
    stem = network.stem[1](network.stem[0](x(*size)))
    tokens, (patches,), grid, (h, w) = network.forward_tokens(x(*size), take=[1])
    patches, tokens = model.norm(patches), network.norm(tokens)
    expected = torch.empty(2, 32, h, w)
    M = network.architecture.window
    for row in range(h):
        for column in range(w):
            window = row // M * grid[1] + column // M
            place = row % M * M + column % M
            expected[:, :, row, column] = patches[:, window, 1 + place] + tokens[:, window]
    found = model(x(*size))
    torch.testing.assert_close(found[0], stem)
    torch.testing.assert_close(found[1], expected)
    padded = F.pad(expected, (1, 1, 1, 1), value=-torch.inf)
    pooled = torch.stack(
        [
            torch.stack([padded[:, :, r : r + 3, c : c + 3].amax((2, 3)) for c in range(0, w, 2)], -1)
            for r in range(0, h, 2)
        ],
        2,
    )
    torch.testing.assert_close(found[2], pooled)


def test_a_window_hears_of_every_other_one():
    model = pyramid()
    images = x(112, 112, batch=1).requires_grad_()
    model(images)[1][0, 0, 0, 0].backward()
    assert images.grad[..., 100:, 100:].abs().max() > 0


@pytest.mark.parametrize("chosen", [(0,), (0, 1), (1,), (3,), (0, 1, 2, 3), (-1,), 2], ids=str)
def test_chosen_maps_are_those_of_all_and_nothing_unused_is_kept(chosen):
    whole, model = pyramid(), pyramid(out_indices=chosen)
    model.load_state_dict({k: v for k, v in whole.state_dict().items() if k in model.state_dict()})
    wanted = [2, 3] if chosen == 2 else [index % 4 for index in chosen]
    for index, found in zip(wanted, model(x()), strict=True):
        assert torch.equal(found, whole(x())[index])
    assert model.feature_info.reduction() == [(4, 8, 16, 32)[index] for index in wanted]
    sum(m.square().sum() for m in model.train()(x())).backward()
    assert not [name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.any()]


def test_an_output_stride_ends_the_pooling():
    model = pyramid(output_stride=8)
    assert model.feature_info.reduction() == [4, 8, 8, 8]
    maps = model(x())
    assert torch.equal(maps[3], maps[1]) and torch.equal(maps[1], pyramid()(x())[1])
    with pytest.raises(ValueError, match="at least stride=16"):
        pyramid(stride=16, output_stride=8)
    with pytest.raises(ValueError, match="8, 16 or 32"):
        pyramid(output_stride=12)
    with pytest.raises(TypeError, match="output_stride"):
        timm.create_model("stt_t", output_stride=8)
    with pytest.raises(ValueError, match="there are 4 maps"):
        pyramid(out_indices=(1, 4))


def test_folded_models_give_the_same():
    model = pyramid(layer_scale=1e-5)
    images, expected = x(75, 101), pyramid(layer_scale=1e-5)(x(75, 101))
    for found, wanted in zip(reparameterize_model(model)(images), expected, strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_checkpointed_gradients_are_the_same():
    plain, saving = pyramid().train(), pyramid().train()
    saving.set_grad_checkpointing()
    for model in (plain, saving):
        sum(m.square().sum() for m in model(x())).backward()
    for (name, one), other in zip(plain.named_parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)


@pytest.mark.slow
def test_an_exported_graph_takes_any_batch_height_and_width():
    model = pyramid()
    dims = dict.fromkeys((0, 2, 3), torch.export.Dim.DYNAMIC)
    with torch.no_grad():
        graph = torch.export.export(model, (x(),), dynamic_shapes=(dims,)).module()
        for images in (x(), x(75, 101, batch=3), x(200, 64, batch=1), x(112, 112)):
            for found, expected in zip(graph(images), model(images), strict=True):
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_it_compiles_as_one_graph():
    model = pyramid()
    for found, expected in zip(torch.compile(model, fullgraph=True, backend="eager")(x()), model(x()), strict=True):
        assert torch.equal(found, expected)


def test_weights_of_a_classifier_load(tmp_path):
    torch.manual_seed(1)
    network = timm.create_model("stt_t", **SMALL)
    timm.models.save_for_hf(network, str(tmp_path), safe_serialization=True)
    model = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, features_only=True, img_size=96).eval()
    assert torch.equal(model.stem[0].conv.weight, network.stem[0].conv.weight)
    assert torch.equal(model.global_layers[1].block.mlp.fc1.weight, network.global_layers[1].block.mlp.fc1.weight)
    assert model.windows.positions.weight.shape[2:] == (12, 12)


ARCHITECTURES = {
    "Unet": {"decoder_channels": (32, 16, 16, 8, 8)},
    "UnetPlusPlus": {"decoder_channels": (32, 16, 16, 8, 8)},
    "FPN": {},
    "UPerNet": {"decoder_channels": 32},
    "Segformer": {"decoder_segmentation_channels": 32},
    "Linknet": {},
    "MAnet": {"decoder_channels": (32, 16, 16, 8, 8)},
    "PSPNet": {},
    "PAN": {},
    "DeepLabV3": {"decoder_channels": 32},
    "DeepLabV3Plus": {"decoder_channels": 32},
}


@pytest.mark.parametrize("name", ["stt_t", "stt_nano"])
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_decoders_of_segmentation_models_pytorch_take_it(architecture, name):
    torch.manual_seed(0)
    size = (128, 160) if architecture == "PAN" else (64, 96)
    options = SMALL | ARCHITECTURES[architecture]
    model = getattr(smp, architecture)(f"tu-{name}", encoder_weights=None, classes=5, **options)
    logits = model(x(*size))
    assert logits.shape == (2, 5, *size)
    logits.square().sum().backward()
    assert not [n for n, weight in model.named_parameters() if weight.grad is None]


class Backbone(nn.Module):
    """What torchvision's detection models ask of a backbone: maps by name, all of `out_channels`."""

    def __init__(self, name):
        super().__init__()
        self.body = timm.create_model(name, features_only=True, **SMALL)
        self.fpn = FeaturePyramidNetwork(self.body.feature_info.channels(), 32)
        self.out_channels = 32

    def forward(self, images):
        return self.fpn(OrderedDict((str(n), m) for n, m in enumerate(self.body(images))))


@pytest.mark.parametrize("detector", [FasterRCNN, RetinaNet, FCOS], ids=lambda d: d.__name__)
def test_detectors_of_torchvision_take_it(detector):
    torch.manual_seed(0)
    anchors = AnchorGenerator(((32,), (64,), (128,), (256,)), ((1.0,),) * 4)
    name = "rpn_anchor_generator" if detector is FasterRCNN else "anchor_generator"
    model = detector(Backbone("stt_t"), num_classes=3, min_size=64, max_size=96, **{name: anchors})
    targets = [{"boxes": torch.tensor([[4.0, 4.0, 50.0, 40.0]]), "labels": torch.tensor([1])}] * 2
    losses = model(list(x(64, 90)), targets)
    sum(losses.values()).backward()
    assert not [n for n, weight in model.named_parameters() if weight.grad is None]
    assert {"boxes", "labels", "scores"} <= model.eval()(list(x(70, 64)))[0].keys()
