"""The commands of studies explain themselves."""

import pkgutil
import subprocess
from importlib import import_module

import pytest

import studies
from studies import tiny_imagenet
from studies.common import STUDIES

SHARED = {"studies.common", "studies.queue", "studies.networks.ablation", "studies.networks.peers"}
SHARED |= {"studies.networks.short", "studies.networks.controls"}
SHARED |= {"studies.dense.returns", "studies.explaining_rivals"}  # no commands
COMMANDS = [
    module.name
    for module in pkgutil.walk_packages([str(STUDIES)], f"{studies.__name__}.")
    if not module.ispkg and module.name not in SHARED
]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_how_to_call_a_study_and_starts_nothing(name, capsys):
    # --help of studies.benchmarks.attempts began a measurement of minutes, at whose end its rows were replaced
    with pytest.raises(SystemExit) as stop:
        import_module(name).main(["--help"])
    assert stop.value.code == 0 and f"python -m {name}" in capsys.readouterr().out


@pytest.mark.parametrize("name", COMMANDS)
def test_an_unknown_option_is_refused_before_anything_is_written(name, capsys):
    with pytest.raises(SystemExit) as stop:
        import_module(name).main(["--nonsense"])
    assert stop.value.code == 2 and capsys.readouterr().err


@pytest.fixture
def repository(tmp_path, monkeypatch):
    """A clone as that of Tiny-ImageNet, of two classes with the same first name."""
    root = tmp_path / "clone" / tiny_imagenet.ROOT
    for number in ("n1", "n2"):
        (root / "train" / number / "images").mkdir(parents=True)
        for i in range(3):
            (root / "train" / number / "images" / f"{number}_{i}.JPEG").write_bytes(f"{number} {i}".encode())
        (root / "train" / number / f"{number}_boxes.txt").write_text("no image")
    (root / "val" / "images").mkdir(parents=True)
    for i, number in enumerate(("n2", "n1")):
        (root / "val" / "images" / f"val_{i}.JPEG").write_bytes(number.encode())
    (root / "val" / "val_annotations.txt").write_text("val_0.JPEG\tn2\t0\t0\t9\t9\nval_1.JPEG\tn1\t0\t0\t9\t9\n")
    (root / "words.txt").write_text("n1\tcrane, a bird\nn2\tcrane\nn3\tants\n")
    git = ["git", "-C", str(tmp_path / "clone"), "-c", "user.name=a", "-c", "user.email=a@example.org"]
    for words in (["init", "-q"], ["add", "."], ["commit", "-qm", "images"]):
        subprocess.run([*git, *words], check=True)
    monkeypatch.setattr(tiny_imagenet, "COMMIT", "HEAD")
    monkeypatch.setattr(tiny_imagenet, "CLASSES", 2)
    monkeypatch.setattr(tiny_imagenet, "PARTS", {"train": 3, "test": 1})
    return tmp_path / "clone"


def test_tiny_imagenet_is_laid_out_by_class(repository, tmp_path):
    tiny_imagenet.main([str(repository), str(tmp_path / "data")])
    for part, name, content in (("train", "n1_2.JPEG", b"n1 2"), ("test", "val_1.JPEG", b"n1")):
        assert (tmp_path / "data" / part / "crane n1" / name).read_bytes() == content
    assert len(list((tmp_path / "data").rglob("*.JPEG"))) == 8


def test_a_copy_with_other_counts_is_refused_and_leaves_nothing(repository, tmp_path, monkeypatch):
    monkeypatch.setattr(tiny_imagenet, "PARTS", {"train": 4, "test": 1})
    with pytest.raises(SystemExit, match="train has 2 classes of .3. images"):
        tiny_imagenet.main([str(repository), str(tmp_path / "data")])
    assert [path.name for path in tmp_path.iterdir()] == ["clone"]
