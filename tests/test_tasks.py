"""The summed loss, divided by its weight, is torch's mean."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from supertokenvit.data.sources import Source
from supertokenvit.tasks import Classification, FiguresError, MultiLabel
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


def test_the_score_is_the_figure_that_bears_its_name():
    one = Classification().figures(LOGITS, HARD, ["a", "b", "c"])
    assert Classification().score_of(one) == one.top1 == 0.5 and one.mean_average_precision is None
    several = MultiLabel().figures(LOGITS, BITS, ["a", "b", "c"])
    found = [several.per_class[name].average_precision for name in "abc"]
    # by hand: the precision at the rank of each image with the label, in the order of its logits
    assert found == pytest.approx([1.0, (1 + 2 / 3) / 2, (1 / 2 + 2 / 3) / 2], abs=1e-12)
    assert MultiLabel().score_of(several) == several.mean_average_precision and several.top1 is None


def average_precision(scores, labels):
    """Mean over the images with the label of the precision among those with scores as large or larger."""
    above = [labels[scores >= score].mean() for score, label in zip(scores, labels, strict=True) if label]
    return float(np.mean(above))


@pytest.mark.parametrize("scale", [1.0, 40.0, 1e4], ids="scale {}".format)
@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_ranks_answers_that_are_as_sure_as_can_be(scale, ties):
    """In float32 the sigmoid of 17 is 1, and so is that of all larger logits: 0.265 instead of 0.370."""
    rng = np.random.default_rng(0)
    logits, labels = rng.normal(1, 1, (200, 4)) * scale, rng.random((200, 4)) < [0.5, 0.2, 0.1, 0.0]
    logits = (logits // (scale / 2) if ties else logits).astype(np.float32)
    found = MultiLabel().figures(torch.tensor(logits), torch.tensor(labels).float(), list("abcd"))
    expected = [average_precision(logits[:, k], labels[:, k]) for k in range(3)]
    assert [found.per_class[c].average_precision for c in "abc"] == pytest.approx(expected, abs=1e-6)
    assert found.mean_average_precision == pytest.approx(np.mean(expected), abs=1e-6)
    assert found.per_class["d"].average_precision is None and found.missing_classes == ["d"]


def test_f1_is_the_mean_over_the_labels_that_are_known():
    from sklearn.metrics import f1_score, precision_score, recall_score

    rng = np.random.default_rng(1)
    logits, labels = rng.normal(0, 1, (60, 5)), rng.random((60, 5)) < [0.5, 0.3, 0.2, 0.1, 0.0]
    logits[:, 3] = -1  # never answered
    found = MultiLabel().figures(torch.tensor(logits).float(), torch.tensor(labels).float(), list("abcde"))
    known = [f1_score(labels[:, k], logits[:, k] > 0, zero_division=0) for k in range(4)]
    assert found.f1 == pytest.approx(np.mean(known), abs=1e-6)
    for k, name in enumerate("abc"):
        figures, answered = found.per_class[name], logits[:, k] > 0
        assert figures.precision == pytest.approx(precision_score(labels[:, k], answered), abs=1e-6)
        assert figures.recall == pytest.approx(recall_score(labels[:, k], answered), abs=1e-6)
    assert (found.per_class["d"].precision, found.per_class["d"].f1) == (None, 0.0)
    assert (found.per_class["e"].recall, found.per_class["e"].f1) == (None, None)


@pytest.mark.parametrize("K", [2, 7, 3000])
def test_figures_of_classes_are_those_of_scikit_learn(K):
    from sklearn.metrics import accuracy_score, confusion_matrix, log_loss, precision_recall_fscore_support

    rng = np.random.default_rng(K)
    targets = rng.integers(0, K, 400)
    logits = rng.normal(0, 1, (400, K)).astype(np.float32)
    logits[np.arange(400), targets] += 2
    names = [str(k) for k in range(K)]
    found = Classification().figures(torch.tensor(logits), torch.tensor(targets), names)
    said = logits.argmax(1)
    assert found.top1 == pytest.approx(accuracy_score(targets, said), abs=1e-6)
    p = np.exp(logits.astype(np.float64))
    assert found.loss == pytest.approx(log_loss(targets, p / p.sum(1, keepdims=True), labels=range(K)), abs=1e-6)
    assert (found.confusion_matrix() == confusion_matrix(targets, said, labels=range(K))).all()
    assert len(found.confusion) <= 400
    expected = precision_recall_fscore_support(targets, said, labels=range(K), zero_division=np.nan)
    for k, name in enumerate(names):
        figures = found.per_class[name]
        assert figures.images == (targets == k).sum()
        for value, wanted in ((figures.precision, expected[0][k]), (figures.recall, expected[1][k])):
            assert (value is None and np.isnan(wanted)) or value == pytest.approx(wanted, abs=1e-6)


@pytest.mark.parametrize("task", [Classification(), MultiLabel()], ids=lambda task: task.name)
@pytest.mark.parametrize("odd", [float("nan"), float("inf")])
def test_answers_that_are_no_numbers_are_no_figures(task, odd):
    logits = LOGITS.clone()
    logits[1, 2] = odd
    targets = HARD if task.name == "classification" else BITS
    with pytest.raises(FiguresError, match="1 of 4 answers are no numbers"):
        task.figures(logits, targets, ["a", "b", "c"])
    with pytest.raises(FiguresError, match="no image"):
        task.figures(logits[:0], targets[:0], ["a", "b", "c"])


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5])
def test_the_temperature_finds_the_one_with_which_labels_were_drawn(true):
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=generator) * 3
    targets = torch.multinomial((logits / true).softmax(1), 1, generator=generator)[:, 0]
    found = Classification().temperature(logits, targets)
    assert found == pytest.approx(true, rel=0.08)
    error = Classification().figures(logits / found, targets, list("abcde")).calibration_error
    before = Classification().figures(logits, targets, list("abcde")).calibration_error
    assert error < 0.03 and (true == 1.0 or error < before)


def test_a_few_right_answers_do_not_ask_for_certainty():
    logits = torch.eye(3)[:2] * 2
    assert 0.2 < Classification().temperature(logits, torch.tensor([0, 1])) < 1.0
    assert MultiLabel().temperature(LOGITS, BITS) == 1.0
