"""What an image file is, and what is below a folder: one rule for training, checking and prediction."""

import os

import pytest

from supertokenvit.data.checking import other_files
from supertokenvit.data.listing import find_images, is_image_name, list_files, list_images
from supertokenvit.data.sources import DataError
from supertokenvit.data.splits import open_splits
from tests.training.conftest import make_folder


@pytest.mark.parametrize("name", ["a.jpg", "cat/A.JPG", "x/y/z.Png", "cat\\b.jpeg", "two.dots.webp", "ä/ö.jpg"])
def test_names_of_images(name):
    assert is_image_name(name)


@pytest.mark.parametrize(
    "name",
    ["", "a.txt", "cat/._a.jpg", "._a.jpg", ".git/a.jpg", "__MACOSX/cat/a.jpg", "cat\\._b.jpg", "jpg", "a.jpg/b"],
)
def test_names_of_other_files(name):
    assert not is_image_name(name)


@pytest.fixture
def odd(tmp_path):
    """A folder as people have them: hidden copies, capitals, notes, links to folders, and links in loops."""
    make_folder(tmp_path / "elsewhere", classes=("cat",), per_class=3)
    data = make_folder(tmp_path / "data", classes=("dog", "emu"), per_class=4)
    (data / "dog" / "000.png").rename(data / "dog" / "000.PNG")
    for name in ("._001.png", "notes.txt", ".hidden.png"):
        (data / "dog" / name).write_bytes(b"not an image")
    (data / "cat").symlink_to(tmp_path / "elsewhere" / "cat")
    (data / "dog" / "loop").symlink_to(data / "emu")
    (data / "emu" / "loop").symlink_to(data / "dog")
    (data / "emu" / "up").symlink_to(tmp_path)
    (data / "emu" / "nothing.png").symlink_to(tmp_path / "gone.png")
    return data


def test_every_verb_sees_the_same_images(odd):
    """predict stumbled over ._x.jpg and did not enter linked folders; training did the opposite."""
    listed = {str(odd / file) for file in list_images(odd)}
    assert listed == {str(path) for path in find_images([str(odd)])}
    splits = open_splits(str(odd))
    trained = {part.name(i) for part in (splits.train, splits.val) for i in range(len(part))}
    assert trained == listed
    assert str(odd / "dog" / "000.PNG") in listed and str(odd / "cat" / "002.png") in listed
    assert not any("._" in name or "hidden" in name or "nothing" in name for name in listed)
    assert [line.rsplit("/", 1)[1] for line in other_files(odd)] == ["notes.txt", "notes.txt"]  # once through the link


def test_a_listing_is_in_the_order_of_the_pieces_of_its_paths(tmp_path):
    for name in ("b/x.jpg", "a/b.jpg", "a-b.jpg", "a/b/c.jpg"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    expected = [str(path.relative_to(tmp_path)) for path in sorted(tmp_path.rglob("*")) if path.is_file()]
    assert list_files(tmp_path) == expected


def test_a_file_that_is_named_is_taken_as_it_is(tmp_path):
    hidden = tmp_path / "._odd"
    assert find_images([str(hidden)]) == [hidden]


def test_a_folder_without_images_is_one_line(tmp_path):
    with pytest.raises(DataError, match="no image in this folder"):
        find_images([str(tmp_path)])


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "cat").mkdir()
    scan = os.scandir

    def locked(path):
        if str(path).endswith("cat"):
            raise PermissionError(13, "Permission denied")
        return scan(path)

    monkeypatch.setattr(os, "scandir", locked)
    with pytest.raises(DataError, match="cat: this folder cannot be read .Permission denied."):
        list_files(tmp_path)
