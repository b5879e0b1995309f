"""Near-duplicates with known truth, and nearest others against a slow reference."""

import csv
import shutil

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from PIL import Image

from supertokenvit.bulk import command, workers
from supertokenvit.cli import main
from supertokenvit.inspecting import duplicates
from supertokenvit.inspecting.duplicates import SAME, agreement, agreements, groups_of, nearest, thumbnails

from ..bulk.conftest import Inline, packed
from .conftest import COPIES, crops

MODEL = "stt_micro.cifar10"


@pytest.fixture(scope="module")
def answers(copied, tmp_path_factory):
    """Embeddings of the folder with copies."""
    import contextlib

    out = tmp_path_factory.mktemp("answers") / "answers.parquet"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(workers, "workers", lambda processes: contextlib.nullcontext(Inline()))
        command.predict_in_shards([str(copied[0])], MODEL, out=str(out), embeddings=True, tta="flip")
    return out


def table_of(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def ended(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(["neighbours", *map(str, words)])
    return stop.value.code, capsys.readouterr().err.strip()


def test_copies_are_found_and_little_else_is_taken_for_one(answers, copied, tmp_path, capsys):
    main(["neighbours", str(answers), "--out", str(tmp_path / "n.csv")])
    groups = {}
    for row in table_of(tmp_path / "n.csv"):
        if row["group"]:
            groups.setdefault(row["group"], set()).add(row["file"].rsplit("/", 1)[1])
    found = {frozenset({a, b}) for group in groups.values() for a in group for b in group if a < b}
    right = found & copied[1]
    print(sorted(map(sorted, found - copied[1])))
    assert len(right) >= 0.95 * len(copied[1])
    assert len(right) >= 0.95 * len(found)
    with Image.open(tmp_path / "n.png") as picture:
        assert min(picture.size) > 300
    printed = capsys.readouterr().out
    assert f"{len(groups)} groups of near-duplicates" in printed and f"written: {tmp_path}/n.csv" in printed


def test_the_table_names_the_nearest_others_of_every_image(answers, tmp_path):
    main(["neighbours", str(answers), "--out", str(tmp_path / "n.parquet"), "--count", "3"])
    found = pyarrow.parquet.read_table(tmp_path / "n.parquet").to_pylist()
    rows = pyarrow.parquet.read_table(answers).to_pylist()
    assert [row["file"] for row in found] == [row["file"] for row in rows for _ in range(3)]
    vectors = np.array([row["embedding"] for row in rows], dtype=np.float64)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    similar = vectors @ vectors.T
    np.fill_diagonal(similar, -2)
    for place in range(len(rows)):
        three = found[3 * place : 3 * place + 3]
        assert [row["rank"] for row in three] == [1, 2, 3]
        np.testing.assert_allclose([row["similarity"] for row in three], np.sort(similar[place])[:-4:-1], atol=1e-4)
        for row in three:
            other = next(i for i, one in enumerate(rows) if one["file"] == row["neighbour"])
            assert row["similarity"] == pytest.approx(similar[place, other], abs=1e-4)


def test_blocks_change_nothing(monkeypatch):
    vectors = np.random.default_rng(0).normal(size=(37, 8)).astype(np.float32)
    wanted = nearest(vectors, 50)
    assert wanted[0].shape == (37, 36)
    monkeypatch.setattr(duplicates, "BLOCK", 5)
    for found, value in zip(nearest(vectors, 50), wanted, strict=True):
        np.testing.assert_allclose(found, value, atol=1e-6)
    small = np.random.default_rng(0).integers(0, 256, (37, 16, 16, 3), dtype=np.uint8)
    blocked = agreements(small, wanted[0])
    monkeypatch.setattr(duplicates, "BLOCK", 1000)
    np.testing.assert_array_equal(blocked, agreements(small, wanted[0]))


@pytest.mark.parametrize("how", COPIES)
def test_pixels_tell_copies_from_other_pieces_of_the_same_photograph(how):
    pieces = list(crops())
    small = np.stack(list(thumbnails(pieces.__getitem__, len(pieces))))
    copies = [COPIES[how](piece) for piece in pieces]
    others = np.stack(list(thumbnails(copies.__getitem__, len(copies))))
    assert np.mean(agreement(small, others) >= SAME) > 0.97
    assert np.mean(agreement(small, np.roll(others, 1, axis=0)) >= SAME) < 0.03


def test_even_areas_agree_only_in_their_colour():
    white, grey = (np.full((1, 16, 16, 3), value, dtype=np.uint8) for value in (255, 200))
    assert agreement(white, white - 1)[0] > SAME > agreement(white, grey)[0]


def test_a_chain_of_copies_is_one_group():
    places = np.array([[1, 3], [2, 0], [1, 3], [4, 0], [3, 0]])
    same = np.array([[True, False], [True, True], [False, False], [False, False], [False, False]])
    assert groups_of(places, same) == [[0, 1, 2]]


def test_images_that_moved_are_found_where_they_are_now(answers, copied, tmp_path, capsys):
    out, moved = tmp_path / "n.csv", tmp_path / "moved"
    shutil.copytree(copied[0], moved)
    archive = packed(moved, tmp_path / "moved.zip")
    main(["neighbours", str(answers), "--out", str(out)])
    wanted = out.read_text()
    for place in (moved, archive):
        main(["neighbours", str(answers), "--out", str(out), "--images", str(place)])
        assert out.read_text() == wanted
    next(moved.iterdir()).unlink()
    capsys.readouterr()
    code, errors = ended(capsys, answers, "--out", out, "--images", moved)
    assert code == 1 and "are not the" in errors and errors.count("\n") == 0


def test_what_cannot_be_inspected_is_said_in_one_line(answers, tmp_path, capsys):
    for content, said in (({"file": ["a", "b"]}, "has no embeddings"), (None, "not a readable Parquet file")):
        path = tmp_path / "other.parquet"
        if content is None:
            path.write_text("nonsense")
        else:
            pyarrow.parquet.write_table(pyarrow.table(content), path)
        code, errors = ended(capsys, path)
        assert code == 1 and said in errors and errors.count("\n") == 0
    rows = pyarrow.parquet.read_table(answers)
    gone = rows.set_column(0, "file", pyarrow.array([f"gone/{i}.png" for i in range(len(rows))]))
    pyarrow.parquet.write_table(gone, tmp_path / "gone.parquet")
    code, errors = ended(capsys, tmp_path / "gone.parquet")
    assert code == 1 and "gone/0.png" in errors and "--images" in errors and errors.count("\n") == 0
    code, errors = ended(capsys, answers, "--out", tmp_path / "n.txt")
    assert code == 2 and "must end in .csv or .parquet" in errors
