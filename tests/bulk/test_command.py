"""Answers in shards: the rows of `predict`, from wherever images lie, however often the command was killed."""

import json
import random
import shutil
import zipfile

import pyarrow.parquet
import pytest
from filelock import FileLock
from PIL import Image

from supertokenvit.bulk.command import predict_in_shards
from supertokenvit.bulk.parts import Parts
from supertokenvit.cli import main

from .conftest import make_model, make_pictures, packed


def ended(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(["predict", *map(str, words)])
    return stop.value.code, capsys.readouterr().err.strip()


def rows_in(path):
    return pyarrow.parquet.read_table(path).to_pylist()


def answer(model, out, *images, **options):
    """Rows of an answer that may have unreadable images."""
    try:
        predict_in_shards([str(image) for image in images], str(model), out=str(out), **options)
    except Exception as error:
        assert "could not be read" in str(error)
    return rows_in(out)


def test_the_rows_are_those_of_predict_and_one_file_is_left(model, pictures, tmp_path, capsys, inline):
    plain, bulk = tmp_path / "plain.parquet", tmp_path / "out" / "bulk.parquet"
    code, errors = ended(capsys, pictures, "--model", model, "--out", plain, "--batch_size", 4)
    assert code == 1
    code, again = ended(capsys, pictures, "--model", model, "--out", bulk, "--batch_size", 4, "--processes", 1)
    assert code == 1 and inline.answered == 6
    assert errors.splitlines()[0] == again.splitlines()[0] and "005.png: not an image" in again
    assert again.splitlines()[1].startswith("supertokenvit: 1 image could not be read")
    assert rows_in(bulk) == rows_in(plain) and rows_in(bulk)[5]["error"] == "not an image"
    assert pyarrow.parquet.read_schema(bulk).equals(pyarrow.parquet.read_schema(plain))
    assert [path.name for path in bulk.parent.iterdir()] == ["bulk.parquet"]


@pytest.mark.parametrize("name", ["p.zip", "p.tar", "p.tar.gz"])
def test_an_archive_gives_the_rows_of_its_folder(model, pictures, tmp_path, inline, name):
    archive = packed(pictures, tmp_path / name)
    wanted = answer(model, tmp_path / "a.parquet", pictures)
    found = answer(model, tmp_path / "b.parquet", archive)
    assert [row["file"] for row in found] == [f"{archive}/{i:03}.png" for i in range(23)]
    assert [row | {"file": ""} for row in found] == [row | {"file": ""} for row in wanted]


@pytest.mark.parametrize("spec", ["{0}/s-{{00..02}}.tar", "wds/{0}/s-{{00..02}}.tar", "wds/{0}"])
def test_shards_are_answered_in_order_without_their_labels(model, tmp_path, inline, spec):
    shards = tmp_path / "shards"
    shards.mkdir()
    for number in range(3):
        folder = make_pictures(tmp_path / str(number), count=3 + number, bad=())
        (folder / "000.cls").write_text("0")
        packed(folder, shards / f"s-{number:02}.tar")
    found = answer(model, tmp_path / "a.parquet", spec.format(shards))
    wanted = [f"{shards}/s-{number:02}.tar/{i:03}.png" for number in range(3) for i in range(3 + number)]
    assert [row["file"] for row in found] == wanted and not any(row["error"] for row in found)


def test_a_damaged_member_of_an_archive_is_named_and_the_others_are_answered(model, tmp_path, inline):
    folder = make_pictures(tmp_path / "pictures", count=6, bad=())
    archive = packed(folder, tmp_path / "p.zip")
    with zipfile.ZipFile(archive) as file:
        start = file.getinfo("003.png").header_offset + 60
    content = bytearray(archive.read_bytes())
    content[start] ^= 255
    archive.write_bytes(content)
    rows = answer(model, tmp_path / "a.parquet", archive)
    assert [bool(row["error"]) for row in rows] == [i == 3 for i in range(6)]
    assert "cannot be unpacked" in rows[3]["error"]


def interrupted(monkeypatch, model, pictures, out, kept):
    """Leaves an unfinished file with some of its parts."""
    with monkeypatch.context() as patch:
        patch.setattr(Parts, "join", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            predict_in_shards([str(pictures)], str(model), out=str(out))
    parts = sorted(out.with_name(f"{out.name}.parts").glob("0*.parquet"))
    assert len(parts) == 6
    for number, part in enumerate(parts):
        if number not in kept:
            part.unlink()
            part.with_name(f".{part.name}-123").write_bytes(b"half a part")


def test_whatever_was_kept_the_file_is_the_same_and_only_the_rest_is_done(
    model, pictures, tmp_path, inline, monkeypatch
):
    answer(model, tmp_path / "whole.parquet", pictures)
    draw = random.Random(0)
    for number in range(6):
        out = tmp_path / f"{number}.parquet"
        kept = set(draw.sample(range(6), number))
        interrupted(monkeypatch, model, pictures, out, kept)
        inline.answered = 0
        answer(model, out, pictures, resume=True)
        assert inline.answered == 6 - number
        assert out.read_bytes() == (tmp_path / "whole.parquet").read_bytes()
        assert not out.with_name(f"{out.name}.parts").exists()


def test_another_list_model_or_option_is_refused_in_one_line(model, pictures, tmp_path, capsys, inline, monkeypatch):
    out = tmp_path / "a.parquet"
    interrupted(monkeypatch, model, pictures, out, {1, 2})
    other = make_model(tmp_path / "other", seed=1)
    capsys.readouterr()
    words = ["--out", out, "--processes", 1]
    code, errors = ended(capsys, pictures, "--model", model, *words)
    assert code == 1 and "go on with --resume" in errors and errors.count("\n") == 0
    code, errors = ended(capsys, pictures, "--model", other, *words, "--resume")
    assert code == 1 and "begun with another model" in errors and errors.count("\n") == 0
    code, errors = ended(capsys, pictures, "--model", model, *words, "--resume", "--topk", 1)
    assert code == 1 and "begun with other options" in errors and errors.count("\n") == 0
    Image.new("RGB", (9, 9)).save(pictures / "007.png")  # the same name, another size
    code, errors = ended(capsys, pictures, "--model", model, *words, "--resume")
    assert code == 1 and "begun with a different list of images" in errors and errors.count("\n") == 0
    assert not out.exists() and len(list(Parts(out).folder.glob("0*.parquet"))) == 2


def test_a_complete_file_stays_as_it_is_when_it_is_resumed(model, pictures, tmp_path, capsys, inline):
    out = tmp_path / "a.parquet"
    answer(model, out, pictures, resume=True)
    before, inline.answered = out.stat().st_mtime_ns, 0
    answer(model, out, pictures, resume=True)
    assert out.stat().st_mtime_ns == before and inline.answered == 0
    assert "complete already" in capsys.readouterr().out
    (pictures / "000.png").unlink()
    code, errors = ended(capsys, pictures, "--model", model, "--out", out, "--resume")
    assert code == 1 and "different list" in errors and out.stat().st_mtime_ns == before
    assert not Parts(out).folder.exists()
    answer(model, out, pictures)  # without --resume it is replaced, as by predict
    assert len(rows_in(out)) == 22


def test_parts_that_a_killed_command_could_not_remove_are_not_taken_for_those_of_the_next(
    model, pictures, tmp_path, inline
):
    out = tmp_path / "a.parquet"
    wanted = answer(model, tmp_path / "b.parquet", pictures)
    Parts(out).folder.mkdir()
    shutil.copy(tmp_path / "b.parquet", Parts(out).path(0))
    assert answer(model, out, pictures) == wanted


def test_two_commands_do_not_write_one_file(model, pictures, tmp_path, capsys, inline):
    parts = Parts(tmp_path / "a.parquet")
    parts.folder.mkdir()
    with FileLock(parts.folder / ".lock"):
        code, errors = ended(capsys, pictures, "--model", model, "--out", parts.out, "--processes", 1)
    assert code == 1 and "another command is writing it" in errors


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--processes", "2"], "name a file with --out NAME.parquet"),
        (["--resume", "--out", "a.csv"], "name a file with --out NAME.parquet"),
        (["--processes", "2", "--out", "a.parquet", "--json"], "--json: not with --processes"),
        (["--processes", "0", "--out", "a.parquet"], "--processes 0: must be"),
    ],
)
def test_options_that_do_not_go_together_are_refused(model, pictures, capsys, words, said):
    code, errors = ended(capsys, pictures, "--model", model, *words)
    assert code == 2 and said in errors and errors.count("\n") == 0


@pytest.mark.parametrize("name", ["gone.tar", "gone-{00..01}.tar", "empty.zip"])
def test_an_archive_without_images_is_refused(model, tmp_path, capsys, name):
    with zipfile.ZipFile(tmp_path / "empty.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    code, errors = ended(capsys, tmp_path / name, "--model", model, "--out", tmp_path / "a.parquet", "--processes", 1)
    assert code == 1 and ("no such file" in errors or "no image" in errors) and errors.count("\n") == 0


def test_the_file_says_what_was_asked(model, pictures, tmp_path, inline):
    answer(model, tmp_path / "a.parquet", pictures, topk=2)
    about = json.loads(Parts(tmp_path / "a.parquet").written_for())
    assert about["count"] == 23 and about["options"]["topk"] == 2
