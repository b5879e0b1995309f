"""Queues: their arms are what they say, they continue, their pages draw the right conclusions."""

import json

import numpy as np
import pytest
import timm
import torch
import yaml
from timm.data import resolve_data_config
from torch import nn

from studies import common, pages, speed, train
from studies.networks import whitening
from studies.queue import arguments, folder_of, jobs, names, open_queue, valid
from supertokenvit.model_folder import ModelCard, TrainedModel, save_model
from supertokenvit.training.optimizer import make_optimizer
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.starting_model import build

from .training.conftest import make_folder

QUEUE = open_queue("ablations")


def make(args):
    torch.manual_seed(0)
    return timm.create_model("stt_ablation", num_classes=10, img_size=32, **args)


def arms():
    return [(f"{g}: {arm}", changes) for g, about in QUEUE["groups"].items() for arm, changes in about["arms"].items()]


def silent(model):
    """Learned weights that a backward pass did not reach."""
    learned = [(name, p.grad) for name, p in model.named_parameters() if p.requires_grad]
    return [name for name, grad in learned if grad is None or not grad.isfinite().all() or not grad.any()]


@pytest.mark.parametrize(("name", "changes"), arms(), ids=[name for name, _ in arms()])
def test_every_arm_learns_with_all_its_weights(name, changes):
    model = make(QUEUE["base"] | changes)
    assert model.get_submodule(model.pretrained_cfg["first_conv"]).weight.shape[1] == 3
    model(torch.randn(4, 3, 32, 32)).sum().backward()
    # of the last layer with a bias for all pairs only the Super token's rows are asked for, but they are asked for
    assert silent(model) == []


SHORT = open_queue("short")


def short(changes):
    torch.manual_seed(0)
    args = SHORT["base"] | {key: value for key, value in changes.items() if key != "recipe"}
    return timm.create_model("stt_short", num_classes=10, **args)


@pytest.mark.parametrize("group", ["stem", "layers", "images"])
def test_a_gradient_reaches_every_weight_of_the_arms_of_the_short_recipe(group):
    for arm, changes in SHORT["groups"][group]["arms"].items():
        model = short(changes)
        first = model.get_submodule(model.pretrained_cfg["first_conv"]).weight
        assert first.shape[1] == (15 if changes.get("parts", {}).get("shifted") else 3)
        model(torch.randn(4, 3, 32, 32)).sum().backward()
        assert silent(model) == [], arm


