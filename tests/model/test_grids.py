"""Learned grids are resized to every image size anew, so that they never answer for weights that have changed."""

import copy

import pytest
import torch
from timm.utils import ModelEmaV3

from .examples import PADDED, images, tiny


@pytest.mark.parametrize("name", ["positions", "super_tokens"])
def test_a_change_of_the_weights_is_seen_at_once_however_it_is_made(name):
    """Resized grids used to be kept, and a change through `data` left no trace."""
    model, x = tiny(), images(24, 24)
    weight = model.windows.get_submodule(name).weight
    with torch.no_grad():
        first = model(x)
        weight.data.mul_(3)
        changed = model(x)
        assert not torch.allclose(first, changed)
        state = {key: value.clone() for key, value in model.state_dict().items()}
        state[f"windows.{name}.weight"] /= 3
        model.load_state_dict(state)
        torch.testing.assert_close(model(x), first)
        assert model.double()(x.double()).dtype == torch.float64
    x.requires_grad_(True)
    model.float()(x).sum().backward()
    assert model.windows.get_submodule(name).weight.grad.any()


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.trace.*:FutureWarning")
@pytest.mark.parametrize("size", [(16, 16), (24, 24), PADDED], ids=str)
def test_a_trace_at_any_size_answers_as_the_model_does(size):
    model, x = tiny(), images(*size)
    with torch.no_grad():
        traced = torch.jit.trace(model, x)
        torch.testing.assert_close(traced(x + 1), model(x + 1))


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
