"""The summed loss, divided by its weight, is torch's mean."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from supertokenvit.data.sources import Source
from supertokenvit.tasks import Classification, MultiLabel, task_of
from supertokenvit.training.assembly import balanced_sampling, class_weights
from supertokenvit.training.recipe import Recipe, RecipeError

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
    task = Classification(weights, smoothing)
    expected = F.cross_entropy(LOGITS, targets, weight=weights, label_smoothing=smoothing)
    torch.testing.assert_close(task.loss(LOGITS, targets) / task.weight(targets), expected)
    halves = sum(task.loss(x, y) for x, y in zip(LOGITS.split(2), targets.split(2), strict=True))
    torch.testing.assert_close(halves, task.loss(LOGITS, targets))


def test_smoothing_is_the_plain_formula():
    spread = F.one_hot(HARD, 3) * 0.8 + 0.2 / 3
    expected = -(spread * LOGITS.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(Classification(smoothing=0.2).loss(LOGITS, HARD) / 4, expected)


@pytest.mark.parametrize("weights", [None, WEIGHTS], ids=["", "weights"])
def test_several_labels_an_image(weights):
    task = MultiLabel(weights, 0.1)
    p, w = LOGITS.sigmoid(), 1 if weights is None else weights
    expected = -(w * BITS * p.log() + (1 - BITS) * (1 - p).log()).mean()
    torch.testing.assert_close(task.loss(LOGITS, BITS) / task.weight(BITS), expected)


def test_what_counts_as_right():
    one = Classification()
    assert one.hits(LOGITS, HARD) == 2 and one.hits(LOGITS, SOFT) == 1  # of a mixture its larger part
    assert MultiLabel().hits(LOGITS, BITS) == pytest.approx(1 + 1 / 3 + 1 + 1 / 3)


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


def test_the_labels_tell_the_task():
    assert task_of(HARD) is Classification and task_of(BITS) is MultiLabel


def test_the_score_is_the_figure_that_bears_its_name():
    one = Classification().figures(LOGITS, HARD, ["a", "b", "c"])
    assert Classification().score_of(one) == one.top1 == 0.5 and one.mean_average_precision is None
    several = MultiLabel().figures(LOGITS, BITS, ["a", "b", "c"])
    # by hand: ranks of the right labels in each column, precision at each
    assert several.per_class == pytest.approx({"a": 1.0, "b": 1.0, "c": (1 / 2 + 2 / 3) / 2}, abs=1e-6) or several
    assert MultiLabel().score_of(several) == several.mean_average_precision and several.top1 is None
