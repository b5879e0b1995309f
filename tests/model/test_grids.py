"""Learned grids resized to other image sizes are kept, and never answer for weights that have changed."""

import copy

import torch
from timm.utils import ModelEmaV3

from .examples import PADDED, images, tiny


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


@torch.no_grad()
def test_grids_are_not_stale_when_new_weights_take_the_memory_of_old_ones():
    # a rounding to half precision and back used to go unseen in one of four cases
    for size in [(24, 24), (16, 24), PADDED] * 10:
        model, x = tiny(img_size=32), images(*size)
        model(x)
        model.half().float()
        expected = copy.deepcopy(model).train().eval()(x)
        assert torch.equal(model(x), expected)
    for factor in range(2, 10):
        state = {name: w * factor if name.startswith("windows") else w for name, w in tiny().state_dict().items()}
        model.set_input_size(32)
        model.load_state_dict(tiny(img_size=32).state_dict())
        model.set_input_size(16)
        model.load_state_dict(state, assign=True)
        del state
        grid = model.windows.positions
        assert torch.equal(grid(3, 9), grid.resized(3, 9))


@torch.no_grad()
def test_grids_of_an_averaged_model_follow_it():
    model, x = tiny(), images(*PADDED)
    average = ModelEmaV3(model, decay=0.5)
    before = average.module.eval()(x)
    for p in model.parameters():
        p.add_(0.3)
    average.update(model)
    after = average.module(x)
    assert not torch.allclose(after, before)
    assert torch.equal(copy.deepcopy(average.module).train().eval()(x), after)


def test_inference_mode_leaves_a_model_that_works_everywhere():
    x = images(*PADDED)
    with torch.inference_mode():
        model = tiny()  # its weights know no versions
        expected = model(x)
        torch.testing.assert_close(model(x), expected)
    model = tiny()
    with torch.inference_mode():
        torch.testing.assert_close(model(x), expected)
    with torch.no_grad():
        torch.testing.assert_close(copy.deepcopy(model)(x), expected)
        torch.testing.assert_close(model(x), expected)
    model(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())


@torch.no_grad()
def test_images_of_ever_new_sizes_do_not_fill_the_memory():
    grid = tiny().windows.positions
    for side in range(5, 60):
        grid(side, side)
        assert grid(side, side) is grid(side, side)
        assert len(grid._kept) <= 2 + 16
