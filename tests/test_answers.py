"""Where the answers of `supertokenvit predict` go."""

import csv
import json

import numpy as np
import pyarrow.parquet
import pytest
from PIL import Image

from supertokenvit import answers as answers_module
from supertokenvit.cli import main
from supertokenvit.prediction import Prediction

MODEL = "stt_micro.cifar10"


@pytest.fixture
def folder(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "pictures"
    folder.mkdir()
    for i in range(5):
        Image.fromarray(rng.integers(0, 255, (32, 40, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    return folder


def rows_of(folder, capsys, *words):
    main(["predict", str(folder), "--model", MODEL, "--json", *words])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_every_file_format_holds_the_same_answers(folder, tmp_path, capsys):
    rows = rows_of(folder, capsys, "--topk", "2")
    for ending in ("jsonl", "csv", "parquet"):
        out = tmp_path / "out" / f"answers.{ending}"
        main(["predict", str(folder), "--model", MODEL, "--topk", "2", "--out", str(out)])
        assert [path.name for path in out.parent.iterdir()] == [out.name]
        printed = capsys.readouterr().out
        assert f"written: {out} (5 images" in printed and printed.count("\n") == 1
        if ending == "jsonl":
            found = [json.loads(line) for line in out.read_text().splitlines()]
        elif ending == "parquet":
            found = pyarrow.parquet.read_table(out).to_pylist()
        else:
            with open(out, newline="") as file:
                table = list(csv.DictReader(file))
            assert list(table[0]) == ["file", "label_1", "probability_1", "label_2", "probability_2", "error"]
            found = [
                {
                    "file": row["file"],
                    "labels": [row["label_1"], row["label_2"]],
                    "probabilities": [float(row["probability_1"]), float(row["probability_2"])],
                    "error": row["error"] or None,
                }
                for row in table
            ]
        for mine, theirs in zip(found, rows, strict=True):
            assert mine["file"] == theirs["file"] and mine["labels"] == theirs["labels"] and mine["error"] is None
            np.testing.assert_allclose(mine["probabilities"], theirs["probabilities"], rtol=1e-5)
        out.unlink()


def test_a_file_that_is_no_image_has_its_row_and_the_code_says_so(folder, tmp_path, capsys):
    (folder / "2.png").write_bytes(b"nonsense")
    for ending in ("csv", "parquet"):
        out = tmp_path / f"answers.{ending}"
        with pytest.raises(SystemExit) as stop:
            main(["predict", str(folder), "--model", MODEL, "--out", str(out)])
        assert stop.value.code == 1 and "1 image could not be read" in capsys.readouterr().err
        assert out.exists()
    assert pyarrow.parquet.read_table(out).to_pylist()[2]["error"] == "not an image"
    assert pyarrow.parquet.read_table(out).to_pylist()[2]["labels"] == []
    lines = (tmp_path / "answers.csv").read_text().splitlines()
    assert lines[3].endswith("not an image") and len({line.count(",") for line in lines}) == 1


def test_an_interrupted_file_keeps_its_rows_and_not_its_name(folder, tmp_path, monkeypatch, capsys):
    def breaks_off(rows, total, hidden):
        for number, row in enumerate(rows):
            if number == 3:
                raise KeyboardInterrupt
            yield row

    monkeypatch.setattr(answers_module, "watched", breaks_off)
    out = tmp_path / "answers.jsonl"
    out.write_text("earlier\n")
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(folder), "--model", MODEL, "--out", str(out)])
    assert stop.value.code == 130 and out.read_text() == "earlier\n"
    assert len((tmp_path / "answers.jsonl.part").read_text().splitlines()) == 3


def test_an_unknown_ending_is_refused_before_anything_is_read(folder, tmp_path, capsys):
    with pytest.raises(SystemExit) as stop:
        main(["predict", str(folder), "--out", str(tmp_path / "answers.xlsx")])
    error = capsys.readouterr().err
    assert stop.value.code == 2 and "must end in .csv, .jsonl, .parquet" in error and error.count("\n") == 1


def test_lines_are_aligned_and_not_broken(folder, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    main(["predict", str(folder), "--model", MODEL, "--topk", "3"])
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 5 and all(line.startswith(str(folder)) and line.count(" %") == 3 for line in lines)
    assert len({line.index(line.split()[1]) for line in lines}) == 1


def test_a_line_names_the_likeliest_first():
    row = Prediction("a.jpg", ["cat", "dog", "emu"], [0.7, 0.2, 0.1])
    assert row.line(8) == "a.jpg     cat 70.0 %            then dog 20.0 %, emu 10.0 %"
    assert Prediction("a.jpg", ["cat"], [1.0]).line(0) == "a.jpg  cat 100.0 %"


def test_precision_and_views_may_be_chosen(folder, capsys):
    plain, flipped, rounded = (
        rows_of(folder, capsys, *words) for words in (["--tta", "none"], ["--tta", "flip"], ["--precision", "bf16"])
    )
    assert plain[0]["probabilities"] != flipped[0]["probabilities"]
    shifted = rows_of(folder, capsys)
    np.testing.assert_allclose(rounded[0]["probabilities"], shifted[0]["probabilities"], rtol=0.2, atol=0.03)
