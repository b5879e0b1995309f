"""The fast network equals the slow reference, values and gradients, wherever windows fit and where they do not."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supertoken.model.family import VARIANTS
from supertoken.model.network import SuperTokenTransformer

from . import reference

TINY = {"stride": 4, "window": 2, "width": 8, "heads": 2, "local_layers": 2, "global_layers": 1, "class_layers": 1}


def make(img_size=16, seed=0, **fields):
    torch.manual_seed(seed)
    model = SuperTokenTransformer(num_classes=3, img_size=img_size, dtype=torch.float64, **(TINY | fields))
    with torch.no_grad():  # away from zeros, ones and tiny scales, where faults could hide
        for parameter in model.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return model.eval()


def check(model, *size, batch=2):
    images = torch.randn(batch, 3, *size, dtype=torch.float64, requires_grad=True)
    leaves = [images, *model.parameters()]
    results = []
    for forward in (model, lambda x: reference.forward(model, x)):
        logits = forward(images)
        weights = torch.linspace(-1, 1, logits.numel(), dtype=torch.float64).reshape(logits.shape)
        gradients = torch.autograd.grad((logits * weights).sum(), leaves)
        results.append((logits, *gradients))
    names = ["logits", "images", *(name for name, _ in model.named_parameters())]
    for name, fast, slow in zip(names, *results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-9, atol=1e-9, msg=lambda text, name=name: f"{name}: {text}")


SIZES = [(16, 16), (8, 8), (4, 4), (3, 5), (16, 24), (12, 20), (13, 30), (24, 9)]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_equals_the_reference(size):
    check(make(), *size)


@pytest.mark.parametrize("local", ["conv", "attention", "none"])
@pytest.mark.parametrize("upper", ["conv", "attention", "none"])
def test_every_mixer_equals_the_reference(local, upper):
    model = make(mixer=local, global_mixer=upper, layer_scale=0.1)
    check(model, 16, 16)
    check(model, 13, 30)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_in_small_equals_the_reference(variant):
    """The variant's own geometry, with few and narrow layers."""
    fields = VARIANTS[variant] | {"width": 16, "heads": 2, "local_layers": 1, "global_layers": 1, "class_layers": 1}
    img_size = fields.pop("img_size", 224)
    model = make(
        img_size=2 * fields.get("window", 7) * fields.get("stride", 8) if img_size == 224 else img_size, **fields
    )
    side = model.windows.side * model.architecture.stride
    check(model, side, 2 * side, batch=1)
    check(model, side - 3, side + 5, batch=1)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_at_full_width_equals_the_reference(variant):
    fields = dict(VARIANTS[variant])
    img_size = fields.pop("img_size", 224)
    model = make(img_size=img_size, **({"stride": 8, "window": 7} | fields)).float().double()
    with torch.no_grad():
        for size in ((56, 56), (50, 70)):
            images = torch.randn(1, 3, *size, dtype=torch.float64)
            torch.testing.assert_close(model(images), reference.forward(model, images), rtol=1e-7, atol=1e-7)


def test_mean_of_super_tokens_equals_the_reference():
    check(make(global_pool="avg"), 13, 30)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(1, 30),
    st.integers(1, 30),
    st.sampled_from([2, 4, 8]),
    st.integers(1, 4),
    st.integers(1, 2),
    st.integers(0, 2),
    st.integers(1, 2),
    st.sampled_from(["conv", "attention", "none"]),
    st.sampled_from([None, 0.5]),
)
def test_any_geometry_at_any_size_equals_the_reference(H, W, stride, window, L, G, K, mixer, scale):
    model = make(
        stride=stride, window=window, local_layers=L, global_layers=G, class_layers=K, mixer=mixer, layer_scale=scale
    )
    images = torch.randn(1, 3, H, W, dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), reference.forward(model, images), rtol=1e-8, atol=1e-8)