def test_parts_of_the_short_recipe_are_what_they_say():
    x = torch.randn(2, 3, 32, 32)
    moved = short({"parts": {"shifted": True}}).stem[0](x)
    assert moved.shape == (2, 15, 32, 32)
    torch.testing.assert_close(moved[:, 3:6, 2:, 2:], x[:, :, :-2, :-2])
    torch.testing.assert_close(moved[:, 12:, :-2, :-2], x[:, :, 2:, 2:])
    conv = short({"parts": {"dirac": True}}).stem[2].conv
    y = torch.randn(1, 48, 8, 8)
    torch.testing.assert_close(conv(y), y)
    model, plain = short({"parts": {"own_scale": True}}).eval(), short({}).eval()
    attention, usual = model.global_layers[0].block.attn, plain.global_layers[0].block.attn
    usual.load_state_dict(attention.state_dict(), strict=False)
    tokens = torch.randn(2, 4, 96)
    attention.log_scale.data.fill_(0.5)
    q, k, v = usual.qkv(tokens).reshape(2, 4, 3, 4, 24).permute(2, 0, 3, 1, 4)
    weights = (q @ k.transpose(2, 3) * 24**-0.5 * torch.tensor(0.5).exp()).exp() * (1 - torch.eye(4))
    slow = usual.proj((weights / weights.sum(-1, keepdim=True) @ v).transpose(1, 2).reshape(2, 4, 96))
    torch.testing.assert_close(attention(tokens), slow, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(attention.super_only(tokens), slow[:, :1], rtol=1e-4, atol=1e-5)


def test_whitened_patches_have_independent_components_of_variance_one():
    measured = torch.as_tensor(np.loadtxt(whitening.PATCHES, delimiter=","))
    drawn = torch.distributions.MultivariateNormal(torch.zeros(12).double(), measured).sample((100_000,))
    conv = whitening.Whitening(pad=0)[1]
    out = conv(drawn.float().reshape(-1, 3, 2, 2))[:, :, 0, 0]
    large = torch.linalg.eigvalsh(measured).flip(0) > 20 * whitening.EPS
    torch.testing.assert_close(
        torch.cov(out[:, :12].T)[large][:, large], torch.eye(int(large.sum())), atol=0.06, rtol=0
    )
    torch.testing.assert_close(out[:, 12:], -out[:, :12], atol=1e-4, rtol=1e-4)
    assert [n for n, p in whitening.Whitening().named_parameters() if p.requires_grad] == ["1.bias"]


def test_small_steps_see_half_the_size_and_then_no_longer():
    model = short({"parts": {"small_steps": 2}})
    sizes = []
    model.stem.register_forward_pre_hook(lambda module, args: sizes.append(args[0].shape[-1]))
    x = torch.randn(2, 3, 32, 32)
    model.eval()(x)
    for _ in range(3):
        model.train()(x)
    assert sizes == [32, 16, 16, 32]


def test_geometries_have_equal_parameters():
    sizes = [
        sum(
            p.numel()
            for n, p in make(QUEUE["base"] | changes).named_parameters()
            if not n.startswith(("stem", "windows"))
        )
        for changes in QUEUE["groups"]["geometry"]["arms"].values()
    ]
    assert max(sizes) < 1.06 * min(sizes)


def test_parts_are_what_they_say():
    base = QUEUE["base"]
    assert not any(isinstance(m, nn.BatchNorm2d) for m in make(base | {"parts": {"stem_norm": "layer"}}).modules())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in make(base | {"parts": {"stem_norm": "none"}}).modules())
    shared = make(base | {"parts": {"shared": True}}).windows.super_tokens
    assert shared(4, 4).shape == (1, 64, 4, 4) and shared(4, 4).flatten(2).std(2).max() == 0
    patchify = make(base | {"parts": {"patchify": True}}).stem
    assert patchify(torch.randn(1, 3, 32, 32)).shape == (1, 64, 16, 16)
    assert make(base | {"parts": {"positions": "none"}}).windows.positions(16, 16) == 0
    with pytest.raises(ValueError, match="no sharing"):
        make(base | {"parts": {"sharing": True}})


def test_without_positions_a_window_does_not_know_the_order_of_its_patches():
    patches = torch.randn(1, 64, 8, 8)
    windows = patches.reshape(1, 64, 2, 4, 2, 4).transpose(3, 4).flatten(4)  # [1, 64, 2, 2, 16]
    shuffled = windows[..., torch.randperm(16)].unflatten(4, (4, 4)).transpose(3, 4).reshape(1, 64, 8, 8)
    for positions, same in (("none", True), ("grid", False), ("relative", False)):
        model = make(QUEUE["base"] | {"mixer": "none", "parts": {"positions": positions}}).eval()
        answers = []
        for layer in model.local_layers[:2]:  # a relative bias reaches the Super token through the patches only
            nn.init.normal_(layer.block.attn.qkv.weight)  # so that attention is far from even
            if positions == "relative":
                nn.init.normal_(layer.block.attn.bias.relative_position_bias_table)
        for image in (patches, shuffled):
            tokens, _, grid = model.windows(image)
            for layer in model.local_layers[:2]:
                tokens = layer(tokens, grid)
            answers.append(tokens[:, :, 0])
        assert torch.allclose(*answers, atol=1e-4) == same


def test_what_is_kept_above_reaches_the_global_layers_only():
    model = make(QUEUE["base"] | {"parts": {"hand_back": False}}).eval()
    seen = []
    model.global_layers[0].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    x = torch.randn(2, 3, 32, 32)
    model(x)
    tokens, mask, grid = model.windows(model.stem(x))
    updates = 0
    for layer in model.local_layers:
        tokens = layer.block(tokens)
        updates = updates + layer.mixer(tokens[:, :, 0], grid)
    torch.testing.assert_close(seen[0], tokens[:, :, 0] + updates, rtol=1e-4, atol=1e-5)


