"""Boxes follow what is painted in them."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torchvision.transforms.v2 import functional as V

from supertokenvit.data.augmentation import sample_generator
from supertokenvit.data.box_geometry import BoxCrop, KeepBoxes, Whole, scaled, seen
from supertokenvit.data.boxes import Boxes
from supertokenvit.data.splits import read_splits
from tests.data.box_folders import some_boxes, thing, write_voc, xml

GREY, RED = (128, 128, 128), (250, 10, 10)
sizes = st.tuples(st.integers(24, 90), st.integers(24, 90))


def painted(size, box):
    """A grey image of a height and width with one red rectangle, and its box."""
    image = torch.tensor(GREY, dtype=torch.uint8)[:, None, None].repeat(1, *size)
    left, top, right, bottom = box
    image[:, top:bottom, left:right] = torch.tensor(RED, dtype=torch.uint8)[:, None, None]
    return image, Boxes(np.array([box], dtype=np.float32), np.array([1]), np.array([False]))


def red_in(image):
    """The box around what is red, and the share of it that is."""
    red = (image[0].int() - image[1].int()) > 100
    rows, columns = red.any(1).nonzero().flatten(), red.any(0).nonzero().flatten()
    return [columns[0].item(), rows[0].item(), columns[-1].item() + 1, rows[-1].item() + 1]


@given(size=sizes, canvas=sizes, kind=st.sampled_from(["none", "shift", "resized"]), index=st.integers(0, 50),
       flip=st.booleans(), data=st.data())  # fmt: skip
def test_boxes_follow_painted_rectangles(size, canvas, kind, index, flip, data):
    left = data.draw(st.integers(0, size[1] - 12))
    top = data.draw(st.integers(0, size[0] - 12))
    box = (left, top, data.draw(st.integers(left + 10, size[1])), data.draw(st.integers(top + 10, size[0])))
    crop = BoxCrop(kind, canvas, 0.35, GREY)
    image, target = crop(*painted(size, box), sample_generator(0, 1, index), flip)
    assert image.shape == (3, *canvas) and image.dtype == torch.uint8
    assert target.boxes.dtype == np.float32 and len(target.boxes) == len(target.labels) == len(target.crowd)
    if len(target.boxes) and (target.boxes[0, 2:] - target.boxes[0, :2] >= 4).all():
        assert np.abs(np.array(red_in(image)) - target.boxes[0]).max() <= 1.0
    elif not len(target.boxes):  # at most a rim of what was dropped is seen
        red = ((image[0].int() - image[1].int()) > 100).sum()
        assert red <= 0.35 * (box[2] - box[0]) * (box[3] - box[1]) * max(canvas) ** 2 / min(size) ** 2 + 4 * max(canvas)


def test_the_same_generator_gives_the_same_part_and_others_differ():
    image, target = painted((40, 60), (10, 10, 30, 30))
    crop = BoxCrop("resized", (32, 32), 0.35, GREY)
    one, two = (crop(image, target, sample_generator(3, 2, 7), False) for _ in range(2))
    assert torch.equal(one[0], two[0]) and np.array_equal(one[1].boxes, two[1].boxes)
    parts = {
        tuple(np.round(crop(image, target, sample_generator(3, 2, i), False)[1].boxes.ravel(), 3)) for i in range(9)
    }
    assert len(parts) > 5


def test_without_a_crop_the_whole_image_is_seen_as_evaluation_sees_it():
    """Training's plain crop and the evaluation's preprocessing put an image and its boxes at the same place."""
    image, target = painted((48, 64), (10, 20, 40, 44))
    whole = Whole({"input_size": (3, 32, 32), "interpolation": "bilinear"}, 8)
    evaluated = whole(V.to_pil_image(image))
    plain, moved = BoxCrop("none", (24, 32), 1.0, GREY)(image, target, sample_generator(0, 0, 0), False)
    assert evaluated.shape == plain.shape == (3, 24, 32)
    assert red_in(evaluated) == red_in(plain)
    assert np.allclose(scaled(target.boxes, (64, 48), (32, 24)), moved.boxes, atol=1e-5)


@given(size=sizes, side=st.integers(32, 96))
def test_a_photograph_keeps_its_shape(size, side):
    image, target = painted(size, (0, 0, size[1], size[0]))
    whole = Whole({"input_size": (3, side, side), "interpolation": "bicubic"}, 8)
    seen_there = whole(V.to_pil_image(image))
    width, height = whole.size_of((size[1], size[0]))
    assert seen_there.shape == (3, height, width) and width % 8 == height % 8 == 0
    assert abs(max(width, height) - side) <= 4
    assert abs(width / height - size[1] / size[0]) <= 8.5 * size[1] / size[0] / min(width, height)
    assert np.allclose(scaled(target.boxes, (size[1], size[0]), (width, height)), [[0, 0, width, height]])


def test_loading_shrinks_long_images_with_their_boxes_and_drops_crowds(tmp_path):
    write_voc(tmp_path / "data", {"train": some_boxes(2)})
    more = thing("red", (1, 1, 9, 9), "<difficult>1</difficult>")
    (tmp_path / "data" / "Annotations" / "001.xml").write_text(xml(some_boxes(2)[1], more=more))
    source = read_splits(str(tmp_path / "data")).splits["train"]
    image, target = KeepBoxes(source, 32)(1)
    assert image.shape == (3, 24, 32)
    assert len(source.target(1).boxes) == 3 and np.allclose(target.boxes, source.target(1).boxes[:2] / 2)
    assert KeepBoxes(source, 500)(1)[0].shape == (3, 48, 64)


def test_what_is_cut_to_nearly_nothing_is_dropped():
    boxes = np.array(
        [[0, 0, 10, 10], [-95, 0, 5, 10], [-5, 0, 5, 10], [-50, 0, 1, 10], [50, 50, 60, 60], [3, 3, 4, 4]],
        dtype=np.float32,
    )
    left, kept = seen(boxes, (20, 20))
    assert kept.tolist() == [True, False, True, False, False, True]  # small ones that are whole stay
    assert left.tolist() == [[0, 0, 10, 10], [0, 0, 5, 10], [3, 3, 4, 4]]


def test_images_without_boxes_stay_so():
    empty = Boxes(np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool))
    _, target = BoxCrop("resized", (32, 32), 0.35, GREY)(painted((40, 40), (1, 1, 9, 9))[0], empty,
                                                          sample_generator(0, 0, 0), True)  # fmt: skip
    assert target.boxes.shape == (0, 4) and target.labels.dtype == np.int64
