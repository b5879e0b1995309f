from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from supertokenvit.data import formats
from supertokenvit.data.cuts import split_by_position, stratified_split
from supertokenvit.data.listing import list_folder
from supertokenvit.data.sources import DataError, Source, Subset
from supertokenvit.data.splits import (
    Inherited,
    TrainedOn,
    fingerprint,
    open_as_trained,
    open_split,
    open_splits,
    read_splits,
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
    assert splits.test is None and splits.left_out == ["the test split: 4 of its images have no label"]


def test_hugging_face_images_without_labels_are_not_trained_on(tmp_path):
    with pytest.raises(DataError, match="2 images of the train split have no label"):
        open_splits(save_hf(tmp_path / "set", train=[0, 1, -1, -1]))


def test_a_class_list_of_two_with_images_of_one_is_one_class(tmp_path):
    with pytest.raises(DataError, match="one class only \\(cat\\)"):
        open_splits(save_hf(tmp_path / "set", train=[0] * 6))


class Named(Source):
    """Images that have nothing but names and labels."""

    def __init__(self, names, targets, classes=None):
        self.names, self.targets = names, np.array(targets)
        count = self.targets.shape[1] if self.targets.ndim == 2 else self.targets.max(initial=0) + 1
        self.classes = classes or [str(k) for k in range(count)]

    def name(self, i):
        return self.names[i]

    def read(self, i):
        raise AssertionError("nobody looks at these")


def named(targets):
    return Named([f"x/{i}.png" for i in range(len(targets))], targets)


@pytest.mark.parametrize("cut_of", [lambda t, f, s: stratified_split(named(t), f, s), split_by_position])
@given(st.lists(st.integers(0, 4), min_size=1, max_size=60), st.floats(0.01, 0.9), st.integers(0, 99))
def test_a_cut_is_a_partition_that_leaves_every_class_in_training(cut_of, targets, fraction, seed):
    targets = np.array(targets)
    rest, cut = cut_of(targets, fraction, seed)
    assert sorted([*rest, *cut]) == list(range(len(targets)))
    assert set(targets[rest]) == set(targets)
    for c in set(targets):
        n = (targets == c).sum()
        assert ((targets[cut] == c).sum() >= 1) == (n >= 2)
    again = cut_of(targets, fraction, seed)
    assert rest.tolist() == again[0].tolist()


def keys(source, indices):
    return {source.key(i) for i in indices}


def test_more_images_and_classes_move_none_of_the_others_but_at_a_border():
    def grown(per_class, classes):
        names = [f"{c}/{i:03}.png" for c in classes for i in range(per_class)]
        return Named(names, [k for k in range(len(classes)) for _ in range(per_class)], list(classes))

    before, after = grown(20, "bd"), grown(21, "abcd")
    for seed in range(5):
        (_, small), (rest, large) = (stratified_split(source, 0.1, seed) for source in (before, after))
        kept, now = keys(before, small), keys(after, large)
        assert len(kept) == 4 and len(now) == 8
        new = {f"{c}/020.png" for c in "bd"}
        # nothing that was learned before is looked at to choose by
        assert {k for k in now - kept if k[0] in "bd"} <= new
        assert kept - now <= keys(after, rest) and len(kept - now) == len(now & new)


def test_the_cut_of_a_class_depends_on_its_name_not_on_its_number():
    one = Named([f"cat/{i}.png" for i in range(30)], [0] * 30, ["cat"])
    two = Named([f"ant/{i}.png" for i in range(9)] + one.names, [0] * 9 + [1] * 30, ["ant", "cat"])
    cats = {key for key in keys(two, stratified_split(two, 0.2, 3)[1]) if key.startswith("cat")}
    assert cats == keys(one, stratified_split(one, 0.2, 3)[1]) and len(cats) == 6
    assert keys(one, stratified_split(one, 0.2, 4)[1]) != cats


@pytest.mark.parametrize("seed", range(3))
def test_images_with_several_labels_are_cut_label_by_label(seed):
    """Before, all were put in one order: of a label with four images, often none was in validation."""
    rng = np.random.default_rng(seed)
    targets = (rng.random((400, 6)) < [0.5, 0.3, 0.1, 0.05, 0.02, 0.01]).astype(np.float32)
    targets[:4, 5] = 1
    rest, cut = stratified_split(named(targets), 0.25, seed)
    assert sorted([*rest, *cut]) == list(range(400))
    for k, n in enumerate(targets.sum(0)):
        assert 1 <= targets[cut][:, k].sum() < n
        assert abs(targets[cut][:, k].sum() - n / 4) <= max(1.0, 0.12 * n)
    bare = ~targets.any(1)
    assert abs(bare[cut].sum() - bare.sum() / 4) <= 1 and abs(len(cut) - 100) <= 12


def inherited(splits, kept=True, name="first"):
    recorded = frozenset(splits.val.key(i) for i in range(len(splits.val))) if kept else frozenset()
    return Inherited(name, splits.train.classes, TrainedOn(fingerprint(splits.train), 0.1, 0, recorded))


def test_a_second_training_on_a_growing_folder_chooses_by_no_image_that_the_first_has_learned(tmp_path):
    folder = make_folder(tmp_path / "data", classes=("b", "d"), per_class=20)
    first = open_splits(str(folder), seed=0)
    learned = keys(first.train, range(len(first.train)))
    make_folder(tmp_path / "data", classes=("a", "c"), per_class=20)
    for i in range(20, 50):
        Image.new("RGB", (4, 4)).save(folder / "b" / f"{i:03}.png")
    second = open_splits(str(folder), seed=7, inherited=inherited(first))
    chosen = keys(second.val, range(len(second.val)))
    assert not chosen & learned
    assert {key for key in chosen if key[0] in "bd"} == keys(first.val, range(4))
    assert sum(key[0] in "ac" for key in chosen) == 4
    assert second.rule == (
        "4 images that first kept for validation too, and 4 of classes that are new to it: 0.1 of each, by a hash of "
        "seed 7"
    )
    third = open_splits(str(folder), seed=9, inherited=inherited(second))
    assert keys(third.val, range(len(third.val))) == chosen


@pytest.mark.parametrize("kept", [True, False])
def test_what_a_start_kept_is_found_by_its_names_or_by_its_rule(tmp_path, kept):
    folder = str(make_folder(tmp_path / "data", per_class=30))
    first = open_splits(folder)
    again = open_splits(folder, seed=5, inherited=inherited(first, kept))
    assert fingerprint(again.train) == fingerprint(first.train) and "first kept for validation too" in again.rule


def test_what_cannot_be_known_of_a_start_is_said(tmp_path):
    folder = make_folder(tmp_path / "data", per_class=30)
    first = open_splits(str(folder))
    (folder / "cat" / "000.png").unlink()
    rule = open_splits(str(folder), inherited=inherited(first, kept=False)).rule
    assert "which images first was trained on is not known: if some of these are among them" in rule
    other = make_folder(tmp_path / "other", classes=("x", "y"), per_class=30)
    splits = open_splits(str(other), inherited=inherited(first))
    assert "none of the validation images of first is here: taken for other data" in splits.rule
    assert fingerprint(splits.train) == fingerprint(open_splits(str(other)).train)
    make_folder(tmp_path / "whole" / "train")
    make_folder(tmp_path / "whole" / "val")
    assert open_splits(str(tmp_path / "whole"), inherited=inherited(first)).rule.startswith("the data's own")


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
    whole = open_splits(str(folder if kind == "data" else pack(folder, tmp_path / kind)), val_fraction=0).train
    parts = [Subset(whole, part) for part in split_by_position(whole.targets, 0.2, seed=3)]
    assert tuple(map(fingerprint, parts)) == OLD_FINGERPRINTS[kind]
    if kind == "data":  # a run of that version goes on with its own cut
        assert (
            fingerprint(open_as_trained(str(folder), TrainedOn(OLD_FINGERPRINTS[kind][0], 0.2, 3)).val)
            == (OLD_FINGERPRINTS[kind][1])
        )
        assert open_as_trained(str(folder), TrainedOn("0" * 16, 0.2, 3)) is None


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
    assert {name: len(source) for name, source in stored.splits.items()} == {"train": 24, "val": 2}
    assert stored.left_out == ["2 images in no split or no class folder, such as extra/cat/000.png"]
    assert stored.splits["val"].classes == ["b"] and stored.splits["val"].targets.tolist() == [0, 0]


@pytest.fixture
def uncut(tmp_path):
    """A folder without splits, what a model that was trained on it remembers, and its splits."""
    spec = str(make_folder(tmp_path / "data"))
    splits = open_splits(spec, val_fraction=0.25, seed=4)
    return spec, TrainedOn(fingerprint(splits.train), val_fraction=0.25, seed=4), splits


@pytest.mark.parametrize(("asked", "given"), [(None, "val"), ("val", "val"), ("train", "train")])
def test_data_that_a_model_was_trained_on_is_cut_as_it_was(uncut, asked, given):
    spec, trained_on, splits = uncut
    source, name, _ = open_split(spec, asked, trained_on=trained_on, must_be_known=True)
    assert name == given and fingerprint(source) == fingerprint(getattr(splits, given))


@pytest.mark.parametrize("asked", [None, "train"])
@pytest.mark.parametrize("change", [None, {"seed": 5}, {"val_fraction": 0.3}, {"fingerprint": "0" * 16}])
def test_data_that_a_model_was_not_trained_on_is_measured_whole(uncut, asked, change):
    spec, trained_on, _ = uncut
    trained_on = None if change is None else replace(trained_on, **change)
    source, name, _ = open_split(spec, asked, trained_on=trained_on)
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
    monkeypatch.setattr(formats, "list_folder", lambda root: listed.append(root) or list_folder(root))
    open_split(uncut[0], "val", trained_on=uncut[1])
    assert len(listed) == 1
