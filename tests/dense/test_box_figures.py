"""Figures of found boxes equal COCO's own program, and cases that can be worked out by hand."""

import contextlib
import io

import numpy as np
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from supertokenvit.data.boxes import Boxes
from supertokenvit.dense.box_figures import USUAL, Curve, best_threshold, box_figures
from supertokenvit.dense.detector import Found


def truth(*boxes, crowd=()):
    """Boxes of an image from (class number, left, top, right, bottom)."""
    values = np.array(boxes, dtype=np.float32).reshape(-1, 5)
    crowd = np.isin(np.arange(len(values)), crowd)
    return Boxes(values[:, 1:], values[:, 0].astype(np.int64), crowd)


def answer(*boxes):
    """What was found on an image, from (class number, score, left, top, right, bottom)."""
    values = torch.as_tensor(np.array(boxes, dtype=np.float32).reshape(-1, 6))
    return Found(values[:, 2:], values[:, 0].long(), values[:, 1])


def by_pycocotools(found, targets, classes):
    """mAP, AP50, AP75 and the AP of each class by COCO's program, fed with its own files."""
    data = {"info": {}, "images": [{"id": i} for i in range(len(targets))], "annotations": [],
            "categories": [{"id": k, "name": name} for k, name in enumerate(classes)]}  # fmt: skip
    for i, target in enumerate(targets):
        for box, label, crowd in zip(target.boxes, target.labels, target.crowd, strict=True):
            x, y, w, h = box[0], box[1], box[2] - box[0], box[3] - box[1]
            data["annotations"].append(
                {"id": len(data["annotations"]) + 1, "image_id": i, "category_id": int(label), "iscrowd": int(crowd),
                 "bbox": list(map(float, (x, y, w, h))), "area": float(w * h)}
            )  # fmt: skip
    rows = []
    for i, f in enumerate(found):
        for (x, y, r, b), label, score in zip(f.boxes.tolist(), f.labels.tolist(), f.scores.tolist(), strict=True):
            rows.append({"image_id": i, "category_id": label, "bbox": [x, y, r - x, b - y], "score": score})
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = data
        coco.createIndex()
        judge = COCOeval(coco, coco.loadRes(rows), "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    each = judge.eval["precision"][:, :, :, 0, -1]
    return judge.stats[:3], [each[:, :, k].mean() for k in range(len(classes))]


def random_case(seed, images=12, classes=3):
    """Boxes, and answers that are near some of them, doubled, missing, or of nothing."""
    rng = np.random.default_rng(seed)
    found, targets = [], []
    for _ in range(images):
        corner = rng.uniform(0, 200, (rng.integers(0, 7), 2))
        boxes = np.concatenate([corner, corner + rng.uniform(10, 90, corner.shape)], 1)
        labels = rng.integers(0, classes, len(boxes))
        targets.append(truth(*np.column_stack([labels, boxes]), crowd=[0] if rng.random() < 0.3 else []))
        kept = rng.random(len(boxes)) < 0.8
        near = boxes[kept] + rng.normal(0, 6, (kept.sum(), 4))
        near, said = np.concatenate([near, near[::2] + 3]), np.concatenate([labels[kept], labels[kept][::2]])
        said = np.where(rng.random(len(said)) < 0.85, said, rng.integers(0, classes, len(said)))
        found.append(answer(*np.column_stack([said, rng.uniform(0.05, 1, len(said)), near])))
    return found, targets


@pytest.mark.parametrize("seed", range(4))
def test_figures_equal_those_of_cocos_program(seed):
    found, targets = random_case(seed)
    figures = box_figures(found, targets, ["a", "b", "c"])
    stats, each = by_pycocotools(found, targets, ["a", "b", "c"])
    mine = figures.mean_average_precision, figures.average_precision_50, figures.average_precision_75
    assert mine == pytest.approx(stats, abs=1e-6) and 0.1 < mine[0] < 0.9
    assert [c.average_precision for c in figures.per_class.values()] == pytest.approx(each, abs=1e-6)
    assert sum(c.boxes for c in figures.per_class.values()) == sum((~t.crowd).sum() for t in targets)


def test_two_of_three_found_and_one_answer_of_nothing():
    """Worked out by hand: right at 0.9, wrong at 0.8, right at 0.7; one box is never found."""
    targets = [truth((0, 0, 0, 10, 10), (0, 20, 20, 30, 30)), truth((0, 5, 5, 15, 15))]
    found = [answer((0, 0.9, 0, 0, 10, 10), (0, 0.8, 50, 50, 60, 60)), answer((0, 0.7, 5, 5, 15, 15))]
    figures = box_figures(found, targets, ["cell"])
    # precision 1 up to recall 1/3 (34 of 101 points), 2/3 up to recall 2/3 (33 points), then 0
    by_hand = (34 * 1 + 33 * 2 / 3) / 101
    assert figures.mean_average_precision == pytest.approx(by_hand, abs=1e-6)
    assert figures.average_precision_50 == figures.average_precision_75 == pytest.approx(by_hand, abs=1e-6)
    assert 0.05 <= figures.threshold <= 0.7  # both right answers are worth the wrong one: F1 2/3 against 1/2
    cell = figures.per_class["cell"]
    assert cell.boxes == 3 and cell.precision == pytest.approx(2 / 3) and cell.recall == pytest.approx(2 / 3, abs=0.01)
    strict = box_figures(found, targets, ["cell"], threshold=0.85).per_class["cell"]
    assert strict.precision == pytest.approx(1) and strict.recall == pytest.approx(1 / 3, abs=0.01)


def test_an_overlap_of_0_62_counts_at_some_overlaps_only():
    figures = box_figures([answer((0, 0.9, 0, 0, 10, 6.2))], [truth((0, 0, 0, 10, 10))], ["cell"])
    assert figures.average_precision_50 == 1 and figures.average_precision_75 == 0
    assert figures.mean_average_precision == pytest.approx(0.3, abs=1e-6)  # at 0.5, 0.55 and 0.6


def test_classes_without_boxes_do_not_count():
    found = [answer((0, 0.9, 0, 0, 10, 10), (2, 0.9, 0, 0, 10, 10))]
    figures = box_figures(found, [truth((0, 0, 0, 10, 10))], ["a", "b", "c"])
    assert figures.mean_average_precision == 1
    assert figures.per_class["b"].average_precision is figures.per_class["c"].recall is None


def test_nothing_found_is_zero_and_crowds_are_neither_found_nor_missed():
    nothing = box_figures([answer()], [truth((0, 0, 0, 10, 10))], ["a"])
    assert nothing.mean_average_precision == 0 and nothing.threshold == USUAL
    assert nothing.per_class["a"].recall == 0
    crowd = [truth((0, 0, 0, 10, 10), (0, 40, 40, 80, 80), crowd=[1])]
    for more in ([], [(0, 0.95, 45, 45, 70, 70)]):
        assert box_figures([answer((0, 0.9, 0, 0, 10, 10), *more)], crowd, ["a"]).mean_average_precision == 1
    assert box_figures([answer()], [truth()], ["a"]).mean_average_precision == 0


def test_the_threshold_is_where_f1_is_best():
    points = np.linspace(0, 1, 101)
    precision = np.where(points <= 0.6, 1.0, np.where(points <= 0.8, 0.3, 0.0))
    curve = Curve(precision, np.where(precision > 0, 1 - points, 0))
    assert best_threshold([curve]) == pytest.approx(0.4, abs=0.011)
    assert curve.at(0.5) == (1.0, pytest.approx(0.5)) and curve.at(0.295) == (0.3, pytest.approx(0.7))
    assert curve.at(1.1) == (0.0, 0.0)
