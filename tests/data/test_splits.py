from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from supertokenvit.data import formats
from supertokenvit.data.formats import ELSEWHERE
from supertokenvit.data.listing import list_files
from supertokenvit.data.sources import DataError
from supertokenvit.data.splits import (
    TrainedOn,
    fingerprint,
    open_split,
    open_splits,
    read_splits,
    stratified_split,
)
from tests.data.test_formats import names, pack
from tests.data.test_libraries import save_hf
from tests.training.conftest import make_folder


def test_a_folder_without_splits_is_cut_by_the_rule_it_states(tmp_path):
    splits = open_splits(str(make_folder(tmp_path / "data", per_class=20)), val_fraction=0.2, seed=5)
    assert (len(splits.train), len(splits.val), splits.test) == (32, 8, None)
    assert np.bincount(splits.val.targets).tolist() == [4, 4]
    assert not set(names(splits.train)) & set(names(splits.val))
    assert "8 images cut" in splits.rule and "0.2" in splits.rule and "seed 5" in splits.rule


def test_a_test_split_is_never_used_for_validation(tmp_path):
    make_folder(tmp_path / "data" / "train", per_class=10)
    make_folder(tmp_path / "data" / "test", per_class=5, seed=1)
    splits = open_splits(str(tmp_path / "data"))
    assert (len(splits.train), len(splits.val), len(splits.test)) == (18, 2, 10)
    assert "/train/" in splits.val.name(0)


def test_missing_class_folder_in_val_does_not_shift_labels(tmp_path):
    make_folder(tmp_path / "data" / "train", classes=("a", "b", "c"))
    make_folder(tmp_path / "data" / "valid", classes=("a", "c"), per_class=2)
    splits = open_splits(str(tmp_path / "data"))
    assert splits.val.classes == ["a", "b", "c"]
    assert sorted(splits.val.targets.tolist()) == [0, 0, 2, 2]
    assert "no images of b" in splits.rule


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda root: None, "not there"),
        (lambda root: root.mkdir(), "empty"),
        (lambda root: (root.mkdir(), Image.new("RGB", (4, 4)).save(root / "a.png")), "no images in class folders"),
        (lambda root: make_folder(root, classes=("cat",)), "one class only"),
    ],
    ids=["missing", "empty", "no class folders", "one class"],
)
def test_unusable_data_is_one_line_with_the_expected_layout(tmp_path, make, said):
    make(tmp_path / "data")
    with pytest.raises(DataError, match=said) as error:
        open_splits(str(tmp_path / "data"))
    assert "CLASS/IMAGE" in str(error.value) and "\n" not in str(error.value)


def test_hugging_face_test_split_without_labels_is_left_out_and_said_so(tmp_path):
    splits = open_splits(save_hf(tmp_path / "set", train=[0, 1] * 5, test=[-1] * 4))
    assert splits.test is None and "test split is left out: 4" in splits.rule


def test_hugging_face_images_without_labels_are_not_trained_on(tmp_path):
    with pytest.raises(DataError, match="2 images of the train split have no label"):
        open_splits(save_hf(tmp_path / "set", train=[0, 1, -1, -1]))


def test_a_class_list_of_two_with_images_of_one_is_one_class(tmp_path):
    with pytest.raises(DataError, match="one class only \\(cat\\)"):
        open_splits(save_hf(tmp_path / "set", train=[0] * 6))


@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.9), st.integers(0, 99))
def test_stratified_split_is_a_partition_that_leaves_every_class_in_training(targets, fraction, seed):
    targets = np.array(targets)
    rest, cut = stratified_split(targets, fraction, seed)
    assert sorted([*rest, *cut]) == list(range(len(targets)))
    assert set(targets[rest]) == set(targets)
    for c in set(targets):
        n = (targets == c).sum()
        assert ((targets[cut] == c).sum() >= 1) == (n >= 2)
    again = stratified_split(targets, fraction, seed)
    assert rest.tolist() == again[0].tolist()


def test_the_fingerprint_survives_a_move_but_not_a_change(tmp_path):
    first = fingerprint(open_splits(str(make_folder(tmp_path / "here"))).train)
    (tmp_path / "here").rename(tmp_path / "there")
    assert fingerprint(open_splits(str(tmp_path / "there")).train) == first
    (tmp_path / "there" / "cat" / "000.png").rename(tmp_path / "there" / "cat" / "999.png")
    assert fingerprint(open_splits(str(tmp_path / "there")).train) != first


