"""What evaluate prints and writes of a detector."""

import csv

import numpy as np
import torch
from PIL import Image

from supertokenvit.data.splits import read_splits
from supertokenvit.dense.box_pictures import colour_of, paint
from supertokenvit.dense.box_report import draw_worst, errors_of, surest, write_boxes
from tests.data.box_folders import some_boxes, write_voc
from tests.dense.test_box_figures import answer, truth


def test_errors_are_boxes_that_are_missed_and_answers_of_nothing():
    target = truth((0, 0, 0, 10, 10), (1, 20, 20, 30, 30), (0, 40, 40, 90, 90), crowd=[2])
    right = [(0, 0.9, 0, 0, 10, 10), (1, 0.8, 21, 20, 30, 30)]
    assert errors_of(answer(*right), target) == (0, 0)
    assert errors_of(answer(*right, (0, 0.7, 1, 0, 10, 10)), target) == (0, 1)  # found twice
    assert errors_of(answer((0, 0.9, 21, 20, 30, 30)), target) == (2, 1)  # of another class
    assert errors_of(answer((0, 0.9, 0, 0, 4, 10)), target) == (2, 1)  # overlaps too little
    assert errors_of(answer(*right, (0, 0.3, 42, 40, 90, 90), (0, 0.2, 40, 40, 90, 90)), target) == (0, 0)  # a crowd
    assert errors_of(answer(), target) == (2, 0) and errors_of(answer(*right), truth()) == (0, 2)
    assert surest(answer(*right), 0.85).labels.tolist() == [0]


def test_rows_name_file_class_score_and_edges(tmp_path):
    write_boxes(tmp_path / "rows.csv", [("a.png", answer((1, 0.5, 1, 2, 3, 4))), ("b.png", answer())], ["x", "y,z"])
    with open(tmp_path / "rows.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [{"file": "a.png", "label": "y,z", "score": "0.5000", "left": "1.0", "upper": "2.0",
                     "right": "3.0", "lower": "4.0"}]  # fmt: skip


def test_boxes_are_painted_where_they_are():
    image = torch.zeros(3, 200, 300, dtype=torch.uint8)
    painted = paint(image, answer((1, 0.5, 40, 50, 260, 170)), ["$a$", "b"])
    edge = tuple(int(colour_of(1)[n : n + 2], 16) for n in (1, 3, 5))
    assert tuple(painted[:, 100, 40].tolist()) == tuple(painted[:, 170, 200].tolist()) == edge
    assert painted[:, 100, 150].sum() == 0 and painted[:, 20].sum() == 0
    assert torch.equal(paint(image, truth(), ["a"]), image)


def test_the_worst_images_are_drawn_and_an_old_picture_goes_when_none_is_wrong(tmp_path):
    source = read_splits(write_voc(tmp_path / "data", {"train": some_boxes(4)})).splits["train"]
    truth_of = [source.target(i) for i in range(4)]
    right = [answer(*((k, 0.9, *box) for box, k in zip(t.boxes, t.labels, strict=True))) for t in truth_of]
    path = tmp_path / "worst.png"
    assert draw_worst(path, source, range(4), [answer(), *right[1:]], truth_of, source.classes, 0.5)
    with Image.open(path) as picture:
        assert picture.width > 300 and np.asarray(picture.convert("RGB")).std() > 10
    assert not draw_worst(path, source, range(4), right, truth_of, source.classes, 0.5) and not path.exists()
