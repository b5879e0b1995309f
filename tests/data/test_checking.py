import io
import shutil
import zipfile

import pytest
from PIL import Image
from rich.console import Console

from supertokenvit.cli import main
from supertokenvit.data import decode
from supertokenvit.data.checking import check
from supertokenvit.data.readers import FolderReader
from tests.data.test_decode import encoded, huge_png
from tests.training.conftest import make_folder


def checked(path):
    text = io.StringIO()
    report = check(str(path), console=Console(file=text, width=200))
    return report, text.getvalue()


def test_a_sound_folder_has_no_problems(tmp_path):
    report, text = checked(make_folder(tmp_path / "data"))
    assert report.problems == [] and report.images == {"train": 22, "val": 2}
    assert "cat" in text and "up to 32 px" in text and "0 damaged" in text


def test_files_that_cannot_be_read_are_fatal_as_they_are_in_training(tmp_path, monkeypatch):
    data, read = make_folder(tmp_path / "data"), FolderReader.read

    def refuse(self, i):
        if self.name(i).endswith("dog/007.png"):
            raise PermissionError(13, "Permission denied")
        return read(self, i)

    monkeypatch.setattr(FolderReader, "read", refuse)
    report, _ = checked(data)
    assert len(report.fatal) == 1 and "dog/007.png: Permission denied" in report.fatal[0]


def test_each_kind_of_bad_file_is_named(tmp_path):
    data = make_folder(tmp_path / "data", per_class=20)
    (data / "cat" / "zero.png").write_bytes(b"")
    (data / "cat" / "text.jpg").write_text("hello")
    whole = (data / "cat" / "000.png").read_bytes()
    (data / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (data / "dog" / "bomb.png").write_bytes(huge_png())
    (data / "dog" / "notes.doc").write_text("x")
    report, text = checked(data)
    for name, reason in (("zero", "empty"), ("text", "not an image"), ("cut", "damaged"), ("bomb", "over the limit")):
        assert any(name in line and reason in line for line in report.damaged), name
    assert any("notes.doc" in line for line in report.strange)
    assert len(report.damaged) == 4 and "4 damaged" in text and not report.fatal


def test_duplicates_across_splits_and_labels_are_named(tmp_path):
    data = tmp_path / "data"
    make_folder(data / "train")
    make_folder(data / "val", per_class=3, seed=1)
    shutil.copy(data / "train" / "cat" / "003.png", data / "val" / "cat" / "copy.png")
    shutil.copy(data / "train" / "cat" / "004.png", data / "train" / "dog" / "copy.png")
    report, _ = checked(data)
    assert any("train and val" in line and "003.png" in line for line in report.duplicates)
    assert any("two labels" in line and "004.png" in line for line in report.duplicates)
    assert len(report.duplicates) == 2


def test_pictures_of_one_colour_and_other_shape_are_no_duplicates(tmp_path):
    data = make_folder(tmp_path / "data")
    Image.new("RGB", (2, 8)).save(data / "cat" / "wide.png")
    Image.new("RGB", (4, 4)).save(data / "dog" / "square.png")
    assert checked(data)[0].duplicates == []


def test_class_names_are_shown_as_they_are_though_they_look_like_markup(tmp_path):
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for k, name in enumerate(("[red]", "[bold]x")):
            for i in range(6):
                archive.writestr(f"{name}/{i}.png", encoded(Image.new("RGB", (4, 4), (i, k, 0))))
    report, text = checked(tmp_path / "data.zip")
    assert "[red]" in text and "[bold]x" in text and report.problems == []


def test_everything_is_decoded_though_it_is_handed_out_in_portions(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "AT_ONCE", 5)
    data = make_folder(tmp_path / "data")
    (data / "dog" / "last.png").write_bytes(b"")
    report, _ = checked(data)
    assert len(report.damaged) == 1 and "last.png" in report.damaged[0]


def test_class_in_one_split_only_is_named(tmp_path):
    make_folder(tmp_path / "data" / "train", classes=("a", "b", "c"))
    make_folder(tmp_path / "data" / "val", classes=("a", "b"), per_class=3, seed=1)
    report, _ = checked(tmp_path / "data")
    assert report.strange == ["the val split has no image of: c"]


@pytest.mark.parametrize("make", [lambda p: p.mkdir(), lambda p: make_folder(p, classes=("one",))])
def test_what_cannot_be_trained_on_ends_with_code_1(tmp_path, capsys, make):
    make(tmp_path / "data")
    with pytest.raises(SystemExit) as stop:
        main(["check-data", str(tmp_path / "data")])
    assert stop.value.code == 1
    assert "training on this would fail" in capsys.readouterr().err


def test_everything_damaged_is_fatal(tmp_path):
    data = make_folder(tmp_path / "data", per_class=4)
    for file in data.rglob("*.png"):
        file.write_bytes(b"x")
    report, _ = checked(data)
    assert any("no image of the train split" in line for line in report.fatal)


def test_one_class_damaged_throughout_is_fatal(tmp_path):
    data = make_folder(tmp_path / "data", per_class=4)
    for file in (data / "cat").iterdir():
        file.write_bytes(b"x")
    report, _ = checked(data)
    assert report.fatal == ["only training images of one class can be decoded: dog"]


def test_damaged_member_of_a_zip_file_is_named_and_the_rest_is_checked(tmp_path):
    content = encoded(Image.new("RGB", (4, 4)))
    with zipfile.ZipFile(tmp_path / "data.zip", "w") as archive:
        for name in ("a/0", "a/1", "b/0", "b/1"):
            archive.writestr(f"{name}.png", content)
    packed = (tmp_path / "data.zip").read_bytes()
    (tmp_path / "data.zip").write_bytes(packed.replace(content, content[:-1] + b"?", 1))
    report, _ = checked(tmp_path / "data.zip")
    assert len(report.damaged) == 1 and "a/0.png: cannot be unpacked" in report.damaged[0]
