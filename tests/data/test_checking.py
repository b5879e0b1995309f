import io
import shutil

import pytest
from PIL import Image
from rich.console import Console

from supertoken.cli import main
from supertoken.data.checking import check_data
from tests.training.conftest import make_folder


def checked(path):
    text = io.StringIO()
    report = check_data(str(path), console=Console(file=text, width=200))
    return report, text.getvalue()


def test_a_sound_folder_has_no_problems(tmp_path):
    report, text = checked(make_folder(tmp_path / "data"))
    assert report.problems == [] and report.images == {"train": 22, "val": 2}
    assert "cat" in text and "up to 32 px" in text and "0 damaged" in text


def test_each_kind_of_bad_file_is_named(tmp_path):
    data = make_folder(tmp_path / "data", per_class=20)
    (data / "cat" / "zero.png").write_bytes(b"")
    (data / "cat" / "text.jpg").write_text("hello")
    whole = (data / "cat" / "000.png").read_bytes()
    (data / "cat" / "cut.png").write_bytes(whole[: len(whole) // 2])
    Image.new("1", (30_000, 30_000)).save(data / "dog" / "bomb.png")
    (data / "dog" / "notes.doc").write_text("x")
    report, text = checked(data)
    for name, reason in (("zero", "empty"), ("text", "not an image"), ("cut", "damaged"), ("bomb", "over the limit")):
        assert any(name in line and reason in line for line in report.damaged), name
    assert any("notes.doc" in line for line in report.strange)
    assert len(report.damaged) == 4 and "4 damaged" in text and not report.fatal


def test_duplicates_across_parts_and_labels_are_named(tmp_path):
    data = tmp_path / "data"
    make_folder(data / "train")
    make_folder(data / "val", per_class=3, seed=1)
    shutil.copy(data / "train" / "cat" / "003.png", data / "val" / "cat" / "copy.png")
    shutil.copy(data / "train" / "cat" / "004.png", data / "train" / "dog" / "copy.png")
    report, _ = checked(data)
    assert any("train and val" in line and "003.png" in line for line in report.duplicates)
    assert any("two labels" in line and "004.png" in line for line in report.duplicates)
    assert len(report.duplicates) == 2


def test_class_in_one_part_only_is_named(tmp_path):
    make_folder(tmp_path / "data" / "train", classes=("a", "b", "c"))
    make_folder(tmp_path / "data" / "val", classes=("a", "b"), per_class=3, seed=1)
    report, _ = checked(tmp_path / "data")
    assert report.strange == ["the val part has no image of: c"]


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
    assert any("no image of the train part" in line for line in report.fatal)
