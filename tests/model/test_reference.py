"""The fast network equals the slow reference, values and gradients, wherever windows fit and where they do not."""

import pytest
import timm
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from supertokenvit.model.architecture import Architecture
from supertokenvit.model.family import VARIANTS
from supertokenvit.model.network import SuperTokenTransformer

from . import reference

TINY = {"stride": 4, "window": 2, "width": 8, "heads": 2, "local_layers": 2, "global_layers": 1, "class_layers": 1}
TINY |= {"local_mlp_ratio": 4.0, "layer_scale": None}


PADDED = (10, 33)  # a grid of 3 x 9 patches: with windows of side 2, padding on the right and at the bottom


def make(img_size=16, seed=0, noise=0.3, base=TINY, **fields):
    torch.manual_seed(seed)
    model = SuperTokenTransformer(num_classes=3, img_size=img_size, dtype=torch.float64, **(base | fields))
    with torch.no_grad():  # away from zeros, ones and tiny scales, where faults could hide
        for parameter in model.parameters():
            parameter.add_(noise * torch.randn_like(parameter))
    return model.eval()


def check(model, *size, batch=2, rtol=1e-9, atol=1e-9):
    images = torch.randn(batch, model.in_chans, *size, dtype=model.head.weight.dtype, requires_grad=True)
    leaves = [images, *model.parameters()]
    results = []
    for forward in (model, lambda x: reference.forward(model, x)):
        logits = forward(images)
        weights = torch.linspace(-1, 1, logits.numel(), dtype=logits.dtype).reshape(logits.shape)
        gradients = torch.autograd.grad((logits * weights).sum(), leaves)
        results.append((logits, *gradients))
    names = ["logits", "images", *(name for name, _ in model.named_parameters())]
    for name, fast, slow in zip(names, *results, strict=True):
        torch.testing.assert_close(fast, slow, rtol=rtol, atol=atol, msg=lambda text, name=name: f"{name}: {text}")


SIZES = [(16, 16), (8, 8), (4, 4), (1, 1), (3, 5), (16, 24), (12, 20), (13, 30), (24, 9), (9, 24), PADDED]


@pytest.mark.parametrize("size", SIZES, ids=str)
def test_every_size_equals_the_reference(size):
    check(make(), *size)


@pytest.mark.parametrize("size", [(8, 8), (5, 7), (3, 7), (8, 24)], ids=str)
@pytest.mark.parametrize("training", [False, True])
def test_one_image_equals_the_reference(size, training):
    """The gradient of a single window of a single image was wrong: BatchNorm mistook its strides."""
    check(make(img_size=8).train(training), *size, batch=1)


@pytest.mark.parametrize("local", ["conv", "attention", "none"])
@pytest.mark.parametrize("upper", ["conv", "attention", "none"])
def test_every_mixer_equals_the_reference(local, upper):
    model = make(mixer=local, global_mixer=upper, layer_scale=0.1)
    check(model, 8, 24)
    check(model, *PADDED, batch=1)


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_in_small_equals_the_reference(variant):
    """The variant's own geometry, with few and narrow layers."""
    fields = VARIANTS[variant] | {"width": 16, "heads": 2, "local_layers": 1, "global_layers": 1, "class_layers": 1}
    img_size = fields.pop("img_size", 224)
    geometry = Architecture(**fields)
    two_windows = 2 * geometry.window * geometry.stride
    model = make(img_size=two_windows if img_size == 224 else img_size, base={}, **fields)
    side = model.windows.side * model.architecture.stride
    check(model, side, 2 * side, batch=1)
    check(model, side - 3, side + 5, batch=1)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("size", [(56, 56), (50, 70)], ids=str)
def test_every_variant_in_full_equals_the_reference(variant, size):
    # less noise, as a sum over hundreds of channels would otherwise drown what each of them does
    model = make(noise=0.05, base={}, **({"img_size": 224} | VARIANTS[variant]))
    assert model.architecture == timm.create_model(variant, device="meta").architecture
    check(model, *size, batch=1)


@pytest.mark.parametrize("size", [(16, 24), PADDED], ids=str)
def test_float32_equals_the_reference(size):
    check(make(noise=0.1).float(), *size, rtol=1e-4, atol=1e-5)


def test_training_equals_the_reference():
    check(make().train(), *PADDED)


@pytest.mark.parametrize("size", [(16, 24), PADDED], ids=str)
def test_tokens_that_begin_as_means_equal_the_reference(size):
    check(make(token_start="mean"), *size)


def test_mean_of_super_tokens_equals_the_reference():
    check(make(global_pool="avg"), *PADDED)


@settings(max_examples=25, deadline=None, derandomize=True, database=None)
@given(
    size=st.tuples(st.integers(1, 28), st.integers(1, 28)),
    stride=st.sampled_from([2, 4, 8]),
    window=st.integers(1, 4),
    img_size=st.sampled_from([16, 24]),
    local_layers=st.integers(1, 2),
    global_layers=st.integers(0, 2),
    class_layers=st.integers(1, 2),
    mixer=st.sampled_from(["conv", "attention", "none"]),
    global_mixer=st.sampled_from(["conv", "attention", "none"]),
    token_start=st.sampled_from(["learned", "mean"]),
    layer_scale=st.sampled_from([None, 0.5]),
)
def test_any_geometry_at_any_size_equals_the_reference(size, **fields):
    check(make(**fields), *size, batch=1)
