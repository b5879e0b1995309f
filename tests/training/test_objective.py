"""The summed loss, divided by its weight, is torch's mean."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from supertokenvit.data.sources import Source
from supertokenvit.training.objective import Objective
from supertokenvit.training.recipe import Recipe, RecipeError
from supertokenvit.training.setup import balanced_sampling, class_weights

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0], [1.0, 1.0, 1.5], [-2.0, 0.0, 4.0]])
HARD = torch.tensor([0, 2, 2, 1])
SOFT = torch.tensor([[0.7, 0.3, 0.0], [0.0, 0.0, 1.0], [0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
BITS = torch.tensor([[1.0, 0.0, 1.0], [0.0, 0.0, 0.0], [1.0, 1.0, 1.0], [0.0, 1.0, 0.0]])
WEIGHTS = torch.tensor([0.5, 2.0, 0.5])


class Labels(Source):
    """Only the labels of a data set."""

    def __init__(self, targets, classes):
        self.targets, self.classes = np.array(targets), classes

    def name(self, i):
        return str(i)

    def read(self, i):
        raise NotImplementedError


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
@pytest.mark.parametrize("targets", [HARD, SOFT], ids=["hard", "soft"])
def test_one_label_an_image(weights, smoothing, targets):
    objective = Objective(False, weights, smoothing)
    expected = F.cross_entropy(LOGITS, targets, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(objective.loss(LOGITS, targets) / objective.weight(targets), expected)
    halves = sum(objective.loss(x, y) for x, y in zip(LOGITS.split(2), targets.split(2), strict=True))
    torch.testing.assert_close(halves, objective.loss(LOGITS, targets))


def test_smoothing_is_the_plain_formula():
    spread = F.one_hot(HARD, 3) * 0.8 + 0.2 / 3
    expected = -(spread * LOGITS.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(Objective(False, None, 0.2).loss(LOGITS, HARD) / 4, expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])
def test_several_labels_an_image(weights):
    objective = Objective(True, weights, 0.1)
    p, w = LOGITS.sigmoid(), 1 if weights is None else weights
    expected = -(w * BITS * p.log() + (1 - BITS) * (1 - p).log()).mean()
    torch.testing.assert_close(objective.loss(LOGITS, BITS) / objective.weight(BITS), expected)


def test_what_counts_as_right():
    one = Objective(False, None, 0.0)
    assert one.hits(LOGITS, HARD) == 2 and one.hits(LOGITS, SOFT) == 1  # of a mixture its larger part
    assert Objective(True, None, 0.0).hits(LOGITS, BITS) == pytest.approx(1 + 1 / 3 + 1 + 1 / 3)


def test_weights_of_classes():
    source, device = Labels([0] * 6 + [1] * 3 + [2], ["a", "b", "c"]), torch.device("cpu")
    auto = class_weights(Recipe(class_weights="auto"), source, device)
    counts = torch.tensor([6.0, 3.0, 1.0])
    torch.testing.assert_close(auto * counts, torch.full((3,), 10 / 3))  # each class has the same share
    named = class_weights(Recipe(class_weights={"c": 4.0}), source, device)
    assert named.tolist() == [1, 1, 4] and class_weights(Recipe(), source, device) is None
    with pytest.raises(RecipeError, match="no class 'z'"):
        class_weights(Recipe(class_weights={"z": 1.0}), source, device)
    shares = balanced_sampling(source)
    assert [shares[source.targets == k].sum() for k in range(3)] == pytest.approx([1, 1, 1])
