"""The folder of the page: what is in it, what an older one keeps, and what is refused before anything is written."""

import base64
import hashlib
import io
import json
import re
import stat
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from supertokenvit.cli import main
from supertokenvit.exporting import browser_runtime, web
from supertokenvit.exporting import export as module
from supertokenvit.exporting.export import check_place
from supertokenvit.exporting.options import ExportError

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "runtime" / "src" / "supertokenvit_runtime" / "page"


@pytest.fixture
def packed(monkeypatch):
    """An archive as npm makes them, and its checksum as the one that was tested."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name in (*browser_runtime.FILES, "ort.all.min.js"):
            entry = tarfile.TarInfo(f"package/dist/{name}")
            entry.size = len(name)
            archive.addfile(entry, io.BytesIO(name.encode()))
    content = buffer.getvalue()
    monkeypatch.setattr(browser_runtime, "SHA512", base64.b64encode(hashlib.sha512(content).digest()).decode())
    return content


@pytest.fixture
def home(monkeypatch, tmp_path):
    monkeypatch.setattr(browser_runtime, "cache", lambda: tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def cached(packed, home):
    home.mkdir()
    (home / browser_runtime.ARCHIVE).write_bytes(packed)


def fake_npm(tmp_path, monkeypatch, lines):
    place = tmp_path / "bin"
    place.mkdir()
    npm = place / "npm"
    npm.write_text("#!/bin/sh\n" + lines)
    npm.chmod(npm.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{place}:/bin:/usr/bin")


def pictures(folder, count=2):
    folder.mkdir()
    for number in range(count):
        noise = np.random.default_rng(number).integers(0, 256, (900, 700, 3), dtype=np.uint8)
        exif = Image.Exif()
        exif[0x0112], exif[0x010F] = 6, "camera of a person"  # rotated, and made by
        Image.fromarray(noise).save(folder / f"a_black-dog{number}.jpg", exif=exif)
    (folder / "notes.txt").write_text("no picture")
    return folder


def written(root, name, examples=None):
    fresh = root / f"fresh-{name}"
    (web.model_folder(fresh, name) / "model.onnx").write_text(name)
    web.write_page(fresh, name, root / "page", examples)
    return fresh


def test_the_runtime_is_fetched_once_by_npm(packed, home, tmp_path, monkeypatch):
    (tmp_path / "archive").write_bytes(packed)
    calls = tmp_path / "calls"
    fake_npm(tmp_path, monkeypatch, f'echo "$*" >> "{calls}"\ncp "{tmp_path}/archive" "$5/{browser_runtime.ARCHIVE}"\n')
    assert browser_runtime.archive() == browser_runtime.archive() == home / browser_runtime.ARCHIVE
    (call,) = calls.read_text().splitlines()
    assert call.startswith(f"pack onnxruntime-web@{browser_runtime.VERSION} ")
    assert [path.name for path in home.iterdir()] == [browser_runtime.ARCHIVE]


def test_only_the_files_that_the_page_needs_are_unpacked(cached, tmp_path):
    browser_runtime.unpack(tmp_path / "runtime")
    names = {path.name: path.read_text() for path in (tmp_path / "runtime").iterdir()}
    assert names == {name: name for name in browser_runtime.FILES}
    assert set(re.findall(r"onnxruntime/([\w.-]+)", (PAGE / "worker.js").read_text())) == set(browser_runtime.FILES)


def test_a_machine_without_npm_is_told_what_to_do(home, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ExportError, match=r"there is no npm to fetch it: install Node.js, or put .*\.tgz into"):
        browser_runtime.archive()


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (
            "echo >&2\necho npm error code ENOTFOUND >&2\nexit 1\n",
            r"npm could not fetch it \(npm error code ENOTFOUND\)",
        ),
        ("exit 7\n", r"npm could not fetch it \(exit code 7\): try again with a network, or put"),
        (f'echo other > "$5/{browser_runtime.ARCHIVE}"\n', "its content is not that of onnxruntime-web"),
        ("exec sleep 60\n", "it took over 1 s"),
    ],
)
def test_what_npm_does_wrong_is_one_line_and_leaves_nothing(home, tmp_path, monkeypatch, lines, said):
    fake_npm(tmp_path, monkeypatch, lines)
    monkeypatch.setattr(browser_runtime, "SECONDS", 1)
    with pytest.raises(ExportError, match=said) as error:
        browser_runtime.archive()
    assert "\n" not in str(error.value) and not list(home.iterdir())


def test_a_kept_archive_that_changed_is_refused(packed, cached, home):
    (home / browser_runtime.ARCHIVE).write_bytes(packed + b"more")
    with pytest.raises(ExportError, match="delete it, so that it is fetched anew"):
        browser_runtime.archive()


def test_a_page_has_all_its_files_and_a_list_of_models(cached, tmp_path):
    page = written(tmp_path, "first")
    assert {path.name for path in PAGE.iterdir()} <= {path.name for path in page.iterdir()}
    listing = json.loads((page / "models.json").read_text())
    assert listing == {"answers": "browser", "models": ["first"], "examples": []}
    text = (page / "README.md").read_text()
    assert "python -m http.server --bind 127.0.0.1 8000" in text and "`first`" in text and "MIT" in text


def test_a_model_is_added_to_an_older_page_or_replaces_itself(cached, tmp_path):
    written(tmp_path, "first", str(pictures(tmp_path / "shown"))).rename(tmp_path / "page")
    added = written(tmp_path, "second")
    listing = json.loads((added / "models.json").read_text())
    assert listing["models"] == ["first", "second"] and len(listing["examples"]) == 2
    assert (added / "models" / "first" / "model.onnx").read_text() == "first"
    assert (added / "examples" / "01.jpg").read_bytes() == (tmp_path / "page" / "examples" / "01.jpg").read_bytes()
    (tmp_path / "page" / "models" / "first" / "model.onnx").write_text("older")
    again = written(tmp_path, "first", str(pictures(tmp_path / "others", 1)))
    assert (again / "models" / "first" / "model.onnx").read_text() == "first"
    assert len(json.loads((again / "models.json").read_text())["examples"]) == 1
    assert [path.name for path in (again / "examples").iterdir()] == ["01.jpg"]


def test_a_model_whose_folder_is_gone_is_no_longer_listed(cached, tmp_path):
    written(tmp_path, "first").rename(tmp_path / "page")
    (tmp_path / "page" / "models" / "first" / "model.onnx").unlink()
    (tmp_path / "page" / "models" / "first").rmdir()
    assert json.loads((written(tmp_path, "second") / "models.json").read_text())["models"] == ["second"]


def test_examples_are_small_upright_and_say_nothing_of_their_camera(cached, tmp_path):
    page = written(tmp_path, "first", str(pictures(tmp_path / "shown")))
    shown = json.loads((page / "models.json").read_text())["examples"]
    assert shown == [{"file": "01.jpg", "name": "a black dog0"}, {"file": "02.jpg", "name": "a black dog1"}]
    with Image.open(page / "examples" / "01.jpg") as picture:
        assert picture.width > picture.height and max(picture.size) == web.EXAMPLE_SIDE and not picture.getexif()
    assert b"camera of a person" not in (page / "examples" / "01.jpg").read_bytes()


def test_examples_that_cannot_be_shown_are_refused(cached, tmp_path):
    with pytest.raises(ExportError, match="gone is no folder"):
        web.example_files(tmp_path / "gone")
    (tmp_path / "none").mkdir()
    with pytest.raises(ExportError, match="there are no pictures in"):
        web.example_files(tmp_path / "none")
    (tmp_path / "none" / "broken.png").write_bytes(b"nothing")
    with pytest.raises(ExportError, match=r"--examples: .*broken.png: not an image"):
        written(tmp_path, "first", str(tmp_path / "none"))
    for number in range(web.EXAMPLES_AT_MOST + 1):
        (tmp_path / "none" / f"{number}.png").write_bytes(b"nothing")
    with pytest.raises(ExportError, match="a page shows 24 at most"):
        web.example_files(tmp_path / "none")


def test_only_an_older_page_is_replaced(cached, tmp_path):
    page = written(tmp_path, "first")
    check_place(page, "web")
    with pytest.raises(ExportError, match="not empty, and no export"):
        check_place(page, "onnx")
    (page / "CNAME").write_text("a name that its owner needs")
    with pytest.raises(ExportError, match="not empty, and no export"):
        check_place(page, "web")
    other = tmp_path / "other"
    other.mkdir()
    (other / "models.json").write_text("of something else")
    with pytest.raises(ExportError, match="not empty, and no export"):
        check_place(other, "web")


def test_export_writes_the_page_around_the_checked_model(cached, tmp_path, monkeypatch):
    def checked(folder, *rest):
        (folder / "model.onnx").write_text("checked")
        return []

    monkeypatch.setattr(module, "write_and_check", checked)
    page = module.export("stt_micro.cifar10", format="web", out=str(tmp_path / "page"))
    assert page == tmp_path / "page" / "index.html" and page.is_file()
    assert (tmp_path / "page" / "models" / "stt_micro.cifar10" / "model.onnx").read_text() == "checked"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--format", "web", "--input", "tensor"], "--input: not with --format web"),
        (["--format", "web", "--embedding", "true"], "--embedding: not with --format web"),
        (["--format", "web", "--examples", "gone"], "--examples: gone is no folder"),
        (["--examples", "gone"], "--examples: only with --format web"),
        (["--format", "web", "--int8", "true"], "--int8: only with --format openvino"),
    ],
)
def test_options_that_make_no_page_are_one_line(cached, tmp_path, monkeypatch, capsys, words, said):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stop:
        main(["export", "stt_micro.cifar10", "--out", "page", *words])
    errors = capsys.readouterr().err
    assert stop.value.code == 1 and said in errors and errors.strip().count("\n") == 0
    assert not (tmp_path / "page").exists()


def test_the_package_contains_the_page():
    text = (ROOT / "runtime" / "pyproject.toml").read_text()
    named = re.search(r"^supertokenvit_runtime = (\[.*\])", text, re.M).group(1)
    assert "page/*" in json.loads(named)
    assert all(path.is_file() for path in PAGE.iterdir())


def test_the_page_has_no_style_script_or_address_that_its_policy_forbids():
    for path in PAGE.iterdir():
        text = path.read_text()
        addresses = set(re.findall(r"https?://[\w.:-]+", text))
        assert addresses <= {"http://www.w3.org", "http://127.0.0.1:8000"}, path.name
    html = (PAGE / "index.html").read_text()
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", html)


def test_the_page_and_predict_have_the_same_limits():
    from supertokenvit.data.decode import MAX_BYTES, MAX_PIXELS

    text = (PAGE / "photograph.js").read_text()
    limits = [int(number.replace("_", "")) for number in re.findall(r"^const MOST_\w+ = ([\d_]+);", text, re.M)]
    assert limits == [MAX_BYTES, MAX_PIXELS]
