"""What timm asks of a model, where its own suite (make test-timm) does not look."""

import fnmatch
import json
import subprocess
import sys

import pytest
import timm
import torch
from timm.models import get_notrace_functions, get_notrace_modules, save_for_hf
from timm.models._manipulate import group_parameters
from timm.optim import param_groups_layer_decay
from torchvision.models.feature_extraction import create_feature_extractor

from studies.snapshots import shapes, snapshot
from supertokenvit.model.family import VARIANTS, checkpoint_filter_fn

SMALL = {"width": 32, "heads": 2, "global_layers": 4, "num_classes": 5}


def nano(**changes):
    torch.manual_seed(0)
    return timm.create_model("stt_nano", **(SMALL | changes)).eval()


def x(side=32, batch=2, channels=3):
    return torch.randn(batch, channels, side, side, generator=torch.Generator().manual_seed(1))


def test_importing_registers_the_family_and_nothing_heavy():
    code = "import sys, supertokenvit, timm; print(timm.list_models('stt_*'), [m for m in "
    code += "('datasets', 'onnx', 'transformers', 'matplotlib', 'accelerate', 'sklearn') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert out == f"{sorted(VARIANTS)} []"


def test_names_and_shapes_of_the_weights_have_not_changed():
    """Write anew with: python -m studies.snapshots"""
    for name in VARIANTS:
        assert shapes(name) == json.loads(snapshot(name).read_text()), name


def test_headless_and_sorted_checkpoints_load():
    model = nano()
    state = {name: weight for name, weight in sorted(model.state_dict().items()) if not name.startswith("head.")}
    filtered = checkpoint_filter_fn({"model": state}, model)
    assert filtered.keys() == state.keys()
    result = nano(num_classes=0).load_state_dict(filtered)
    assert not result.missing_keys and not result.unexpected_keys


def test_names_without_weight_decay_all_exist():
    for pool in ("token", "avg"):
        model = nano(global_pool=pool)
        names = [name for name, _ in model.named_parameters()]
        for pattern in model.no_weight_decay():
            assert fnmatch.filter(names, pattern), pattern


def test_reset_classifier_keeps_pooling_mode_and_frozen_weights():
    model = nano().requires_grad_(False)
    pooled = model.forward_head(model.forward_features(x()), pre_logits=True)
    model.reset_classifier(7)
    assert torch.equal(model.forward_head(model.forward_features(x()), pre_logits=True), pooled)
    assert model(x()).shape == (2, 7) and model.num_classes == 7
    assert [n for n, p in model.named_parameters() if p.requires_grad] == ["head.weight", "head.bias"]
    model.reset_classifier(3, "avg")
    torch.testing.assert_close(
        model.forward_head(model.forward_features(x()), pre_logits=True), model.forward_features(x()).mean((2, 3))
    )
    assert not model.class_layers and model.class_token is None
    model.reset_classifier(4, "")
    assert model(x()).shape == (2, 4, 2, 2)
    model.reset_classifier(0)
    assert torch.equal(model(x()), model.forward_features(x()))
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize(
    ("device", "dtype"), [("cpu", torch.float64), ("cpu", torch.bfloat16), ("meta", torch.float32)]
)
@pytest.mark.parametrize("pool", [None, "token", "avg", ""])
def test_reset_classifier_keeps_device_dtype_and_mode(device, dtype, training, pool):
    model = nano(device=device, dtype=dtype).train(training)
    model.reset_classifier(3, pool)
    for name, weight in [*model.named_parameters(), *model.named_buffers()]:
        assert weight.device.type == device, name
        assert weight.dtype == dtype or name.endswith("num_batches_tracked"), name
    assert {module.training for module in model.modules()} == {training}
    assert model(x().to(device, dtype)).dtype == dtype
    assert model.global_pool == (pool if pool is not None else "token")
    assert model.get_classifier() is model.head and model.head.out_features == model.num_classes == 3


@pytest.mark.parametrize("pool", ["max", "catavgmax"])
def test_pooling_that_is_not_there_is_refused(pool):
    with pytest.raises(ValueError, match="global_pool"):
        nano(global_pool=pool)
    with pytest.raises(ValueError, match="global_pool"):
        nano().reset_classifier(2, pool)


