"""Maps of what spoke for a class: against slow rules written out, and by properties that must hold."""

import pytest
import torch
import torch.nn.functional as F

from supertokenvit.explaining import methods
from supertokenvit.explaining.methods import SUPER_TOKEN_METHODS as METHODS
from supertokenvit.explaining.methods import GatesHeld, composed_gradients, integrated_gradients, occlusion
from tests.model.examples import PADDED, images, tiny

SIZES = pytest.mark.parametrize("size", [(16, 16), (16, 24), PADDED, (3, 5)], ids=str)
TARGET = torch.tensor([2, 0])


def model(**changes):
    return tiny(class_layers=2, **changes)


@SIZES
@pytest.mark.parametrize("method", METHODS)
def test_every_method_gives_a_value_to_each_patch_and_window(method, size):
    network = model()
    found = METHODS[method](network, images(*size), TARGET)
    h, w = (-(-side // 4) for side in size)
    assert found.patches.shape == (2, h, w) and found.windows.shape == (2, -(-h // 2), -(-w // 2))
    assert torch.isfinite(found.patches).all() and torch.isfinite(found.windows).all()
    with torch.no_grad():
        torch.testing.assert_close(found.logits, network(images(*size)), rtol=1e-4, atol=1e-5)
    assert not any(parameter.grad is not None for parameter in network.parameters())


@SIZES
@pytest.mark.parametrize("method", METHODS)
def test_an_image_has_the_same_map_alone_and_in_a_batch(method, size):
    network, x = model(), images(*size)
    together = METHODS[method](network, x, TARGET)
    for i in range(2):
        alone = METHODS[method](network, x[i : i + 1], TARGET[i : i + 1])
        torch.testing.assert_close(alone.patches[0], together.patches[i], rtol=1e-3, atol=1e-6)
        torch.testing.assert_close(alone.windows[0], together.windows[i], rtol=1e-3, atol=1e-6)


def one_by_one(network, x, target):
    """Chefer's rule for one image, token after token, from matrices over all tokens of all windows at once."""
    with GatesHeld():
        logits, collect = network.forward_collect(x)
        names = [n for n in collect if n.endswith(".attention") and ".mixer" not in n]
        gradients = dict(zip(names, torch.autograd.grad(logits[0, target], [collect[n] for n in names]), strict=True))

    def mean(name):
        return (gradients[name][0] * collect[name][0]).mean(-3).clamp(min=0)

    windows, T = collect["local.0.attention"].shape[1], collect["local.0.attention"].shape[-1]
    all_tokens = torch.eye(windows * T)
    for i in range(len(network.local_layers)):
        layer = torch.block_diag(*mean(f"local.{i}.attention"))
        all_tokens = all_tokens + layer @ all_tokens
    super_tokens = all_tokens[::T]
    for i in range(len(network.global_layers)):
        super_tokens = super_tokens + mean(f"global.{i}.attention") @ super_tokens
    read = sum(mean(f"class.{i}.attention")[0] for i in range(len(network.class_layers))) @ super_tokens
    return read.reshape(windows, T)


@SIZES
def test_composed_gradients_are_the_rule_written_out(size):
    network, x = model(), images(*size, batch=1)
    grid, patches = (-(-size[0] // 8), -(-size[1] // 8)), (-(-size[0] // 4), -(-size[1] // 4))
    slow = one_by_one(network, x, 2)[:, 1:].reshape(*grid, 2, 2).transpose(1, 2).reshape(2 * grid[0], 2 * grid[1])
    fast = composed_gradients(network, x, torch.tensor([2])).patches[0]
    torch.testing.assert_close(fast, slow[: patches[0], : patches[1]].detach(), rtol=1e-4, atol=1e-7)


def test_gates_that_are_held_change_no_value_and_their_gradients_are_those_of_constants():
    x = torch.randn(5, 8, dtype=torch.float64, requires_grad=True)
    weight, bias = torch.randn(8, dtype=torch.float64), torch.randn(8, dtype=torch.float64)
    for approximate in ("none", "tanh"):
        with GatesHeld():
            held = F.gelu(x, approximate=approximate)
        torch.testing.assert_close(held, F.gelu(x, approximate=approximate))
        (gradient,) = torch.autograd.grad(held.sum(), x)
        torch.testing.assert_close(gradient, (held / x).detach())
    with GatesHeld():
        held = F.layer_norm(x, (8,), weight, bias, 1e-6)
    torch.testing.assert_close(held, F.layer_norm(x, (8,), weight, bias, 1e-6))
    (gradient,) = torch.autograd.grad((held * torch.arange(8)).sum(), x)
    scaled = weight * torch.arange(8) / (x.var(1, correction=0, keepdim=True) + 1e-6).sqrt()
    torch.testing.assert_close(gradient, (scaled - scaled.mean(1, keepdim=True)).detach())


def test_integrated_gradients_add_up_to_the_change_of_the_logit(monkeypatch):
    monkeypatch.setattr(methods, "STEPS", 200)
    network, x = model(), images(16, 24)
    found = integrated_gradients(network, x, TARGET)
    with torch.no_grad():
        change = methods.chosen(network(x) - network(torch.zeros_like(x)), TARGET)
    torch.testing.assert_close(found.patches.sum((1, 2)), change, rtol=1e-2, atol=1e-3)
    torch.testing.assert_close(found.windows.sum((1, 2)), found.patches.sum((1, 2)), rtol=1e-4, atol=1e-5)


@SIZES
def test_occlusion_is_the_answer_without_a_super_token(size):
    """Written out: the attention to that Super token is masked in every layer above."""
    network, x = model(), images(*size)
    found = occlusion(network, x, TARGET)
    with torch.no_grad():
        logits, collect = network.forward_collect(x)
        tokens = collect["local.1.super_tokens"]
        n = tokens.shape[1]
        for window in range(n):
            kept = tokens[:, [i for i in range(n) if i != window]] if n > 1 else tokens
            y = kept
            for layer in network.global_layers:
                y = layer.block(y)
            y = network.norm(y)
            token = network.class_token.expand(2, -1, -1)
            for layer in network.class_layers:
                token = layer(token, y)
            without = network.head(network.class_norm(token[:, 0]))
            fall = methods.chosen(logits - without, TARGET)
            torch.testing.assert_close(found.windows.flatten(1)[:, window], fall, rtol=1e-4, atol=1e-5)


def test_a_map_depends_on_the_class_and_on_the_weights():
    network, x = model(), images(16, 24)
    for method in set(METHODS) - {"attention"}:
        one = METHODS[method](network, x, torch.tensor([0, 0])).patches
        other = METHODS[method](network, x, torch.tensor([1, 1])).patches
        again = METHODS[method](model(seed=7), x, torch.tensor([0, 0])).patches
        for changed in (other, again):
            assert torch.nn.functional.cosine_similarity(one.flatten(1), changed.flatten(1)).abs().max() < 0.999, method


def test_composing_costs_less_than_four_forward_passes():
    """One forward and one backward pass, whatever the number of windows."""
    network, x = model(), images(16, 24)
    calls = []
    network.stem.register_forward_hook(lambda *_: calls.append("forward"))
    network.stem.register_full_backward_hook(lambda *_: calls.append("backward"))
    composed_gradients(network, x, TARGET)
    assert calls == ["forward"]  # and the backward pass ends at the first attention
