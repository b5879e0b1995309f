"""The command itself: what belongs to no verb."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import supertokenvit
from supertokenvit.cli import main
from supertokenvit.data.sources import DataError
from supertokenvit.training import recipe

from .training.conftest import TINY, make_folder


def ended(capsys, *words):
    with pytest.raises(SystemExit) as stop:
        main(list(words))
    return stop.value.code, capsys.readouterr().err


def test_version(capsys):
    main(["--version"])
    assert capsys.readouterr().out.strip() == supertokenvit.__version__


def test_without_a_verb_it_says_what_there_is(capsys):
    main([])
    assert "check-data" in capsys.readouterr().out
    code, errors = ended(capsys, "trian")
    assert code == 2 and "did you mean train?" in errors


def test_debug_shows_where_an_error_came_from(capsys):
    words = ["check-data", "no such folder"]
    code, errors = ended(capsys, *words)
    assert code == 1 and "Traceback" not in errors and len(errors.strip().splitlines()) == 1
    with pytest.raises(DataError):
        main(["train", "--data", "no such folder", "--debug"])


def test_a_resumed_run_cannot_change_its_recipe(tmp_path, capsys):
    code, errors = ended(capsys, "train", "--resume", str(tmp_path), "--lr", "0.1")
    assert (
        code == 2 and "lr cannot change (workers, cache, device, tensorboard, mlflow, skip_damaged, data can)" in errors
    )


def test_hyphens_and_underscores_are_the_same(tmp_path):
    data, out = make_folder(tmp_path / "data"), tmp_path / "run"
    args = ",".join(f'"{key}": {value}' for key, value in TINY["model_args"].items())
    words = ["train", "--data", str(data), "--out", str(out), "--model", "stt_nano", f"--model-args={{{args}}}"]
    main([*words, "--img-size=16", "--batch_size", "8", "--epochs", "1", "--precision", "fp32", "--device", "cpu"])
    assert (out / "model" / "model.safetensors").exists()


def test_an_error_of_a_worker_is_its_last_line(monkeypatch, capsys):
    def fails(argv):
        raise FileNotFoundError(
            "Caught FileNotFoundError in DataLoader worker process 0.\nOriginal Traceback\n  at\nlast: x"
        )

    def fails_without_a_word(argv):
        raise TimeoutError

    monkeypatch.setattr("supertokenvit.verbs.models.run", fails)
    assert ended(capsys, "models") == (1, "supertokenvit: last: x\n")
    monkeypatch.setattr("supertokenvit.verbs.models.run", fails_without_a_word)
    assert ended(capsys, "models") == (1, "supertokenvit: TimeoutError\n")


@pytest.mark.parametrize(
    "encoding", ["latin-1", *(pytest.param(e, marks=pytest.mark.slow) for e in ("ascii", "utf-8"))]
)
def test_output_in_any_encoding_shows_every_class_name(encoding, tmp_path):
    data = make_folder(tmp_path / "data", classes=("\u72ac", "cat"), per_class=3)
    words = [sys.executable, "-m", "supertokenvit.cli", "check-data", str(data)]
    done = subprocess.run(words, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True)
    assert done.returncode == 0, done.stderr
    assert ("\u72ac" if encoding == "utf-8" else "\\u72ac") in done.stdout.decode(encoding)


def test_every_option_of_a_training_has_its_own_line_of_help(capsys):
    """The help used to be called complete when its lines were gone."""
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    text = "".join(capsys.readouterr().out.split())
    source = Path(recipe.__file__).read_text()
    for field in dataclasses.fields(recipe.Recipe):
        line = re.search(rf'^    {field.name}: .*\n    """(.*?)"""', source, flags=re.MULTILINE | re.DOTALL)
        assert line, field.name
        assert "".join(line[1].split()) in text, field.name


def test_every_option_stands_under_one_heading():
    named = [name for names in recipe.GROUPS.values() for name in names]
    assert sorted(named) == sorted(field.name for field in dataclasses.fields(recipe.Recipe))
    assert len(recipe.GROUPS["most used"]) == 10


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("data: digits\n".encode("utf-16"), "not in UTF-8 .* save it so"),
        (b'data: "K\xe4fer"\n', "not in UTF-8"),
        (b"", "there is nothing in it"),
        (b"# only a remark\n", "there is nothing in it"),
        (b"- data\n", "expected lines like epochs: 30"),
        (b"just words", "expected lines like"),
        (b"data: [x\n", "not readable as YAML"),
        (b"\x00\x01", "not readable as YAML"),
    ],
)
@pytest.mark.parametrize("form", ["--recipe={}", "--recipe {}"])
def test_a_recipe_that_cannot_be_read_is_one_line(tmp_path, capsys, content, said, form):
    path = tmp_path / "r.yaml"
    path.write_bytes(content)
    code, errors = ended(capsys, "train", *form.format(path).split(" "))
    assert code == 2 and re.search(said, errors) and str(path) in errors and errors.strip().count("\n") == 0


def test_a_recipe_may_begin_with_the_mark_of_windows(tmp_path, capsys):
    path = tmp_path / "r.yaml"
    path.write_bytes(b"\xef\xbb\xbfdata: nowhere\n")
    code, errors = ended(capsys, "train", "--recipe", str(path))
    assert code == 1 and "nowhere: not there" in errors