def test_without_class_layers_there_is_no_token_pooling():
    with pytest.raises(ValueError, match="class layers"):
        nano(class_layers=0)
    assert nano(class_layers=0, global_pool="avg")(x()).shape == (2, 5)


@pytest.mark.parametrize("channels", [1, 4])
def test_other_numbers_of_channels(channels):
    assert nano(in_chans=channels)(x(channels=channels)).shape == (2, 5)


def test_one_channel_takes_the_sum_of_three_when_weights_are_loaded(tmp_path):
    model = nano()
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    grey = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, in_chans=1).eval()
    torch.testing.assert_close(grey(x(channels=1)), model(x(channels=1).expand(-1, 3, -1, -1)), rtol=1e-4, atol=1e-6)
    assert grey.in_chans == 1


@pytest.mark.parametrize("changes", [{}, {"num_classes": 9}, {"img_size": 64}, {"img_size": (16, 48)}], ids=str)
def test_saved_weights_load_into_another_size_or_head(tmp_path, changes):
    model = nano()
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True, **changes).eval()
    size = changes.get("img_size", 32)
    images = torch.randn(1, 3, *(size if isinstance(size, tuple) else (size, size)))
    torch.testing.assert_close(loaded.forward_features(images), model.forward_features(images), rtol=1e-4, atol=1e-5)
    assert loaded(images).shape == (1, changes.get("num_classes", 5))


def test_timms_getter_gives_maps_of_single_layers():
    """Without it there is a pyramid (test_pyramid.py)."""
    getter = {"features_only": True, "feature_cls": "getter"}
    model = timm.create_model("stt_nano", **getter, **{k: v for k, v in SMALL.items() if k != "num_classes"})
    assert model.feature_info.reduction() == [4, 4, 16]
    assert [tuple(f.shape) for f in model(x())] == [(2, 32, 8, 8), (2, 32, 8, 8), (2, 32, 2, 2)]
    assert [tuple(f.shape) for f in model(x(37))] == [(2, 32, 10, 10), (2, 32, 10, 10), (2, 32, 3, 3)]
    chosen = timm.create_model("stt_nano", **getter, out_indices=(1, -1))
    assert chosen.feature_info.reduction() == [4, 16]


def test_intermediates_agree_with_features_in_every_form():
    model = nano()
    final, maps = model.forward_intermediates(x())
    torch.testing.assert_close(final, model.forward_features(x()))
    assert len(maps) == 6
    last = model.forward_intermediates(x(), indices=1, norm=True, intermediates_only=True)
    torch.testing.assert_close(last[0], final)
    nhwc = model.forward_intermediates(x(), indices=[0, 5], output_fmt="NHWC", intermediates_only=True)
    torch.testing.assert_close(nhwc[0], maps[0].permute(0, 2, 3, 1))
    for index in range(6):
        for norm in (False, True):
            full = model.forward_intermediates(x(), indices=[index], norm=norm, intermediates_only=True)
            early = model.forward_intermediates(x(), [index], norm=norm, stop_early=True, intermediates_only=True)
            assert torch.equal(early[0], full[0])
    final, early = model.forward_intermediates(x(), indices=[0, 3], stop_early=True)
    torch.testing.assert_close(final, maps[3])
    assert [tuple(m.shape) for m in early] == [(2, 32, 8, 8), (2, 32, 2, 2)]
    with pytest.raises(ValueError, match="output_fmt"):
        model.forward_intermediates(x(), output_fmt="NLC")


def test_stopping_early_leaves_the_upper_layers_out():
    model = nano()
    for layer in (*model.local_layers[1:], *model.global_layers):
        layer.register_forward_hook(lambda *_: pytest.fail("ran"))
    model.forward_intermediates(x(), indices=[0], stop_early=True, intermediates_only=True)


def test_local_maps_are_patch_tokens_in_their_places():
    model = nano(local_layers=1, stem_convs=1)
    images = x(batch=1)
    moved = images.clone()
    moved[..., 0, 29] += 5  # seen by the stem for the patch at the top right alone
    maps = [model.forward_intermediates(v, indices=[0], intermediates_only=True)[0] for v in (images, moved)]
    change = (maps[0] - maps[1]).abs().sum((0, 1))
    assert change.argmax() == 7


