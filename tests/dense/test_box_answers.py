"""Answers of a detector as rows, lines, JSON and pictures."""

import json

import numpy as np
from PIL import Image

from supertokenvit.dense.box_answers import BoxPrediction
from tests.dense.test_box_figures import answer

FOUND = answer((1, 0.9, 1.04, 2, 30, 40.26), (0, 0.6, 5, 5, 50, 40), (1, 0.5, 8, 9, 20, 30), (0, 0.2, 0, 0, 9, 9))


def test_answers_above_the_threshold_are_rows():
    boxes = BoxPrediction.of("a.png", FOUND, ["cat", "dog"], 0.5)
    assert [(b.label, round(b.score, 3)) for b in boxes.boxes] == [("dog", 0.9), ("cat", 0.6), ("dog", 0.5)]
    assert boxes.line(8) == "a.png     2 dog, 1 cat"
    assert json.loads(json.dumps(boxes.as_dict())) == {
        "file": "a.png", "error": None,
        "boxes": [{"label": "dog", "score": boxes.boxes[0].score, "box": [1.0, 2.0, 30.0, 40.3]},
                  {"label": "cat", "score": boxes.boxes[1].score, "box": [5.0, 5.0, 50.0, 40.0]},
                  {"label": "dog", "score": boxes.boxes[2].score, "box": [8.0, 9.0, 20.0, 30.0]}],
    }  # fmt: skip
    assert BoxPrediction.of("a.png", FOUND, ["cat", "dog"], 0.95).line(0) == "a.png  nothing"


def test_answers_that_are_no_numbers_are_errors():
    broken = BoxPrediction.of("a.png", answer((0, float("nan"), 0, 0, 9, 9)), ["cat"], 0.5)
    assert broken.error == "the network's answer is no number" and broken.boxes == []


def test_the_photograph_is_painted_in_its_own_size():
    photograph = Image.new("RGB", (200, 100), "white")
    (painted,) = BoxPrediction.of("a.png", FOUND, ["cat", "dog"], 0.5).pictures(photograph).values()
    assert painted.size == (200, 100) and np.asarray(painted)[:, 60:].min() == 255 and np.asarray(painted).min() < 200
    (same,) = BoxPrediction.of("a.png", FOUND, ["cat", "dog"], 0.95).pictures(photograph).values()
    assert np.array_equal(np.asarray(same), np.asarray(photograph))
