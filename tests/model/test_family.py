"""Arguments, first weights, and the sizes and costs of the variants."""

import math

import pytest
import timm
import torch
from torch.utils.flop_counter import FlopCounterMode

from supertokenvit.model.architecture import Architecture
from supertokenvit.model.family import VARIANTS, architecture_of_variant, is_variant
from supertokenvit.model.network import SuperTokenTransformer

from .examples import TINY, images, tiny


def test_meta_construction_then_init_is_complete():
    model = SuperTokenTransformer(num_classes=3, img_size=16, device="meta", **TINY).to_empty(device="cpu")
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data.fill_(7)  # what to_empty leaves is arbitrary
    model.init_weights()
    reference = tiny()
    for (name, weight), (_, expected) in zip(model.state_dict().items(), reference.state_dict().items(), strict=True):
        spread, wanted = weight.float().std(correction=0), expected.float().std(correction=0)
        assert (spread - wanted).abs() <= 0.3 * wanted, (name, spread, wanted)
        assert not (weight == 7).all(), name
    assert model.eval()(images(16, 16)).isfinite().all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stride", 3), ("window", 0), ("width", 10), ("heads", 3), ("local_layers", 0), ("global_layers", -1),
        ("class_layers", -1), ("mixer", "fourier"), ("global_mixer", "x"), ("mlp_ratio", 0), ("local_mlp_ratio", -1),
        ("layer_scale", -1.0), ("stem_convs", 0), ("layer_scale", 0.0), ("layer_scale", math.inf), ("stride", 64),
        ("stride", 4.0), ("window", 2.5), ("window", "7"), ("heads", 2.0), ("mlp_ratio", 0.01), ("mlp_ratio", math.nan),
        ("mixer", None), ("stem_order", "between"), ("token_start", "zero"),
    ],
)  # fmt: skip
def test_an_impossible_field_is_named(field, value):
    with pytest.raises(ValueError, match=f"^{field if field != 'width' else '(width|heads)'}="):
        Architecture(**(TINY | {field: value}))


def test_a_width_that_the_stem_cannot_halve_is_named():
    with pytest.raises(ValueError, match="^width=12: .*stride=8"):
        Architecture(width=12, heads=2, stride=8)


@pytest.mark.parametrize("img_size", [0, (0, 16), (16, -1)], ids=str)
def test_an_impossible_image_size_is_named(img_size):
    with pytest.raises(ValueError, match="^img_size="):
        tiny(img_size=img_size)


def test_an_unknown_argument_raises():
    with pytest.raises(TypeError, match="windows"):
        SuperTokenTransformer(windows=7)
    with pytest.raises(TypeError, match="windows"):
        timm.create_model("stt_nano", windows=7)


def test_weights_start_as_the_docstring_says():
    torch.manual_seed(0)
    model = SuperTokenTransformer(
        width=128, heads=4, layer_scale=1e-4, global_layers=2, class_layers=1, num_classes=500
    )
    expected = {"windows.positions.weight": 0.02, "windows.super_tokens.weight": 0.02, "class_token": 0.02}
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            expected[name + ".weight"], expected[name + ".bias"] = 0.02, 0
        elif isinstance(module, torch.nn.Conv2d):
            stem = name.startswith("stem")
            expected[name + ".weight"] = math.sqrt(2 / (9 * module.out_channels)) if stem else 1 / 3
            if not stem:
                expected[name + ".bias"] = 0
    constants = {"gamma": 1e-4, "weight": 1.0, "bias": 0.0}
    for name, weight in model.named_parameters():
        if name in expected:
            std = weight.std().item() if weight.numel() > 1 else 0
            assert abs(std - expected[name]) <= 0.12 * expected[name], (name, std, expected[name])
        else:
            assert (weight == constants[name.split(".")[-1]]).all(), name
    assert 0.05 < model.eval()(images(224, 224)).std() < 5


@pytest.mark.parametrize("variant", ["stt_t", "stt_micro", "stt_nano"])
def test_an_untrained_network_sees_the_image(variant):
    """With a LayerScale of 1e-5 the share was 2e-8, and exactly 0 in bfloat16: training began blind."""
    torch.manual_seed(0)
    model = timm.create_model(variant, num_classes=100).eval()
    size = model.pretrained_cfg["input_size"][1:]
    x = torch.nn.functional.interpolate(images(4, 4, batch=4), size=size, mode="bicubic")  # as smooth as photographs
    with torch.no_grad():
        for logits in (model(x), model.bfloat16()(x.bfloat16()).float()):
            assert logits.std(0).mean() / logits.std() > 0.01


SLOW_VARIANTS = {"stt_s25", "stt_s25_p1", "stt_s25_p3", "stt_s14"}


@pytest.mark.parametrize(
    "variant", [pytest.param(v, marks=[pytest.mark.slow] if v in SLOW_VARIANTS else []) for v in VARIANTS]
)
def test_logits_of_every_variant_start_neither_tiny_nor_huge(variant):
    torch.manual_seed(0)
    model = timm.create_model(variant).eval()
    with torch.no_grad():
        logits = model(images(*model.pretrained_cfg["input_size"][1:]))
    assert logits.isfinite().all() and 0.05 < logits.std() < 5


def test_variants_have_the_sizes_they_promise():
    count = {n: sum(p.numel() for p in timm.create_model(n, device="meta").parameters()) for n in VARIANTS}
    for variant in ("stt_s25", "stt_s25_p1", "stt_s25_p3"):
        assert 48.5e6 <= count[variant] <= 49.5e6
    assert 0.45 <= count["stt_s14"] / count["stt_s25"] <= 0.55
    assert 5e6 <= count["stt_t"] <= 7e6
    assert 2e6 <= count["stt_micro"] <= 4e6
    assert count["stt_nano"] < 1e6


def test_stt_s25_costs_at_most_8_gmacs_at_224_px():
    model = timm.create_model("stt_s25", device="meta").eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert 3.0e9 < counter.get_total_flops() / 2 <= 8.0e9


S25_SIZES = [(224, 224), (256, 256), (320, 192), (56, 56), (40, 40), (225, 300)]


@pytest.mark.parametrize("size", S25_SIZES, ids=str)
def test_stt_s25_geometry_runs_forward_and_backward_at_any_size(size):
    model = timm.create_model("stt_s25", width=16, heads=2, num_classes=3, layer_scale=1.0)
    model(images(*size, batch=1)).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.parametrize("size", S25_SIZES, ids=str)
def test_stt_s25_runs_forward_and_backward_at_any_size(size):
    model = timm.create_model("stt_s25")
    logits = model(images(*size, batch=1))
    logits.sum().backward()
    assert logits.shape == (1, 1000) and logits.isfinite().all()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())


def test_the_defaults_of_the_architecture_are_those_of_the_papers_model():
    assert Architecture() == architecture_of_variant("stt_s25")


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("stt_s25", True),
        ("stt_micro.cifar10", True),
        ("stt_micro.mine", True),
        ("stt_giant", False),
        ("resnet18", False),
    ],
)
def test_names_of_variants(name, known):
    assert is_variant(name) == known