def row(args, value, seed):
    return {
        "model_args": json.dumps(QUEUE["base"] | args, sort_keys=True), "seed": str(seed), "val_top1": str(value),
        "parameters": "600000", "mmacs": "30.0", "images_per_second": "200", "minutes": "10", "images": "108000",
        "environment": json.dumps({"cpu": "a"}),
        "recipe": json.dumps(QUEUE["recipe"], sort_keys=True),
    }  # fmt: skip


def test_the_page_calls_ties_ties(tmp_path, monkeypatch):
    rows = [row({}, 0.60, 0), row({}, 0.62, 1)]
    rows += [row({"mixer": "none"}, 0.605, 0), row({"mixer": "none"}, 0.61, 1)]
    rows += [row({"mixer": "attention"}, 0.55, 0), row({"mixer": "attention"}, 0.56, 1)]
    found = pages.results(QUEUE, rows, [])["mixer"]
    found["none"]["mmacs"] = 29.0
    assert pages.verdicts(found) == {"conv": "best", "none": "tie, cheapest of these", "attention": "worse"}
    assert pages.verdicts({}) == {}


def test_the_page_compares_arms_on_the_seeds_that_both_have(tmp_path, monkeypatch):
    rows = [row({}, value, seed) for seed, value in enumerate((0.695, 0.705, 0.73, 0.68))]
    rows += [row({"mixer": "none"}, value, seed) for seed, value in enumerate((0.71, 0.72))]
    found = pages.results(QUEUE, rows, [])["mixer"]
    assert pages.verdicts(found) == {"conv": "worse", "none": "best"}  # its other two seeds would make it a tie
    rows += [row({"mixer": "attention"}, 0.80, 0)]
    assert pages.verdicts(pages.results(QUEUE, rows, [])["mixer"]) == {"conv": "worse", "none": "best", "attention": ""}
    rows = [row({}, 0.60, 0), row({"mixer": "none"}, 0.605, 0)]
    assert set(pages.verdicts(pages.results(QUEUE, rows, [])["mixer"]).values()) == {""}


def test_the_speed_side_by_side_stands_for_that_of_the_runs(tmp_path):
    kept = row({}, 0.6, 0) | {"curve": "[[5, 0.4], [10, 0.6]]"}  # of which evaluations take one minute
    speed = [{"group": "mixer", "arm": "conv", "mode": mode, "images_per_second": "300"} for mode in ("train", "other")]
    slow, fast = (pages.results(QUEUE, [kept], s)["mixer"]["conv"] for s in ([], speed))
    assert (slow["rate"], slow["minutes"]) == (200, 10) and (fast["rate"], fast["minutes"]) == (300, 6)
    assert fast["curves"] == [[[3, 0.4], [6, 0.6]]]
    assert fast["petaflops"] == slow["petaflops"] == pytest.approx(6 * 30e6 * 108_000 / 1e15)
    other = pages.results(QUEUE, [kept], [speed[0] | {"arm": "another"}])["mixer"]
    about = QUEUE["groups"]["mixer"]
    tables = ["\n".join(pages.section("mixer", about, arms)) for arms in ({"conv": slow}, {"conv": fast}, other)]
    assert ["images/s" in table for table in tables] == [True, True, False]


def test_the_page_says_what_views_add(tmp_path):
    rows = [
        {"arm": "a", "seed": seed, "images": "500", "none": none, "flip": flip, "shift": "0.8"}
        for seed, none, flip in (("0", "0.70", "0.72"), ("1", "0.71", "0.72"), ("", "0.90", "0.91"))
    ]
    text = "\n".join(pages.views(rows))
    assert "mean of 2 runs" in text and "| 72.00 % | +1.50 (+1.00 to +2.00) | 91.00 % |" in text
    assert pages.views([]) == []


def test_rows_of_another_recipe_do_not_count():
    old = row({}, 0.6, 0) | {"recipe": "{}"}
    assert valid(QUEUE, [old, row({}, 0.6, 1)]) == [row({}, 0.6, 1)]


def test_the_page_says_what_has_not_been_run(tmp_path, monkeypatch):
    (tmp_path / "figures").mkdir()
    monkeypatch.setattr(common, "DOCS", tmp_path)
    monkeypatch.setattr(common, "RESULTS", tmp_path)
    pages.write_page("ablations")
    assert (tmp_path / "ablations.md").read_text().count("not run yet") == len(arms())


