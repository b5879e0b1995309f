"""Which folders are splits, which are classes, and what is neither."""

import pytest

from supertokenvit.data.layout import sort_into_splits
from supertokenvit.data.sources import DataError, split_of
from supertokenvit.data.splits import open_splits
from tests.data.test_listing import touch


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("train", "train"), ("Training", "train"), ("training_set", "train"), ("seg_train", "train"),
        ("train2017", "train"), ("TrainImages", "train"), ("GTSRB_Final_Training", "train"), ("trainset", "train"),
        ("dev", "val"), ("eval", "val"), ("my-valid", "val"), ("imagenet1k-validation-0001", "val"), ("VAL", "val"),
        ("test_set", "test"), ("ImageNet-test", "test"), ("seg.test", "test"),
        ("trainval", None), ("train_val", None), ("constraint", None), ("contest", None), ("valley", None),
        ("developers", None), ("pred", None), ("", None),
    ],
)  # fmt: skip
def test_a_word_of_a_name_says_the_split(name, split):
    assert split_of(name) == split


def sorted_paths(*paths, folders=()):
    """Classes and counts by split, and what is left out, of files given as paths."""
    layout = sort_into_splits(paths, folders)
    found = {split: {name: len(images) for name, images in held.items()} for split, held in layout.splits.items()}
    return found, layout.left_out


PAIR = ("{}/cat/0.png", "{}/dog/1.png")


def below(*folders):
    return [path.format(folder) for folder in folders for path in PAIR]


BOTH = {"cat": 1, "dog": 1}


@pytest.mark.parametrize(
    ("paths", "splits"),
    [
        (below("."), {"train": BOTH}),
        (below("data"), {"train": BOTH}),
        (below("a/b/data"), {"train": BOTH}),
        (below("train", "test"), {"train": BOTH, "test": BOTH}),
        (below("archive/training_set", "archive/test_set"), {"train": BOTH, "test": BOTH}),
        (below("seg_train/seg_train", "seg_test/seg_test"), {"train": BOTH, "test": BOTH}),
        (below("d/train/train", "d/test/test"), {"train": BOTH, "test": BOTH}),
        (below("train", "dev", "eval"), {"train": BOTH, "val": {"cat": 2, "dog": 2}}),
        (below("training_set"), {"train": BOTH}),
        (below("test_dataset"), {"train": BOTH}),
        (below("train/x"), {"train": {"x": 2}}),
    ],
    ids=lambda value: "-".join(value)[:60] if isinstance(value, list) else None,
)
def test_layouts_as_they_are_found(paths, splits):
    assert sorted_paths(*(path.removeprefix("./") for path in paths)) == (splits, [])


@pytest.mark.parametrize(
    ("stray", "said"),
    [
        ("cover.png", "1 image in no split or no class folder: cover.png"),
        ("set/cover.png", "1 image in no split or no class folder: set/cover.png"),
        ("set/train/cover.png", "1 image in no split or no class folder: set/train/cover.png"),
        ("set/docs/figure.png", "1 image in no split or no class folder: set/docs/figure.png"),
    ],
)
def test_stray_images_above_the_layout_change_nothing_and_are_named(stray, said):
    assert sorted_paths(*below("set/train", "set/val"), stray) == ({"train": BOTH, "val": BOTH}, [said])


def test_a_folder_beside_the_splits_that_says_none_is_left_out():
    """As the scenes of Intel come: with images without labels beside the splits."""
    paths = [*below("seg_train/seg_train", "seg_test/seg_test"), "seg_pred/seg_pred/2.png", "seg_pred/seg_pred/3.png"]
    splits, left_out = sorted_paths(*paths)
    assert splits == {"train": BOTH, "test": BOTH}
    assert left_out == ["2 images in no split or no class folder, such as seg_pred/seg_pred/2.png"]


def test_a_folder_that_repeats_all_classes_is_no_class():
    paths = [*below("cells"), *below("cells/cells"), "cells/elk/2.png", "cells/cells/elk/2.png"]
    splits, left_out = sorted_paths(*paths)
    assert splits == {"train": BOTH | {"elk": 1}}
    assert left_out == ["3 images in no split or no class folder, such as cells/cells/cat/0.png"]


def test_what_has_no_image_is_named():
    paths = [*below("."), "./elk/0.HEIC", "./elk/1.heic", "./fox/0", "./notes.txt", "./readme.md"]
    splits, left_out = sorted_paths(*(path.removeprefix("./") for path in paths), folders=["empty", "cat/deep"])
    assert splits == {"train": BOTH}
    assert left_out == [
        "1 file .HEIC: elk/0.HEIC",
        "1 file .heic: elk/1.heic",
        "1 file .txt: notes.txt",
        "1 file without an ending: fox/0",
        "3 folders without an image, such as elk",
    ]
    splits, left_out = sorted_paths(*below("train", "test"), folders=["train/elk", "eval"])
    assert splits == {"train": BOTH, "test": BOTH, "val": {}}
    assert left_out == ["1 folder without an image: train/elk"]


def test_classes_that_are_called_like_splits_are_spoken_of():
    _, left_out = sorted_paths("train/0.png", "bus/1.png", "ship/2.png")
    assert left_out == ["train: taken for classes, though called like splits; a split has class folders in it"]


def test_a_val_folder_whose_images_cannot_be_read_is_not_replaced(tmp_path):
    touch(tmp_path / "data", *below("train"), "val/cat/0.heic", "val/dog/1.heic")
    with pytest.raises(DataError, match="val split has no images .*2 files .heic") as error:
        open_splits(str(tmp_path / "data"))
    assert "\n" not in str(error.value)
    (tmp_path / "empty" / "val").mkdir(parents=True)
    touch(tmp_path / "empty", *below("train"))
    with pytest.raises(DataError, match="val split has no images"):
        open_splits(str(tmp_path / "empty"))


@pytest.mark.parametrize(
    "output",
    [
        ["recipe.yaml", "log.txt", "samples.png", "curves.png", "model/config.json"],
        ["recipe.yaml", "checkpoints/last.pt", "curves.png"],
        ["evaluation-test.json", "confusion-test.png", "worst-test.png"],
        ["explanations.png", "0-cat.png", "0-cat.npy"],
        ["rows.csv", "throughput.png", "sizes.png"],
    ],
)
def test_output_inside_the_data_is_no_data(tmp_path, output):
    root = touch(tmp_path / "data", *(path.removeprefix("./") for path in below(".")))
    for depth in ("run", "runs/run", "cat/runs/run"):
        touch(root, *(f"{depth}/{file}" for file in output))
    splits = open_splits(str(root), val_fraction=0)
    assert splits.train.classes == ["cat", "dog"] and len(splits.train) == 2
    assert splits.left_out[0] == "3 outputs of supertokenvit, such as cat/runs/run"


def test_system_folders_of_storage_devices_are_not_looked_into(tmp_path):
    names = ("System Volume Information", "$RECYCLE.BIN", "lost+found", "@eaDir", ".Trash-1000", ".Spotlight-V100")
    root = touch(tmp_path / "data", *(path.removeprefix("./") for path in below(".")), *(f"{n}/9.png" for n in names))
    splits = open_splits(str(root), val_fraction=0)
    assert splits.train.classes == ["cat", "dog"] and splits.left_out == []
