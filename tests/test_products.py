"""Products as convolutions: the same answers, and only where it was measured that they come faster."""

import pytest
import timm
import torch
import torch.nn.functional as F

from supertokenvit import prediction, products
from supertokenvit.products import LinearAsConvolution, as_convolution, faster, fits

CASES = [((5, 8), True), ((2, 3, 8), False), ((2, 3, 4, 8), True), ((1, 8), True), ((7, 1, 8), False)]


@pytest.mark.parametrize(("shape", "bias"), CASES)
def test_a_product_as_a_convolution_has_the_same_values_and_gradients(shape, bias):
    torch.manual_seed(0)
    leaves = [torch.randn(shape, dtype=torch.float64), torch.randn(6, 8, dtype=torch.float64)]
    leaves += [torch.randn(6, dtype=torch.float64)] if bias else []
    results = []
    for function in (F.linear, as_convolution):
        given = [leaf.clone().requires_grad_() for leaf in leaves]
        out = function(*given)
        results.append((out, *torch.autograd.grad((out * torch.arange(6)).sum(), given)))
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected)


def test_rows_that_do_not_lie_side_by_side():
    x, weight = torch.randn(8, 5, 3).transpose(0, 2), torch.randn(6, 8)
    torch.testing.assert_close(as_convolution(x, weight), F.linear(x, weight))
    torch.testing.assert_close(as_convolution(x[:, ::2], weight), F.linear(x[:, ::2], weight))


@pytest.mark.parametrize("name", ["stt_nano", "vit_tiny_patch16_224", "convnext_atto"])
def test_a_whole_network_answers_the_same(name, monkeypatch):
    torch.manual_seed(0)
    model, images = timm.create_model(name, num_classes=5).eval(), torch.randn(2, 3, 224, 224)
    asked = []
    monkeypatch.setattr(products, "as_convolution", lambda *a, **k: asked.append(1) or as_convolution(*a, **k))
    with torch.inference_mode():
        expected = model(images)
        assert not asked
        with LinearAsConvolution():
            found = model(images)
    linear = sum(isinstance(module, torch.nn.Linear) for module in model.modules())
    assert len(asked) >= linear  # each of them, and what is written out in functions
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def test_what_would_not_gain_stays_as_it_is():
    weight = torch.randn(4, 8)
    assert fits(torch.randn(3, 8), weight)
    assert not fits(torch.randn(8), weight) and not fits(torch.randn(0, 8), weight)
    assert not fits(torch.randn(3, 8).bfloat16(), weight.bfloat16())
    assert not fits(torch.randn(3, 8, device="meta"), weight)


@pytest.mark.parametrize("gain", [0.9, 1.05, 1.5])
def test_it_is_taken_where_it_was_measured_to_pay(gain, monkeypatch):
    monkeypatch.setattr(products, "gain_of_convolution", lambda: gain)
    products.convolution_pays.cache_clear()
    try:
        predictor = prediction.load("stt_micro.cifar10", device="cpu")
        assert predictor.network.by_convolution is (gain > products.LEAST_GAIN)
        assert not prediction.load("stt_micro.cifar10", device="cpu", precision="bf16").network.by_convolution
    finally:
        products.convolution_pays.cache_clear()


def test_the_measure_is_the_ratio_of_medians(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(products.time, "perf_counter", lambda: clock[0])

    def take(seconds):
        times = iter(seconds)
        return lambda: clock.__setitem__(0, clock[0] + next(times))

    assert faster(take([9, 3, 3, 8]), take([99, 2, 1, 1]), rounds=3) == 3.0