def run_the_queue(tmp_path, monkeypatch, queue):
    """Runs it twice, and returns its rows by arm and the folders of its runs."""
    (tmp_path / "tried.yaml").write_text(yaml.safe_dump(queue))
    monkeypatch.setattr("studies.queue.QUEUES", tmp_path)
    monkeypatch.setattr(common, "RESULTS", tmp_path / "results")
    for _ in range(2):
        train.main(["tried", "--data", str(tmp_path / "data"), "--work", str(tmp_path / "work")])
    rows = common.read_rows(tmp_path / "results" / "tried" / "runs.csv")
    assert valid(queue, rows) == rows
    assert str(tmp_path) not in json.dumps(rows)
    found = {row["arm"]: row for row in rows}
    assert len(found) == len(rows)
    return found, {arm: next((tmp_path / "work").glob(f"*-{arm}-0-*")) for arm in found}


def small_queue(groups):
    queue = QUEUE | {"seeds": [0], "groups": groups}
    queue["recipe"] = QUEUE["recipe"] | {"epochs": 1, "batch_size": 16, "eval_epochs": 1}
    queue["base"] = QUEUE["base"] | {"width": 16, "local_layers": 2, "global_layers": 1}
    return queue


def test_the_queue_runs_each_arm_once_and_sees_no_test_set(tmp_path, monkeypatch):
    for split in ("train", "test"):
        make_folder(tmp_path / "data" / "cifar10" / split, per_class=20)
    queue = small_queue({"one": {"question": "?", "arms": {"a": {}, "b": {}}}})
    rows, runs = run_the_queue(tmp_path, monkeypatch, queue)
    assert list(rows) == ["a"] and 0 <= float(rows["a"]["val_top1"]) <= 1
    evaluation = json.loads((runs["a"] / "evaluation.json").read_text())
    assert "validation" in evaluation and "test" not in evaluation


def test_an_arm_that_another_process_has_is_left_to_it(tmp_path, monkeypatch):
    make_folder(tmp_path / "data" / "cifar10" / "train", per_class=20)
    queue = small_queue({"one": {"question": "?", "arms": {"a": {}, "b": {"width": 32}}}})
    taken = next(folder_of(job, queue) for job in jobs(queue) if job["arm"] == "a")
    (tmp_path / "work").mkdir()
    with train.claimed(tmp_path / "work", taken) as ours:
        assert ours
        rows, _ = run_the_queue(tmp_path, monkeypatch, queue)
    assert list(rows) == ["b"] and not (tmp_path / "work" / taken).exists()
    with train.claimed(tmp_path / "work", taken) as ours:
        assert ours


def test_a_group_has_its_own_data_recipe_and_base_and_is_tested_on_what_there_is(tmp_path, monkeypatch):
    for name in ("cifar10/train", "cifar10/test", "flowers/train", "flowers/val"):
        make_folder(
            tmp_path / "data" / name, per_class=20, classes=("a", "b") if "flowers" in name else ("a", "b", "c")
        )
    own = {"question": "?", "data": "flowers", "recipe": {"epochs": 2, "eval_epochs": 1}, "base": {"model": "stt_nano"}}
    groups = {
        "one": {"question": "?", "arms": {"here": {}}},
        "two": own | {"arms": {"there": {"width": 24, "heads": 2}}},
    }
    rows, runs = run_the_queue(tmp_path, monkeypatch, small_queue(groups) | {"test": True})
    recipes = {arm: yaml.safe_load((run / "recipe.yaml").read_text()) for arm, run in runs.items()}
    assert recipes["here"]["epochs"] == 1 and recipes["there"]["epochs"] == 2
    assert recipes["there"]["model"] == "stt_nano" and recipes["there"]["model_args"]["width"] == 24
    figures = {arm: json.loads((run / "evaluation.json").read_text()) for arm, run in runs.items()}
    assert figures["here"]["test"]["images"] == 60 and figures["there"]["test"]["images"] == 40
    for arm, row in rows.items():  # of one model, the best
        assert float(row["val_top1"]) == figures[arm]["validation"]["top1"]
        assert float(row["test_top1"]) == figures[arm]["test"]["top1"]


