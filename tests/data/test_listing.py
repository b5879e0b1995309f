import os
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supertokenvit.data.listing import find_images, is_image_name, list_folder, list_images
from supertokenvit.data.sources import DataError
from supertokenvit.data.splits import open_splits
from tests.data.test_decode import encoded
from tests.training.conftest import make_folder

PIXELS = encoded(Image.new("RGB", (4, 4)))
POSIX = pytest.mark.skipif(os.name == "nt", reason="there a backslash is in no name, and links need rights")


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(PIXELS)
    return root


def trained_on(spec):
    """Paths below the root of the images that training reads."""
    train = open_splits(str(spec), val_fraction=0).train
    return sorted(train.name(i).removeprefix(f"{spec}/") for i in range(len(train)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("cat/0.png", True),
        ("./cat/0.png", True),
        ("cat/0.JPeG", True),
        ("cat/0.TIF", True),
        ("CAT\\0.JPG", True),
        (Path("cat") / "0.webp", True),
        ("cat.png/0.png", True),
        ("cat/0.b.png", True),
        ("cat/0.txt", False),
        ("cat/png", False),
        ("cat.png/0", False),
        ("", False),
        ("cat/.png", False),
        ("cat/.0.png", False),
        ("cat/._0.png", False),
        ("cat\\._0.png", False),
        (".cat/0.png", False),
        ("a\\.cat\\0.png", False),
        ("../0.png", False),
        ("__MACOSX/cat/0.png", False),
        ("cat/__MACOSX/0.png", False),
        ("__MACOSX.png", True),
    ],
)
def test_which_names_are_those_of_images(name, expected):
    assert is_image_name(name) is expected


def test_the_order_is_that_of_sorted_paths(tmp_path):
    rng = np.random.default_rng(0)
    names = ["a", "a b", "a-b", "B", "ab", "é", "0"]  # "a.png" and the folder "a" are told apart by their pieces
    for _ in range(150):
        folders = rng.choice(names, rng.integers(0, 4))
        touch(tmp_path, "/".join([*folders, f"{rng.choice(names)}.{rng.choice(['png', 'JPG', 'txt'])}"]))
    everything = [p for p in sorted(tmp_path.rglob("*")) if p.is_file()]
    assert list_folder(tmp_path).files == [str(p.relative_to(tmp_path)) for p in everything]
    assert list_images(tmp_path) == [str(p.relative_to(tmp_path)) for p in everything if p.suffix != ".txt"]


def test_a_root_may_be_hidden_or_named_from_where_one_is(tmp_path, monkeypatch):
    touch(tmp_path / ".cache", "cat/0.png")
    assert list_images(tmp_path / ".cache") == [os.path.join("cat", "0.png")]
    monkeypatch.chdir(tmp_path / ".cache")
    assert list_images(".") == list_images("../.cache/") == [os.path.join("cat", "0.png")]


@POSIX
def test_class_folders_may_be_links_and_links_upwards_do_not_loop(tmp_path):
    folder = make_folder(tmp_path / "real")
    (tmp_path / "data").mkdir()
    for name in ("cat", "dog"):
        (tmp_path / "data" / name).symlink_to(folder / name)
    (folder / "cat" / "up").symlink_to(folder)
    splits = open_splits(str(tmp_path / "data"))
    assert splits.train.classes == ["cat", "dog"] and len(splits.train) + len(splits.val) == 24


@POSIX
@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("links", "expected"),
    [
        ({"a/self": "a"}, {"a/0.png", "b/0.png"}),
        ({"a/up": ""}, {"a/0.png", "b/0.png"}),
        ({"a/above": ".."}, {"a/0.png", "b/0.png"}),
        ({"a/to_b": "b", "b/to_a": "a"}, {"a/0.png", "b/0.png", "a/to_b/0.png", "b/to_a/0.png"}),
        ({"a/out": "../out", "../out/in": ""}, {"a/0.png", "b/0.png", "a/out/0.png"}),
        ({"c": "b"}, {"a/0.png", "b/0.png", "c/0.png"}),
        ({"c.png": "a/0.png"}, {"a/0.png", "b/0.png", "c.png"}),
        ({"gone.png": "nowhere", "a/gone": "b/nowhere"}, {"a/0.png", "b/0.png"}),
        ({"circle.png": "circle.png", "inside.png": "a/0.png/x"}, {"a/0.png", "b/0.png"}),
    ],
    ids=["itself", "root", "above root", "each other", "through outside", "folder", "file", "broken", "circle"],
)
def test_links_are_entered_unless_they_lead_back(tmp_path, links, expected):
    root = touch(tmp_path / "data", "a/0.png", "b/0.png", "../out/0.png", "../other/0.png")
    for link, target in links.items():
        (root / link).symlink_to(os.path.normpath(root / target), target_is_directory=True)
    assert set(list_images(root)) == expected
    (tmp_path / "link").symlink_to(root)
    assert list_images(tmp_path / "link") == list_images(root)


