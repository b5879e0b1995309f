"""Images with masks: which belong together, which values mean what, and what is said of the rest."""

import numpy as np
import pytest
from PIL import Image

from supertokenvit.data.decode import BadImage
from supertokenvit.data.masks import Reading, decode_mask
from supertokenvit.data.sources import DataError
from supertokenvit.data.splits import TrainedOn, fingerprint, open_as_trained, open_split, open_splits, read_splits
from tests.dense.folders import make_masks, write_pair


def save(path, pixels, mode=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, dtype=np.uint8), mode).save(path)


def test_splits_classes_and_masks_are_found(tmp_path):
    splits = open_splits(str(make_masks(tmp_path / "data", test=2)))
    assert [len(s) for s in (splits.train, splits.val, splits.test)] == [12, 4, 2]
    assert splits.train.task == splits.val.task == "segmentation"
    assert splits.train.classes == ["dark", "bright"] and splits.val_is_own
    mask = splits.val.target(1)
    assert mask.dtype == np.uint8 and mask.shape == splits.val.image(1).size[::-1]
    assert set(np.unique(mask)) == {0, 1, 255}
    assert np.array_equal(mask, np.asarray(Image.open(tmp_path / "data" / "val" / "masks" / "013.png")))


@pytest.mark.parametrize(
    "layout",
    [
        ("train/images", "train/masks", "val/images", "val/masks"),
        ("images/train", "masks/train", "images/val", "masks/val"),
        ("img_dir/train", "ann_dir/train", "img_dir/val", "ann_dir/val"),
        ("images/training", "annotations/training", "images/validation", "annotations/validation"),
    ],
    ids=lambda layout: layout[0],
)
def test_usual_layouts_are_read(tmp_path, layout):
    for n, (images, masks) in enumerate(zip(layout[::2], layout[1::2], strict=True)):
        for i in range(3):
            save(tmp_path / images / "street" / f"{i}.jpg", np.full((8, 8, 3), 60 * i))
            save(tmp_path / masks / "street" / f"{i}.png", np.full((8, 8), n))
    splits = open_splits(str(tmp_path))
    assert (len(splits.train), len(splits.val)) == (3, 3) and splits.train.classes == ["0", "1"]
    assert splits.train.target(0).max() == 0 and splits.val.target(0).max() == 1


def test_without_splits_a_part_is_cut_off_and_found_again(tmp_path):
    for i in range(20):
        write_pair(tmp_path, f"{i}", i)
    splits = open_splits(str(tmp_path), val_fraction=0.2, seed=3)
    assert (len(splits.train), len(splits.val)) == (16, 4)
    memory = TrainedOn(fingerprint(splits.train), 0.2, 3)
    again = open_as_trained(str(tmp_path), memory)
    assert [again.val.name(i) for i in range(4)] == [splits.val.name(i) for i in range(4)]
    source, name, _ = open_split(str(tmp_path), None, trained_on=memory, must_be_known=True)
    assert name == "val" and len(source) == 4
    mask = tmp_path / "masks" / f"{splits.train.key(0).rsplit('/', 1)[1]}"
    save(mask, np.zeros((72, 96)))
    assert open_as_trained(str(tmp_path), memory) is None  # a label differs


def test_values_are_ignored_as_asked_and_count_the_classes(tmp_path):
    write_pair(tmp_path / "train", "a", 0)
    save(tmp_path / "train" / "images" / "b.png", np.zeros((4, 4, 3)))
    save(tmp_path / "train" / "masks" / "b.png", np.full((4, 4), 7))
    assert read_splits(str(tmp_path)).splits["train"].classes == [str(k) for k in range(8)]
    train = read_splits(str(tmp_path), Reading(ignore=7)).splits["train"]
    assert train.classes == ["0", "1"] and set(np.unique(train.target(1))) == {255}
    named = read_splits(str(tmp_path), Reading(classes=("x", "y"))).splits["train"]
    with pytest.raises(BadImage, match="b.png: it has the value 7, and there are 2 classes"):
        named.target(1)


def test_what_has_no_partner_is_named(tmp_path):
    make_masks(tmp_path / "data")
    (tmp_path / "data" / "train" / "masks" / "000.png").unlink()
    (tmp_path / "data" / "train" / "images" / "001.png").unlink()
    save(tmp_path / "data" / "train" / "more" / "x.png", np.zeros((4, 4, 3)))
    assert open_splits(str(tmp_path / "data")).left_out == [
        "1 image without a mask: train/images/000.png",
        "1 mask without an image: train/masks/001.png",
        "1 image beside images and masks: train/more/x.png",
    ]


def test_masks_of_jpeg_are_none(tmp_path):
    for i in range(3):
        save(tmp_path / "images" / f"{i}.jpg", np.zeros((8, 8, 3)))
        save(tmp_path / "masks" / f"{i}.jpg", np.zeros((8, 8)))
    with pytest.raises(DataError, match=r"no data for segmentation.*masks/NAME.png"):
        read_splits(str(tmp_path), Reading(task="segmentation"))


def test_folders_called_so_can_be_classes(tmp_path):
    make_masks(tmp_path / "data")
    assert read_splits(str(tmp_path / "data"), Reading(task="classification")).splits["train"].classes == [
        "images", "masks",
    ]  # fmt: skip


@pytest.mark.parametrize("mode", ["1", "L", "P"])
def test_masks_of_every_mode_give_their_values(tmp_path, mode):
    values = np.array([[0, 1], [1, 0]], dtype=np.uint8)
    image = (
        Image.fromarray(values * (255 if mode == "1" else 1)).convert("1") if mode == "1" else Image.fromarray(values)
    )
    if mode == "P":
        image.putpalette([9, 9, 9, 200, 0, 0])
    image.save(tmp_path / "m.png")
    assert np.array_equal(decode_mask((tmp_path / "m.png").read_bytes(), "m.png"), values)


def test_masks_that_are_none_say_why(tmp_path):
    save(tmp_path / "m.png", np.zeros((4, 4, 3)))
    with pytest.raises(BadImage, match="m.png: a mask of mode RGB"):
        decode_mask((tmp_path / "m.png").read_bytes(), "m.png")
    with pytest.raises(BadImage, match="m.png: damaged mask"):
        decode_mask((tmp_path / "m.png").read_bytes()[:40], "m.png")