def test_an_arm_that_was_changed_is_not_gone_on_with():
    job = {"group": "g", "arm": "a", "seed": 0, "model_args": '{"width": 16}'}
    other, recipe = job | {"model_args": '{"width": 32}'}, QUEUE | {"recipe": QUEUE["recipe"] | {"epochs": 4}}
    names = {folder_of(job, QUEUE), folder_of(other, QUEUE), folder_of(job, recipe)}
    assert len(names) == 3


def is_in(tensor, tensors):
    return any(tensor is other for other in tensors)


@pytest.fixture(scope="module")
def peers(tmp_path_factory):
    folder_of_models = tmp_path_factory.mktemp("models")
    queue = open_queue("peers")

    def size(about, changes):
        args = json.loads(arguments(queue, about, changes))
        side = (queue["recipe"] | args.pop("recipe", {}))["img_size"]
        args.pop("data", None)
        name = args.pop("model", queue["recipe"]["model"])
        classes = [str(i) for i in range(5 if "data" in about else 10)]
        model = build(Recipe(model=name, model_args=args, img_size=side), len(classes))
        assert model(torch.randn(2, 3, side, side)).shape == (2, len(classes))
        if not name.startswith("stt_"):  # a run would end in an error
            config = resolve_data_config({"input_size": (3, side, side)}, model=model)
            save_model(TrainedModel(model, classes, config, ModelCard(), folder_of_models / name))
        muon = make_optimizer(model, Recipe(lr=0.1), torch.device("cpu"))
        ends = [model.get_submodule(model.pretrained_cfg[end]).weight for end in ("first_conv", "classifier")]
        assert all(group["use_fallback"] for group in muon.param_groups for p in group["params"] if is_in(p, ends))
        return sum(p.numel() for p in model.parameters())

    return {
        group: {arm: size(about, changes) for arm, changes in about["arms"].items()}
        for group, about in queue["groups"].items()
    }


def test_peers_have_the_parameters_that_their_group_is_named_after(peers):
    for group in ("half the parameters, twice the speed", "flowers, half the parameters"):
        assert peers[group]["STT"] <= peers[group]["Swin"] / 2
    for group in ("equal parameters", "flowers, equal parameters"):
        assert max(peers[group].values()) < 1.2 * min(peers[group].values())


def test_speeds_are_those_of_the_arms_own_steps(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "ROUNDS", 2)
    monkeypatch.setattr(speed, "SECONDS", 0.0)
    seen = []
    real = speed.recipe_step
    monkeypatch.setattr(speed, "recipe_step", lambda *args: seen.append(args) or real(*args))
    small = {"width": 32, "heads": 2, "local_layers": 1, "global_layers": 1}
    arms = {"a": {}, "b": {"mixer": "none", "recipe": {"opt": "adamw", "lr": 0.001}}}
    queue = QUEUE | {"base": QUEUE["base"] | small, "groups": {"two": {"arms": arms}}}
    queue["recipe"] = QUEUE["recipe"] | {"batch_size": 4, "precision": "fp32"}
    rows = speed.measured(queue, "two")
    assert [(row["arm"], row["mode"]) for row in rows] == [(a, m) for m in ("inference", "train") for a in "ab"]
    assert [recipe.opt for _, recipe, *_ in seen] == ["muon", "adamw"]
    assert all(m.weight.is_contiguous(memory_format=torch.channels_last) for m in stem_of(seen[1][0]))
    for row in rows:
        seconds = json.loads(row["seconds"])
        assert len(seconds) == 2 and row["images_per_second"] == pytest.approx(4 / np.median(seconds), rel=1e-2)
    assert [row["ratio"] for row in rows if row["arm"] == "a"] == [1, 1]


def stem_of(model):
    return [m for m in model.stem.modules() if isinstance(m, nn.Conv2d)]


@pytest.mark.parametrize("name", names())
def test_no_argument_of_an_arm_is_null_as_timm_drops_those(name):
    queue = open_queue(name)
    for about in queue["groups"].values():
        assert not any("null" in arguments(queue, about, changes) for changes in about["arms"].values())