@pytest.mark.parametrize("index", range(6))
def test_pruning_leaves_no_unused_weights_and_right_sizes(index):
    model = nano()
    taken = model.prune_intermediate_layers([index], prune_norm=True)
    maps = model.train().forward_intermediates(x(), indices=taken, intermediates_only=True)
    maps[0].sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    assert model.num_features == model.head_hidden_size == maps[0].shape[1]
    assert len(model.feature_info) == index + 1


@pytest.mark.parametrize("index", range(6))
def test_a_pruned_model_is_the_lower_part_of_the_whole_one(index):
    model = nano(drop_path_rate=0.5, proj_drop_rate=0.5)
    expected = model.forward_intermediates(x(27), indices=[index], norm=True, intermediates_only=True)[0]
    model.prune_intermediate_layers([index])
    torch.testing.assert_close(model.forward_features(x(27)), expected)
    torch.testing.assert_close(model(x(27)), expected)
    final, maps = model.forward_intermediates(x(27), indices=[index], norm=True)
    torch.testing.assert_close(final, expected)
    torch.testing.assert_close(maps[0], expected)
    model = nano()
    model.prune_intermediate_layers([index])
    model.train()(x(27)).sum().backward()
    assert not [name for name, p in model.named_parameters() if p.grad is None]
    names = [name for name, _ in model.named_parameters()]
    assert all(fnmatch.filter(names, pattern) for pattern in model.no_weight_decay())


def test_pruning_to_the_last_layer_without_the_head_changes_nothing():
    model = nano()
    logits = model(x())
    model.prune_intermediate_layers(1, prune_head=False)
    assert torch.equal(model(x()), logits)


def test_layer_decay_rises_with_depth():
    model = nano()
    groups = param_groups_layer_decay(model, weight_decay=0.05, layer_decay=0.5)
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    names = ["stem.0.conv.weight", *(f"local_layers.{i}.block.attn.qkv.weight" for i in range(2))]
    names += [*(f"global_layers.{i}.block.attn.qkv.weight" for i in range(4)), "head.weight"]
    scales = [scale[id(model.get_parameter(name))] for name in names]
    assert scales == sorted(set(scales))
    for name in ("windows.positions.weight", "windows.super_tokens.weight"):
        assert scale[id(model.get_parameter(name))] == scales[0], name
    assert scale[id(model.norm.weight)] == scales[-2]
    for name in ("class_token", "class_layers.0.attn.q.weight"):
        assert scale[id(model.get_parameter(name))] == scales[-1], name
    assert len(scale) == len(list(model.parameters()))
    assert len({tuple(names) for names in group_parameters(model, model.group_matcher(coarse=True)).values()}) > 1


def test_set_input_size_resizes_the_grids_and_survives_saving(tmp_path):
    model = nano()
    before = model(x(64))
    model.set_input_size(64)
    assert model.windows.positions.weight.shape[2:] == (16, 16)
    torch.testing.assert_close(model(x(64)), before)
    assert model(x(48)).shape == (2, 5)
    save_for_hf(model, str(tmp_path), safe_serialization=True)
    loaded = timm.create_model(f"local-dir:{tmp_path}", pretrained=True).eval()
    assert torch.equal(loaded(x(64)), model(x(64)))


def test_set_input_size_keeps_dtype_and_frozen_grids_and_takes_two_sides():
    model = nano(dtype=torch.float64).requires_grad_(False)
    model.set_input_size((16, 40))
    grids = (model.windows.positions.weight, model.windows.super_tokens.weight)
    assert [tuple(grid.shape[2:]) for grid in grids] == [(4, 10), (1, 3)]
    assert not any(grid.requires_grad for grid in grids) and all(grid.dtype == torch.float64 for grid in grids)
    model.set_input_size()
    assert model.windows.positions.weight is grids[0]
    with pytest.raises(ValueError, match="img_size"):
        model.set_input_size((0, 32))
    assert model.windows.positions.weight is grids[0]


