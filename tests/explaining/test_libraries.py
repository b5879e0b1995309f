"""What explanation libraries need of a network: they work as they do with a convolutional network."""

import captum.attr
import numpy as np
import pytest
import quantus
import timm
import torch
import torch.nn.functional as F
from pytorch_grad_cam import GradCAM, GradCAMPlusPlus, LayerCAM
from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

from tests.model.examples import images, tiny

TARGET = torch.tensor([2, 0])


@pytest.fixture
def model():
    return tiny(class_layers=2)


def by_hand(model, x, target):
    """Grad-CAM written out from the collected Super tokens."""
    features = model.forward_features(x).detach().requires_grad_()
    logits = model.forward_head(features)
    (gradient,) = torch.autograd.grad(logits.gather(1, target[:, None]).sum(), features)
    return F.relu((gradient.mean((2, 3), keepdim=True) * features).sum(1)).detach()


@pytest.mark.parametrize("size", [(16, 24), (24, 24), (14, 22)], ids=str)
def test_grad_cam_of_both_libraries_is_that_of_the_map_of_super_tokens(model, size):
    x = images(*size)
    expected = by_hand(model, x, TARGET)
    captums = captum.attr.LayerGradCam(model, model.super_map).attribute(x, TARGET)
    torch.testing.assert_close(F.relu(captums)[:, 0].detach(), expected, rtol=1e-4, atol=1e-6)
    with GradCAM(model, target_layers=[model.super_map]) as cam:
        found = torch.from_numpy(cam(x, [ClassifierOutputTarget(k) for k in TARGET.tolist()]))
    assert found.shape == (2, *size)
    for one, other in zip(found, expected, strict=True):
        if other.max() > 0:  # the library scales its map to 0 to 1 and enlarges it
            small = (other - other.min()) / (other - other.min()).max()
            enlarged = F.interpolate(small[None, None], size, mode="bilinear")[0, 0]
            assert torch.corrcoef(torch.stack([one.flatten(), enlarged.flatten()]))[0, 1] > 0.99


@pytest.mark.parametrize("name", ["stt_nano", "stt_micro", "stt_t"])
def test_other_maps_of_pytorch_grad_cam_work_on_every_kind_of_variant(name):
    model = timm.create_model(name, num_classes=3).eval()
    x = torch.randn(1, 3, 64, 64)
    for method in (GradCAMPlusPlus, LayerCAM):
        with method(model, target_layers=[model.super_map]) as cam:
            assert cam(x, [ClassifierOutputTarget(1)]).shape == (1, 64, 64)


def test_captum_attributes_to_pixels(model):
    x = images(16, 24)
    found, gap = captum.attr.IntegratedGradients(model).attribute(
        x, target=TARGET, n_steps=100, return_convergence_delta=True
    )
    assert found.shape == x.shape and gap.abs().max() < 0.05 * found.sum((1, 2, 3)).abs().max().clamp(min=1)
    assert captum.attr.InputXGradient(model).attribute(x.requires_grad_(), target=TARGET).abs().sum() > 0


def test_quantus_explains_and_measures_a_network(model):
    x, y = images(16, 16).numpy(), TARGET.numpy()
    maps = quantus.explain(model, x, y, method="IntegratedGradients", device="cpu")
    assert maps.shape == (2, 1, 16, 16)
    flipped = quantus.PixelFlipping(features_in_step=32, disable_warnings=True)
    scores = flipped(model=model, x_batch=x, y_batch=y, a_batch=maps, device="cpu")
    assert np.shape(scores) == (2, 24) and np.isfinite(scores).all()
