"""The data flow: who reads what, at any image size."""

import math

import pytest
import timm
import torch
from timm.layers import set_fused_attn
from timm.models import reparameterize_model
from torch.utils.flop_counter import FlopCounterMode

from supertokenvit.model.attention import Attention
from supertokenvit.model.stem import Stem

from .examples import PADDED, SIZES, images, tiny


@pytest.mark.parametrize("masked", [False, True])
def test_attention_for_the_first_token_alone_equals_that_for_all(masked):
    torch.manual_seed(0)
    attn = Attention(12, 3).double()
    whole = torch.randn(2, 4, 7, 12, dtype=torch.float64, requires_grad=True)
    alone = whole.detach().clone().requires_grad_()
    mask = torch.zeros(8, 1, 1, 7, dtype=torch.float64) if masked else None
    if mask is not None:
        mask[::2, ..., 3:] = -math.inf
    weights = list(attn.parameters())
    expected = attn(whole, mask)[..., :1, :]
    found = attn.super_only(alone, mask)
    torch.testing.assert_close(found, expected)
    direction = torch.randn_like(found)
    for a, b in zip(
        torch.autograd.grad((found * direction).sum(), [alone, *weights]),
        torch.autograd.grad((expected * direction).sum(), [whole, *weights]),
        strict=True,
    ):
        torch.testing.assert_close(a, b)


def test_dropping_weights_for_the_first_token_alone_drops_their_part_of_the_bias_too():
    torch.manual_seed(0)
    attn = Attention(4, 2, attn_drop=0.5).double().train()
    with torch.no_grad():
        attn.qkv.weight[8:].zero_()  # values are their bias alone, so the answer is what the weights sum to
        attn.qkv.bias[8:].fill_(1.0)
        attn.proj.weight.copy_(torch.eye(4))
        attn.proj.bias.zero_()
    x = torch.randn(50, 1, 4, dtype=torch.float64)
    assert sorted(attn.super_only(x).unique().tolist()) == pytest.approx([0.0, 2.0])  # one token: dropped, or doubled
    assert sorted(attn(x).unique().tolist()) == pytest.approx([0.0, 2.0])


def test_the_last_local_layer_computes_no_patch_tokens_that_nobody_reads():
    def macs(**changes):
        model = tiny(width=64, window=4, device="meta", **changes).requires_grad_(False)
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 32, 32, device="meta"))
        return counter.get_total_flops() / 2

    whole = 4 * 17 * 12 * 64**2 + 4 * 2 * 17**2 * 64  # 4 windows of 17 tokens: projections and MLP, attention
    assert macs(local_layers=2) - macs(local_layers=1) == pytest.approx(whole, rel=0.02)
    super_only = 4 * 12 * 64**2  # query, key, value, output and MLP for each Super token
    rest = macs(local_layers=1, global_layers=0) - 64 * 8 * 8 * 9 * 32 - 32 * 16 * 16 * 9 * 3  # less the stem
    rest -= 2 * 4 * 64**2 + 10 * 64**2  # and the class layer: keys and values; query, output and MLP
    assert rest == pytest.approx(super_only, rel=0.15)


@SIZES
def test_a_batch_equals_its_images_one_by_one(size):
    model, x = tiny(), images(*size, batch=4)
    torch.testing.assert_close(model(x), torch.cat([model(image[None]) for image in x]), rtol=1e-4, atol=1e-6)


def test_sizes_that_fill_whole_windows_take_no_mask_and_others_do():
    model = tiny()
    for size, masked in (((16, 16), False), ((8, 24), False), ((13, 30), False), ((9, 16), True), ((16, 17), True)):
        tokens, mask, (gh, gw) = model.windows(model.stem(images(*size)))
        assert (mask is not None) == masked, size
        assert tokens.shape == (2, gh * gw, 5, 16)
    _, mask, grid = model.windows(model.stem(images(*PADDED)))
    real = (mask == 0).sum() - 2 * grid[0] * grid[1]  # the rest are Super tokens
    assert grid == (2, 5) and real == 2 * 3 * 9 and (mask[mask != 0] == -math.inf).all()


