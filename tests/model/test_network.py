import copy
import math

import pytest
import timm
import torch
from timm.layers import set_fused_attn
from torch.utils.flop_counter import FlopCounterMode

from supertoken.model.architecture import Architecture
from supertoken.model.family import VARIANTS
from supertoken.model.network import SuperTokenTransformer

TINY = {"stride": 4, "window": 2, "width": 16, "heads": 2, "local_layers": 2, "global_layers": 2, "class_layers": 1}


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    return SuperTokenTransformer(**({"num_classes": 3, "img_size": 16} | TINY | changes)).eval()


def images(*size, batch=2, seed=1):
    return torch.randn(batch, 3, *size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("size", [(16, 16), (13, 30)], ids=str)
def test_a_batch_equals_its_images_one_by_one(size):
    model, x = tiny(), images(*size, batch=4)
    torch.testing.assert_close(model(x), torch.cat([model(image[None]) for image in x]), rtol=1e-4, atol=1e-6)


def test_sizes_that_fill_whole_windows_take_no_mask_and_others_do():
    model = tiny()
    for size, masked in (((16, 16), False), ((8, 24), False), ((9, 16), True), ((16, 17), True)):
        _, mask, _ = model.windows(model.stem(images(*size)))
        assert (mask is not None) == masked, size


def test_padding_gets_no_attention():
    model = tiny(window=4)
    _, collect = model.forward_collect(images(13, 30))  # a 4 x 8 grid of patches in 1 x 2 windows: full
    assert not (collect["local.0.attention"] == 0).any()
    _, collect = model.forward_collect(images(9, 30))  # 3 x 8: the last row of each window is padding
    weights = collect["local.0.attention"]
    assert (weights[..., -4:] == 0).all() and (weights[..., :-4] > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


def test_collect_changes_nothing_and_fills_what_is_promised():
    model, x = tiny(mixer="attention", global_mixer="attention"), images(16, 24)
    logits, collect = model.forward_collect(x)
    torch.testing.assert_close(logits, model(x), rtol=1e-4, atol=1e-6)
    n, T, C, heads = 6, 5, 16, 2
    expected = {"class.0.attention": (2, heads, 1, n)}
    for i in range(2):
        expected |= {f"local.{i}.attention": (2, n, heads, T, T), f"local.{i}.tokens": (2, n, T, C)}
        expected |= {f"local.{i}.super_tokens": (2, n, C), f"local.{i}.mixer.attention": (2, heads, n, n)}
        expected |= {f"global.{i}.attention": (2, heads, n, n), f"global.{i}.super_tokens": (2, n, C)}
        expected |= {f"global.{i}.mixer.attention": (2, heads, n, n)}
    assert {name: tuple(value.shape) for name, value in collect.items()} == expected
    for name in expected:
        if name.endswith("attention"):
            torch.testing.assert_close(collect[name].sum(-1), torch.ones_like(collect[name][..., 0]))


def test_windows_talk_only_through_the_mixer():
    def change(model):
        x = images(64, 64, batch=1)
        other = x.clone()
        other[..., 4:8, 4:8] += 1  # deep inside the first window, out of the stem's reach for the others
        before, after = (model.forward_collect(v)[1]["local.0.super_tokens"] for v in (x, other))
        return (before - after).abs().amax((0, 2))

    wide = {"img_size": 64, "window": 8}
    apart = change(tiny(mixer="none", **wide))
    assert apart[0] > 1e-6 and apart[1:].max() == 0
    assert change(tiny(mixer="conv", **wide))[1:].min() > 0
    assert change(tiny(mixer="attention", **wide))[1:].min() > 0


def test_class_token_and_global_layers_read_super_tokens_only():
    model = tiny()
    read = []
    for layer in model.global_layers:
        layer.register_forward_pre_hook(lambda module, inputs: read.append(tuple(inputs[0].shape)))
    features = model.forward_features(images(16, 24))
    assert features.shape == (2, 16, 2, 3) and read == [(2, 6, 16)] * 2
    _, collect = model.forward_collect(images(16, 24))
    supers = collect["local.1.super_tokens"]
    for i, layer in enumerate(model.global_layers):
        supers = layer(supers, (2, 3))
        torch.testing.assert_close(supers, collect[f"global.{i}.super_tokens"])


@pytest.mark.parametrize("size", [(16, 16), (13, 30)], ids=str)
def test_gradient_checkpointing_changes_neither_values_nor_gradients(size):
    model, x = tiny().train(), images(*size)
    results = []
    for enable in (False, True):
        model.set_grad_checkpointing(enable)
        model.zero_grad()
        logits = model(x)
        logits.square().sum().backward()
        results.append([logits.detach()] + [p.grad.clone() for p in model.parameters()])
    for a, b in zip(*results, strict=True):
        torch.testing.assert_close(a, b)


def test_unfused_attention_equals_fused_attention():
    x, logits = images(13, 30), []
    try:
        for fused in (True, False):
            set_fused_attn(fused)
            model = tiny(mixer="attention")
            assert model.local_layers[0].block.attn.fused_attn is fused
            logits.append(model(x))
    finally:
        set_fused_attn(True)
    torch.testing.assert_close(*logits, rtol=1e-4, atol=1e-6)


def test_dropout_and_stochastic_depth_act_in_training_only():
    model = tiny(drop_path_rate=0.5, proj_drop_rate=0.2, attn_drop_rate=0.2, drop_rate=0.2)
    x = images(16, 16)
    assert torch.equal(model(x), model(x))
    model.train()
    assert not torch.equal(model(x), model(x))


def test_channels_last_and_bfloat16_stay_close():
    model, x = tiny(), images(13, 30)
    expected = model(x)
    last = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-6)
    assert (model.bfloat16()(x.bfloat16()).float() - expected).abs().max() < 0.1 * expected.abs().max() + 0.05


def test_compiles_as_one_graph():
    model, x = tiny(), images(13, 30)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    torch.testing.assert_close(compiled(x), model(x))


@pytest.mark.slow
def test_exports_with_dynamic_batch_height_and_width():
    model = tiny()
    dims = {0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC}
    with torch.no_grad():
        exported = torch.export.export(model, (images(24, 40),), dynamic_shapes=({k: v for k, v in dims.items()},))
        for size in ((16, 16), (24, 40), (13, 30), (64, 9)):
            x = images(*size, batch=3)
            torch.testing.assert_close(exported.module()(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_functional_call_and_vmap_work():
    model, x = tiny(), images(16, 16, batch=3)
    weights = {name: p.detach() for name, p in model.named_parameters()}

    def logits(image):
        return torch.func.functional_call(model, weights, (image[None],))[0]

    torch.testing.assert_close(torch.func.vmap(logits)(x), model(x), rtol=1e-4, atol=1e-6)


def test_meta_construction_then_init_is_complete():
    model = SuperTokenTransformer(num_classes=3, img_size=16, device="meta", **TINY).to_empty(device="cpu")
    for tensor in [*model.parameters(), *model.buffers()]:
        tensor.data.fill_(7)  # what to_empty leaves is arbitrary
    model.init_weights()
    reference = tiny()
    for (name, weight), (_, expected) in zip(model.state_dict().items(), reference.state_dict().items(), strict=True):
        assert (weight.float().std(correction=0) - expected.float().std(correction=0)).abs() < 0.1, name
        assert not (weight == 7).all(), name
    assert model.eval()(images(16, 16)).isfinite().all()


def test_resized_grids_are_kept_but_never_stale():
    model, x = tiny(), images(24, 24)
    with torch.no_grad():
        first = model(x)
        kept = model.windows.super_tokens(3, 3)
        assert model.windows.super_tokens(3, 3) is kept
        model.windows.super_tokens.weight.mul_(3)
        assert model.windows.super_tokens(3, 3) is not kept
        changed = model(x)
        assert not torch.allclose(first, changed)
        state = {name: weight.clone() for name, weight in model.state_dict().items()}
        state["windows.super_tokens.weight"] /= 3
        model.load_state_dict(state)
        torch.testing.assert_close(model(x), first)
        model.windows.super_tokens.weight.data.mul_(3)  # leaves no trace in the weight's version
        model.train().eval()
        torch.testing.assert_close(model(x), changed)
        twin = copy.deepcopy(model)
        torch.testing.assert_close(twin(x), changed)
        assert model.double()(x.double()).dtype == torch.float64
    x.requires_grad_(True)
    model.float()(x).sum().backward()
    assert model.windows.super_tokens.weight.grad is not None


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("stride", 3), ("window", 0), ("width", 10), ("heads", 3), ("local_layers", 0), ("global_layers", -1),
        ("class_layers", -1), ("mixer", "fourier"), ("global_mixer", "x"), ("mlp_ratio", 0), ("local_mlp_ratio", -1),
        ("layer_scale", -1.0), ("stem_convs", 0),
    ],
)  # fmt: skip
def test_an_impossible_field_is_named(field, value):
    with pytest.raises(ValueError, match=f"^{field if field != 'width' else '(width|heads)'}="):
        Architecture(**(TINY | {field: value}))


def test_an_unknown_argument_raises():
    with pytest.raises(TypeError, match="windows"):
        SuperTokenTransformer(windows=7)


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


def test_variants_have_the_sizes_they_promise():
    count = {n: sum(p.numel() for p in timm.create_model(n, device="meta").parameters()) for n in VARIANTS}
    assert 48.5e6 <= count["stt_s25"] <= 49.5e6
    assert 0.45 <= count["stt_s14"] / count["stt_s25"] <= 0.55
    assert 5e6 <= count["stt_t"] <= 7e6
    assert 2e6 <= count["stt_micro"] <= 4e6
    assert count["stt_nano"] < 1e6


def test_stt_s25_costs_at_most_8_gmacs_at_224_px():
    model = timm.create_model("stt_s25", device="meta").eval().requires_grad_(False)
    with FlopCounterMode(display=False) as counter:
        model(torch.empty(1, 3, 224, 224, device="meta"))
    assert 7.0e9 < counter.get_total_flops() / 2 <= 8.0e9


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