# As earlier versions computed them. If they changed, a run folder or a checkpoint would no longer know its data.
OLD_FINGERPRINTS = {
    "data": ("6ea6fdb9da977e10", "820e0047dd8b2cb5"),
    "data.zip": ("b9dc4d4217474102", "ef2c1e9d56ec10d3"),
    "data.tar": ("b9dc4d4217474102", "ef2c1e9d56ec10d3"),
    "data.tar.gz": ("b9dc4d4217474102", "ef2c1e9d56ec10d3"),
}


@pytest.mark.parametrize("kind", OLD_FINGERPRINTS)
def test_fingerprints_are_those_of_earlier_versions(tmp_path, kind):
    folder = make_folder(tmp_path / "data", classes=("Emu", "a b", "cat"))
    (folder / "cat" / "deep").mkdir()
    for name in ("deep/0.png", "deep.png", "Z.PNG"):
        Image.new("RGB", (4, 4)).save(folder / "cat" / name)
    (folder / "cat" / "notes.txt").write_text("")
    splits = open_splits(str(folder if kind == "data" else pack(folder, tmp_path / kind)), val_fraction=0.2, seed=3)
    assert (fingerprint(splits.train), fingerprint(splits.val)) == OLD_FINGERPRINTS[kind]


@pytest.mark.parametrize("own", [False, True])
def test_it_is_known_whether_the_validation_split_was_cut(tmp_path, own):
    make_folder(tmp_path / "data" / "train")
    if own:
        make_folder(tmp_path / "data" / "val", per_class=2)
    assert open_splits(str(tmp_path / "data")).val_is_own is own
    assert ("own validation split" in open_splits(str(tmp_path / "data")).rule) is own


def test_splits_are_read_as_they_are_stored(tmp_path):
    make_folder(tmp_path / "data" / "train", classes=("a", "b"))
    make_folder(tmp_path / "data" / "valid", classes=("b",), per_class=2)
    make_folder(tmp_path / "data" / "extra", per_class=1)
    stored = read_splits(str(tmp_path / "data"))
    assert {name: len(source) for name, source in stored.items()} == {"train": 24, "val": 2, ELSEWHERE: 2}
    assert stored["val"].classes == ["b"] and stored["val"].targets.tolist() == [0, 0]


@pytest.fixture
def uncut(tmp_path):
    """A folder without splits, what a model that was trained on it remembers, and its splits."""
    spec = str(make_folder(tmp_path / "data"))
    splits = open_splits(spec, val_fraction=0.25, seed=4)
    return spec, TrainedOn(fingerprint(splits.train), val_fraction=0.25, seed=4), splits


@pytest.mark.parametrize(("asked", "given"), [(None, "val"), ("val", "val"), ("train", "train")])
def test_data_that_a_model_was_trained_on_is_cut_as_it_was(uncut, asked, given):
    spec, trained_on, splits = uncut
    source, name = open_split(spec, asked, trained_on=trained_on, must_be_known=True)
    assert name == given and fingerprint(source) == fingerprint(getattr(splits, given))


@pytest.mark.parametrize("asked", [None, "train"])
@pytest.mark.parametrize("change", [None, {"seed": 5}, {"val_fraction": 0.3}, {"fingerprint": "0" * 16}])
def test_data_that_a_model_was_not_trained_on_is_measured_whole(uncut, asked, change):
    spec, trained_on, _ = uncut
    trained_on = None if change is None else replace(trained_on, **change)
    source, name = open_split(spec, asked, trained_on=trained_on)
    assert name == "all" and len(source) == 24
    with pytest.raises(DataError, match="no longer the images that the model was trained on"):
        open_split(spec, asked, trained_on=trained_on, must_be_known=True)
    with pytest.raises(DataError, match="no val split; without --split all images are measured"):
        open_split(spec, "val", trained_on=trained_on)


def test_a_split_that_is_not_there_is_one_line_with_those_that_are(uncut, tmp_path):
    with pytest.raises(DataError, match="there is no test split, only train"):
        open_split(uncut[0], "test", trained_on=uncut[1])
    make_folder(tmp_path / "other" / "test")
    make_folder(tmp_path / "other" / "val")
    with pytest.raises(DataError, match="there is no train split, only test, val"):
        open_split(str(tmp_path / "other"), "train", trained_on=None)
    with pytest.raises(DataError, match="no labelled images in it"):
        open_split(save_hf(tmp_path / "secret", test=[-1, -1]), None, trained_on=None)


def test_the_data_of_a_run_is_listed_once_when_it_is_measured(uncut, monkeypatch):
    """An archive that must be unpacked into memory was unpacked twice."""
    listed = []
    monkeypatch.setattr(formats, "list_files", lambda root: listed.append(root) or list_files(root))
    open_split(uncut[0], "val", trained_on=uncut[1])
    assert len(listed) == 1