@pytest.mark.parametrize("unreadable", ["", "cat/deep"])
def test_a_folder_that_cannot_be_read_is_named_by_every_verb(tmp_path, monkeypatch, unreadable):
    root, scandir = touch(tmp_path / "data", "cat/0.png", "cat/deep/1.png", "dog/0.png"), os.scandir

    def refuse(path):
        if Path(path) == root / unreadable:
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    for look in (list_images, open_splits, lambda path: find_images([path])):
        with pytest.raises(DataError, match="cannot be listed") as error:
            look(str(root))
        assert str(root / unreadable) in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_folder_is_one_line(tmp_path):
    with pytest.raises(DataError, match="cannot be listed"):
        list_images(touch(tmp_path, "0.png") / "0.png")


def odd_folder(root):
    """Images, and what macOS, Windows, git and people leave beside them."""
    touch(root, "cat/0.png", "cat/1.JPG", "cat/deep/2.Jpeg", "dog/3.png", "dog.png/4.png", "dog/5.png")
    touch(root, "cat/._0.png", "cat/.6.png", "__MACOSX/cat/7.png", ".git/cat/8.png", ".DS_Store", "cat/Thumbs.db")
    touch(root, "dog/.thumbnails/9.png", "dog/notes.txt", "cat/10", "cat/11.png.part")
    return {"cat/0.png", "cat/1.JPG", "cat/deep/2.Jpeg", "dog/3.png", "dog.png/4.png", "dog/5.png"}


@POSIX
def test_training_predict_and_check_data_see_the_same_images(tmp_path):
    root = tmp_path / "data"
    expected = odd_folder(root)
    touch(tmp_path / "far", "12.png", "._12.png")
    (root / "linked").symlink_to(tmp_path / "far")
    (root / "cat" / "gone.png").symlink_to(root / "nowhere")
    expected = sorted({*expected, "linked/12.png"})
    assert trained_on(root) == expected
    assert sorted(str(file.relative_to(root)) for file in find_images([str(root)])) == expected
    assert open_splits(str(root)).left_out == [
        "1 link that leads nowhere: cat/gone.png",
        "1 file .part: cat/11.png.part",
        "1 file .txt: dog/notes.txt",
        "1 file without an ending: cat/10",
    ]


def archive_of(root, path, rename):
    """An archive of every file of a folder, under names that `rename` changes."""
    files = [(file, rename(file.relative_to(root).as_posix())) for file in sorted(root.rglob("*")) if file.is_file()]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for file, name in files:
                archive.writestr(name, file.read_bytes())
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as archive:
            for file, name in files:
                archive.add(file, name)
    return path


@pytest.mark.parametrize("kind", ["data.zip", "data.tar", "data.tar.gz"])
@pytest.mark.parametrize(
    "rename",
    [str, "./{}".format, lambda name: name.replace("/", "\\"), lambda name: "photos\\" + name.replace("/", "\\")],
    ids=["plain", "dot", "Windows", "Windows in a folder"],
)
def test_an_archive_has_the_images_of_the_folder(tmp_path, kind, rename):
    expected = odd_folder(tmp_path / "data")
    archive = archive_of(tmp_path / "data", tmp_path / kind, rename)
    found = [name.removeprefix("./").removeprefix("photos/") for name in trained_on(archive)]
    assert found == sorted(expected)
    train = open_splits(str(archive), val_fraction=0).train
    assert train.classes == ["cat", "dog", "dog.png"] and train.image(0).size == (4, 4)


@POSIX
def test_a_backslash_in_the_name_of_a_folder_is_a_letter(tmp_path):
    root = touch(tmp_path / "data", "AC\\DC/0.png", "AC\\.DC/1.png")
    assert open_splits(str(root), val_fraction=0).train.classes == ["AC\\.DC", "AC\\DC"]
    assert [file.name for file in find_images([str(root)])] == ["1.png", "0.png"]


def test_a_file_that_is_named_is_taken_whatever_its_name(tmp_path):
    root = touch(tmp_path, ".hidden.png", "photo", "._0.jpg")
    named = [str(root / name) for name in (".hidden.png", "photo", "._0.jpg", "missing.png")]
    assert [str(file) for file in find_images(named)] == named
    with pytest.raises(DataError, match="no image in this folder"):
        find_images([str(root)])


def test_what_macos_leaves_in_a_shard_is_no_image(tmp_path):
    for i in range(2):
        touch(tmp_path / "s", f"{i}.png", f"__MACOSX/{i}.png", f"._{i}.png")
        (tmp_path / "s" / f"{i}.cls").write_text(str(i))
        (tmp_path / "s" / "__MACOSX" / f"{i}.cls").write_text(str(i))
    shard = archive_of(tmp_path / "s", tmp_path / "a.tar", str)
    train = open_splits(f"wds/{shard}", val_fraction=0).train
    assert [train.name(i) for i in range(len(train))] == [f"{shard}/0.png", f"{shard}/1.png"]
