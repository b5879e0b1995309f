"""labels.csv in all the ways in which people write it."""

import pytest

from supertokenvit.data.sources import DataError
from supertokenvit.data.splits import open_splits
from supertokenvit.data.tables import read_labels
from tests.data.test_formats import PIXELS


def write(folder, text, images=6):
    folder.mkdir(parents=True)
    for i in range(images):
        (folder / f"{i}.png").write_bytes(PIXELS)
    (folder / "labels.csv").write_text(text, newline="")
    return str(folder)


def labels(train):
    """The labels of each file."""
    several = train.multi_label
    names = [[train.classes[k] for k in row.nonzero()[0]] if several else train.classes[row] for row in train.targets]
    return {train.name(i).rsplit("/", 1)[-1]: name for i, name in enumerate(names)}


def test_a_column_label_means_one_label_for_each_image(tmp_path):
    spec = write(
        tmp_path / "data", "file,label\n" + "".join(f"{i}.png,{'cat|big' if i % 2 else 'dog'}\n" for i in range(6))
    )
    train = open_splits(spec, val_fraction=0).train
    assert not train.multi_label and train.classes == ["cat|big", "dog"]
    assert labels(train) == {f"{i}.png": "cat|big" if i % 2 else "dog" for i in range(6)}


def test_files_that_are_named_again_have_the_labels_of_all_their_lines(tmp_path):
    spec = write(tmp_path / "data", "file,labels\n0.png,cat\n1.png,dog\n0.png,big\n1.png,dog\n0.png,cat|wet\n")
    assert labels(open_splits(spec, val_fraction=0).train) == {"0.png": ["big", "cat", "wet"], "1.png": ["dog"]}


@pytest.mark.parametrize("separator", [",", ";", "\t"])
@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_spaces_and_separators_change_nothing(tmp_path, separator, end):
    rows = [("file ", " Labels"), (" 0.png", "cat | big"), ("1.png ", " cat| big "), ("2.png", "|"), ("", "")]
    spec = write(tmp_path / "data", end.join(separator.join(row) for row in rows))
    train = open_splits(spec, val_fraction=0).train
    assert train.classes == ["big", "cat"] and labels(train) == {
        "0.png": ["big", "cat"], "1.png": ["big", "cat"], "2.png": [],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("file,label\n0.png,cat\n0.png,dog\n", "line 3: 0.png has the label dog and, above, cat"),
        ("file,label\n0.png,cat\n1.png,\n", "line 3: 1.png has no label"),
        ("file,label\n0.png,cat\n,dog\n", "line 3 names no file"),
        ('file,labels\n0.png,"' + "x" * 140_000, "not readable as a table"),
        ("file,labels\n", "no file in it"),
        ("", "first line must be file,label"),
        ("id,breed\n1,cat\n", "rename the table"),
        ("file,labels\n0.png,a\n7.png,b\n", "not there: 7.png"),
    ],
)
def test_what_cannot_be_meant_is_one_line(tmp_path, text, said):
    with pytest.raises(DataError, match=said) as error:
        open_splits(write(tmp_path / "data", text))
    assert "\n" not in str(error.value)


def test_a_label_that_is_repeated_for_one_label_is_the_same_one(tmp_path):
    spec = write(tmp_path / "data", "file,label\n0.png,cat\n0.png,cat\n1.png,dog\n")
    assert len(open_splits(spec, val_fraction=0).train) == 2


def test_images_that_no_table_names_are_said(tmp_path):
    spec = write(tmp_path / "data", "file,label\n0.png,cat\n1.png,dog\n")
    assert open_splits(spec, val_fraction=0).left_out == ["4 images that no labels.csv names, such as 2.png"]


def test_two_tables_of_one_split_are_refused_and_so_are_two_kinds(tmp_path):
    for name in ("train", "val", "valid"):
        write(tmp_path / "a" / name, "file,label\n0.png,cat\n1.png,dog\n")
    with pytest.raises(DataError, match="two tables of the val split"):
        open_splits(str(tmp_path / "a"))
    write(tmp_path / "b" / "train", "file,label\n0.png,cat\n1.png,dog\n")
    write(tmp_path / "b" / "val", "file,labels\n0.png,cat\n")
    with pytest.raises(DataError, match="one label for each image in one split and several in another"):
        open_splits(str(tmp_path / "b"))


def test_names_that_look_the_same_are_one_class(tmp_path):
    """macOS writes an accent behind its letter."""
    spec = write(tmp_path / "data", "file,label\n0.png,Caf\u00e9\n1.png,Cafe\u0301\n2.png,tea\n")
    train = open_splits(spec, val_fraction=0).train
    assert train.classes == ["Caf\u00e9", "tea"] and train.targets.tolist() == [0, 0, 1]
    for split, name in (("train", "Caf\u00e9"), ("val", "Cafe\u0301")):
        for folder in (name, "tea"):
            (tmp_path / "folders" / split / folder).mkdir(parents=True)
            (tmp_path / "folders" / split / folder / "0.png").write_bytes(PIXELS)
    splits = open_splits(str(tmp_path / "folders"))
    assert splits.val.targets.tolist() == splits.train.targets.tolist() == [0, 1]


def test_labels_are_kept_in_the_order_of_the_lines(tmp_path):
    write(tmp_path / "data", "file,labels\n2.png,b|a\n0.png,a\n")
    assert read_labels(tmp_path / "data" / "labels.csv") == ({"2.png": ["b", "a"], "0.png": ["a"]}, True)