def test_padding_gets_no_attention():
    model = tiny(window=4)
    _, collect = model.forward_collect(images(13, 30))  # a 4 x 8 grid of patches in 1 x 2 windows: full
    assert not (collect["local.0.attention"] == 0).any()
    _, collect = model.forward_collect(images(9, 30))  # 3 x 8: the last row of each window is padding
    weights = collect["local.0.attention"]
    assert (weights[..., -4:] == 0).all() and (weights[..., :-4] > 0).all()
    torch.testing.assert_close(weights.sum(-1), torch.ones_like(weights[..., 0]))


@pytest.mark.parametrize(("size", "n"), [((16, 24), 6), (PADDED, 10)])
def test_collect_changes_nothing_and_fills_what_is_promised(size, n):
    model, x = tiny(mixer="attention", global_mixer="attention"), images(*size)
    logits, collect = model.forward_collect(x)
    torch.testing.assert_close(logits, model(x), rtol=1e-4, atol=1e-6)
    T, C, heads = 5, 16, 2
    expected = {"class.0.attention": (2, heads, 1, n)}
    for i in range(2):
        expected |= {f"local.{i}.attention": (2, n, heads, T, T), f"local.{i}.tokens": (2, n, T, C)}
        expected |= {f"local.{i}.super_tokens": (2, n, C), f"local.{i}.mixer.attention": (2, heads, n, n)}
        expected |= {f"global.{i}.attention": (2, heads, n, n), f"global.{i}.super_tokens": (2, n, C)}
        expected |= {f"global.{i}.mixer.attention": (2, heads, n, n)}
    expected |= {"grid": (2,), "size": (2,)}
    assert {name: tuple(value.shape) for name, value in collect.items()} == expected
    h, w = (-(-side // 4) for side in size)
    assert collect["size"].tolist() == [h, w] and collect["grid"].tolist() == [-(-h // 2), -(-w // 2)]
    for name in expected:
        if name.endswith("attention"):
            torch.testing.assert_close(collect[name].sum(-1), torch.ones_like(collect[name][..., 0]))
    before, after = collect["local.0.tokens"][:, :, 0], collect["local.0.super_tokens"]
    grid = (2, 3) if n == 6 else (2, 5)
    torch.testing.assert_close(before + model.local_layers[0].mixer(before, grid), after)


def test_collected_intermediates_are_not_overwritten_by_later_layers():
    model, x = tiny(), images(*PADDED)
    with torch.no_grad():
        _, collect = model.forward_collect(x)
        for depth in (1, 2):
            short = tiny()
            short.prune_intermediate_layers([depth - 1])
            collect_short = {}
            short.forward_features(x, collect_short)
            for name in (f"local.{depth - 1}.tokens", f"local.{depth - 1}.attention"):
                torch.testing.assert_close(collect_short[name], collect[name])


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


@pytest.mark.parametrize("pool", ["token", "avg"])
def test_no_gradient_reaches_the_patch_tokens_above_the_last_local_layer(pool):
    model, kept = tiny(global_pool=pool), []

    def cut(module, inputs, tokens):
        kept.append(tokens.detach().requires_grad_())
        return kept[0]

    model.local_layers[-1].register_forward_hook(cut)
    model(images(*PADDED)).square().sum().backward()
    gradient = kept[0].grad
    assert (gradient[:, :, 1:] == 0).all() and (gradient[:, :, 0].abs().sum(-1) > 0).all()


def test_global_layers_read_super_tokens_only():
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


@SIZES
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


@SIZES
def test_unfused_attention_equals_fused_attention(size):
    x, logits = images(*size), []
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
    x = images(16, 16)
    plain = tiny()(x)
    for rate in ("drop_path_rate", "proj_drop_rate", "attn_drop_rate", "drop_rate"):
        model = tiny(**{rate: 0.5})
        assert torch.equal(model(x), plain), rate
        for module in model.modules():  # without the stem, whose BatchNorm also knows the mode
            module.training = not isinstance(module, torch.nn.BatchNorm2d)
        assert not torch.equal(model(x), model(x)), rate


@pytest.mark.parametrize(
    ("order", "expected"),
    [
        ("before", [(32, 1), (32, 1), (64, 2), (64, 1), (64, 1), (128, 2)]),
        ("behind", [(32, 1), (64, 2), (64, 1), (64, 1), (128, 2), (128, 1), (128, 1)]),
    ],
)
def test_the_order_of_the_stems_convolutions(order, expected):
    stem = Stem(3, 128, stride=4, convs=3, order=order)
    assert [(layer.conv.out_channels, layer.conv.stride[0]) for layer in stem] == expected
    assert [layer.conv.in_channels for layer in stem] == [3, *(width for width, _ in expected[:-1])]
    assert [isinstance(layer.bn.act, torch.nn.GELU) for layer in stem] == [True] * (len(expected) - 1) + [False]
    assert stem(torch.randn(2, 3, 19, 33)).shape == (2, 128, 5, 9)


def test_the_stem_computes_in_channels_last_memory_whatever_comes_in():
    model = tiny(stem_convs=2).eval()
    for stem in (model.stem, reparameterize_model(model).stem):
        for x in (torch.randn(2, 3, 16, 16), torch.randn(2, 3, 16, 16).contiguous(memory_format=torch.channels_last)):
            assert stem(x).is_contiguous(memory_format=torch.channels_last)


@SIZES
def test_channels_last_stays_close(size):
    model, x = tiny(), images(*size)
    expected = model(x)
    last = model.to(memory_format=torch.channels_last)(x.contiguous(memory_format=torch.channels_last))
    torch.testing.assert_close(last, expected, rtol=1e-4, atol=1e-6)


@SIZES
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_half_precision_stays_close(dtype, size):
    model, x = tiny(), images(*size)
    expected = model(x)
    with torch.autocast("cpu", dtype):
        assert (model(x).float() - expected).abs().max() < 0.03 * expected.abs().max()
    logits = model.to(dtype)(x.to(dtype))
    assert logits.dtype == dtype
    assert (logits.float() - expected).abs().max() < 0.05 * expected.abs().max()


@pytest.mark.parametrize(
    "options", [{}, {"mixer": "attention", "global_mixer": "attention"}, {"mixer": "none"}], ids=str
)
@pytest.mark.parametrize("size", [(16, 24), PADDED], ids=str)
def test_a_gradient_reaches_every_collected_tensor(size, options):
    """13 of 21 used to be copies beside the computation."""
    model = tiny(**options)
    logits, collect = model.forward_collect(images(*size))
    tensors = {name: value for name, value in collect.items() if name not in ("grid", "size")}
    wanted = logits[:, 0].sum()
    gradients = torch.autograd.grad(wanted, list(tensors.values()))
    for name, gradient in zip(tensors, gradients, strict=True):
        assert gradient.abs().sum() > 0, name


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("global_pool", "foo"), ("num_classes", -1), ("num_classes", 2.5), ("in_chans", 0), ("img_size", 0),
        ("img_size", "big"), ("img_size", (32, 32, 3)), ("drop_rate", 1.5), ("proj_drop_rate", -0.1),
        ("attn_drop_rate", "much"), ("drop_path_rate", 1.0), ("weight_init", "jax"), ("window", 0), ("heads", 5),
        ("mixer", "blender"), ("layer_scale", 0),
    ],
)  # fmt: skip
def test_a_wrong_argument_is_a_value_error_that_names_it(name, value):
    with pytest.raises(ValueError, match=name):
        timm.create_model("stt_nano", **{name: value})


def test_a_wrong_form_of_intermediates_is_a_value_error():
    with pytest.raises(ValueError, match="output_fmt"):
        tiny().forward_intermediates(images(16, 16), output_fmt="NLC")
    with pytest.raises(ValueError, match="global_pool"):
        tiny(global_pool="avg").reset_classifier(3, "token")