def test_own_checkpoints_pass_the_filter_unchanged_and_others_are_resized():
    model = nano()
    state = model.state_dict()
    filtered = checkpoint_filter_fn({"state_dict": state}, model)
    assert all(filtered[name] is weight for name, weight in state.items())
    larger = nano(img_size=64)
    larger.load_state_dict(checkpoint_filter_fn(state, larger))
    torch.testing.assert_close(larger(x(64)), model(x(64)))


@pytest.mark.parametrize("side", [32, 27])
def test_a_traced_extractor_gives_the_same_features(side):
    model = nano()
    names = ["stem", "local_layers.1.block", "global_layers.3", "norm", "head"]
    leaves = {"leaf_modules": get_notrace_modules(), "autowrap_functions": get_notrace_functions()}
    features = create_feature_extractor(model, return_nodes=names, tracer_kwargs=leaves)(x(side))
    torch.testing.assert_close(features["head"], model(x(side)))
    collect = model.forward_collect(x(side))[1]
    torch.testing.assert_close(features["global_layers.3"], collect["global.3.super_tokens"], rtol=1e-4, atol=1e-6)


def test_torch_script_gives_the_same():
    model = nano()
    scripted = torch.jit.script(model)
    for side in (32, 27):
        torch.testing.assert_close(scripted(x(side)), model(x(side)), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("size", [(32, 32), (20, 44)], ids=str)
def test_final_features_of_intermediates_are_those_of_the_forward_pass_to_the_last_bit(size):
    torch.manual_seed(0)
    model, x = timm.create_model("stt_nano").eval(), torch.randn(2, 3, *size)
    with torch.no_grad():
        final, maps = model.forward_intermediates(x)
        assert torch.equal(final, model.forward_features(x))
        assert torch.equal(maps[-1], model.forward_intermediates(x, indices=1, intermediates_only=True)[0])


@pytest.mark.parametrize("given", [[-1, 0], [5, 1], [2, 2, 0], (4, -6)], ids=str)
def test_maps_come_in_the_order_of_the_layers_whatever_the_order_of_their_numbers(given):
    model = nano()
    everything = model.forward_intermediates(x(), intermediates_only=True)
    maps = model.forward_intermediates(x(), indices=list(given), intermediates_only=True)
    wanted = sorted({i % len(everything) for i in given})
    assert len(maps) == len(wanted)
    for i, found in zip(wanted, maps, strict=True):
        assert torch.equal(found, everything[i]), i


def test_in_training_each_layer_is_run_once_when_its_map_is_asked_for():
    """With drop path, a second pass would draw other branches: the map would not be what the next layer read."""
    model = nano(drop_path_rate=0.5).train()
    ran = []
    last = model.local_layers[-1]
    last.register_forward_hook(lambda *_: ran.append(1))
    model.forward_intermediates(x())
    assert len(ran) == 1


@pytest.mark.parametrize("field", ["mlp_ratio", "local_mlp_ratio", "layer_scale"])
def test_a_field_that_is_no_number_is_named(field):
    with pytest.raises(ValueError, match=field):
        nano(**{field: "4"})


@pytest.mark.parametrize("count", [-1, 2.0, "3", True])
def test_an_impossible_number_of_classes_is_named(count):
    with pytest.raises(ValueError, match="num_classes"):
        nano().reset_classifier(count)


def test_attention_that_timm_extracts_is_what_is_collected(monkeypatch):
    """With fused attention there are no weights to extract; timm.layers.set_fused_attn(False) turns it off."""
    from timm.utils import AttentionExtract

    monkeypatch.setattr("supertokenvit.model.attention.use_fused_attn", lambda: False)
    model = nano()
    found = AttentionExtract(model, method="hook")(x())
    _, collected = model.forward_collect(x())
    names = [name for name in collected if name.endswith(".attention")]
    assert len(found) == len(names) == 7
    for maps, name in zip(found.values(), names, strict=True):
        whole = collected[name].flatten(0, -4)
        # the last local layer answers for the Super tokens alone
        torch.testing.assert_close(maps, whole if maps.ndim == 4 else whole[:, :, 0], rtol=1e-4, atol=1e-6)
