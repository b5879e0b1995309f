import math

import pytest
import timm
import torch
from hypothesis import given
from hypothesis import strategies as st

import supertokenvit  # noqa: F401
from supertokenvit.training.optimizer import learning_rate, make_optimizer, set_learning_rate
from supertokenvit.training.recipe import Recipe


@given(st.integers(1, 5000), st.floats(0, 0.5), st.sampled_from(["cosine", "linear"]))
def test_learning_rate_rises_to_its_highest_once_and_falls_towards_zero(steps, warmup, schedule):
    recipe = Recipe(data="x", lr=0.1, warmup=warmup, schedule=schedule)
    rates = [learning_rate(step, steps, recipe) for step in range(steps)]
    top = rates.index(max(rates))
    assert all(0 < rate <= 0.1 + 1e-12 for rate in rates)
    assert all(a < b for a, b in zip(rates[:top], rates[1 : top + 1], strict=True))
    assert all(a > b for a, b in zip(rates[top:], rates[top + 1 :], strict=False))
    assert math.isclose(max(rates), 0.1, rel_tol=1e-6)


@pytest.mark.parametrize("opt", ["adamw", "muon"])
def test_learned_grids_norms_and_biases_have_no_weight_decay(opt):
    model = timm.create_model("stt_nano")
    optimizer = make_optimizer(model, Recipe(data="x", lr=1e-3, opt=opt, weight_decay=0.05), torch.device("cpu"))
    names = {id(p): name for name, p in model.named_parameters()}
    decayed = {names[id(p)] for group in optimizer.param_groups if group["weight_decay"] for p in group["params"]}
    assert "head.weight" in decayed and "local_layers.0.block.mlp.fc1.weight" in decayed
    assert not {name for name in decayed if "norm" in name or name.endswith("bias")}
    assert not decayed & {"class_token", "windows.positions.weight", "windows.super_tokens.weight"}
    assert len(names) == sum(len(group["params"]) for group in optimizer.param_groups)


SWIN = {"img_size": 32, "patch_size": 2, "window_size": 4, "embed_dim": 24, "depths": (1, 1), "num_heads": (12, 12)}


@pytest.mark.parametrize(
    ("name", "args", "adamw"),
    [
        ("stt_nano", {}, {"stem.0.conv.weight", "head.weight", "class_token", "windows.super_tokens.weight"}),
        ("swin_tiny_patch4_window7_224", SWIN, {"patch_embed.proj.weight", "head.fc.weight"}),
        ("convnext_atto", {"depths": (1, 1, 1, 1), "dims": (8, 8, 8, 16)}, {"stem.0.weight", "head.fc.weight"}),
    ],
)
def test_muon_leaves_both_ends_and_learned_grids_of_any_model_to_adamw(name, args, adamw):
    model = timm.create_model(name, num_classes=3, **args)
    optimizer = make_optimizer(model, Recipe(data="x", lr=1e-3, opt="muon"), torch.device("cpu"))
    names = {id(p): name for name, p in model.named_parameters()}
    fallback = {names[id(p)] for group in optimizer.param_groups if group.get("use_fallback") for p in group["params"]}
    tables = {name for name in names.values() if "relative_position_bias_table" in name}
    assert adamw | tables <= fallback
    assert not {name for name in fallback if ".mlp." in name and name.endswith("weight")}


def test_muon_on_a_cpu_orthogonalises_in_float32():
    torch.manual_seed(0)
    layer = torch.nn.Linear(64, 32, bias=False)
    model = torch.nn.Sequential(layer)
    recipe = Recipe(data="x", lr=1.0, opt="muon", weight_decay=0.0)
    optimizer = make_optimizer(model, recipe, torch.device("cpu"))
    before = layer.weight.detach().clone()
    layer.weight.grad = torch.randn(32, 64)
    optimizer.step()
    singular = torch.linalg.svdvals(before - layer.weight.detach())
    assert singular.max() / singular.min() < 2  # quintic Newton-Schulz brings them near one value


def test_layer_decay_lowers_the_rate_of_low_layers():
    model = timm.create_model("stt_nano")
    recipe = Recipe(data="x", lr=1e-3, layer_decay=0.5, opt="adamw")
    optimizer = make_optimizer(model, recipe, torch.device("cpu"))
    set_learning_rate(optimizer, 0.1)
    rate = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
    weights = dict(model.named_parameters())
    order = ["stem.0.conv.weight", "local_layers.0.block.mlp.fc1.weight", "local_layers.1.block.mlp.fc1.weight"]
    order += ["global_layers.2.block.mlp.fc1.weight", "head.weight"]
    rates = [rate[id(weights[name])] for name in order]
    assert rates == sorted(rates) and rates[0] < rates[-1] == 0.1
