"""One update of the weights: what it refuses, it leaves as it was."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from supertokenvit.data.augmentation import seed_step
from supertokenvit.data.loading import TrainImages, epoch_order
from supertokenvit.tasks import Classification
from supertokenvit.training.step import NotFinite, TrainingStep


class Root(nn.Module):
    """A finite answer whose gradient is infinite where the weight is 0."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(3))

    def forward(self, images):
        return self.weight.abs().sqrt().expand(len(images), 3) * images.mean()


@pytest.mark.parametrize("clip_grad", [None, 1.0])
def test_an_infinite_gradient_of_a_finite_loss_leaves_the_weights_as_they_were(clip_grad):
    model = Root()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    step = TrainingStep(model, optimizer, Classification(), torch.device("cpu"), clip_grad=clip_grad)
    with pytest.raises(NotFinite, match="gradient is not finite"):
        step(torch.ones(2, 3, 4, 4), torch.tensor([0, 1]), lr=0.1)
    assert torch.equal(model.weight, torch.zeros(3)) and not optimizer.state
    assert model.weight.grad is None or not model.weight.grad.any()
    with torch.no_grad():
        model.weight.fill_(1.0)
    assert math.isfinite(step(torch.ones(2, 3, 4, 4), torch.tensor([0, 1]), lr=0.1).loss)
    assert torch.isfinite(model.weight).all() and not torch.equal(model.weight, torch.ones(3))


def test_without_a_limit_the_gradient_is_not_scaled():
    results = []
    for clip_grad in (None, 1e9):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
        optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
        step = TrainingStep(model, optimizer, Classification(), torch.device("cpu"), clip_grad=clip_grad)
        step(torch.randn(4, 3, 4, 4) * 100, torch.tensor([0, 1, 2, 0]), lr=1.0)
        results.append(model[1].weight.detach().clone())
    assert torch.equal(*results)


class Few:
    """Twenty images that nobody looks at."""

    targets, classes = np.zeros(200, dtype=np.int64), ["a", "b"]

    def __len__(self):
        return 200


def test_streams_that_are_meant_to_differ_do():
    """numpy takes [seed, 0] for seed: the mirrored half was every other image of the first epoch's order."""
    images = TrainImages(Few(), None, None, hflip="alternating", seed=5, memory=False)
    order = epoch_order(200, None, 5, 0)
    mirrored = images.half[order]
    for period in (order % 2, np.arange(200) % 2):
        assert 60 < (mirrored == period).sum() < 140
    drawn = []
    for seed, step, place in ((5, 0, 0), (5, 1, 0), (5, 0, 1), (0, 5, 0), (5, 0, 1 << 30)):
        seed_step(seed, step, place)
        drawn.append(torch.rand(4).tolist())
    assert len({tuple(row) for row in drawn}) == len(drawn)
