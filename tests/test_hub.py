"""The page beside a model, and models that are pushed to the Hugging Face Hub, here a server of the test."""

import base64
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import huggingface_hub
import pytest
from huggingface_hub import constants
from rich.console import Console

from supertokenvit.cli import main
from supertokenvit.hub import HubError, push
from supertokenvit.model_folder import ModelCard, load_model, write_size
from supertokenvit.training.recipe import Recipe
from supertokenvit.training.run import train_recipe

from .training.conftest import TINY, make_folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    root = tmp_path_factory.mktemp("hub")
    data = make_folder(root / "animals", classes=("cat", "dog", "emu"), per_class=12)
    options = TINY | {"data": str(data), "out": str(root / "pets"), "epochs": 1, "data_license": "CC BY 4.0"}
    return train_recipe(Recipe(**options), console=Console(quiet=True)).path


class FakeHub(BaseHTTPRequestHandler):
    """Answers what huggingface_hub asks when a folder is uploaded, and keeps the files."""

    def do_POST(self):
        body = self.body()
        hub = self.server
        hub.asked.append((self.path, self.headers.get("Authorization")))
        if hub.refuses:
            return self.answer(403, {"error": "you may not write here"})
        if self.path == "/api/repos/create":
            hub.repositories.append(json.loads(body))
            return self.answer(200, {"url": f"{constants.ENDPOINT}/someone/pets"})
        if self.path.endswith("/preupload/main"):
            files = [{"path": file["path"], "uploadMode": "regular"} for file in json.loads(body)["files"]]
            return self.answer(200, {"files": [file | {"shouldIgnore": False} for file in files]})
        if self.path == "/api/validate-yaml":
            return self.answer(200, {"errors": [], "warnings": []})
        for line in map(json.loads, body.splitlines()):
            if line["key"] == "file":
                hub.files[line["value"]["path"]] = base64.b64decode(line["value"]["content"])
        return self.answer(
            200, {"commitUrl": f"{constants.ENDPOINT}/someone/pets/commit/1", "commitOid": "1", "success": True}
        )

    def body(self):
        """The commit comes in pieces, each behind its length."""
        if self.headers.get("Content-Length"):
            return self.rfile.read(int(self.headers["Content-Length"]))
        whole = b""
        while length := int(self.rfile.readline(), 16):
            whole += self.rfile.read(length)
            self.rfile.readline()
        self.rfile.readline()
        return whole

    def do_GET(self):
        self.answer(200, {"id": "someone/pets", "sha": "0", "siblings": []})

    def answer(self, status, content):
        text = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *words):
        """Says nothing."""


@pytest.fixture
def hub(monkeypatch):
    server = ThreadingHTTPServer(("127.0.0.1", 0), FakeHub)
    server.asked, server.repositories, server.files, server.refuses = [], [], {}, False
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    monkeypatch.setattr(constants, "ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    monkeypatch.setenv("HF_TOKEN", "hf_of_the_test")
    yield server
    server.shutdown()
    server.server_close()
    thread.join()


def test_what_is_pushed_is_the_model_with_its_page(trained, hub):
    assert push(trained, "someone/pets", private=True) == "hf-hub:someone/pets"
    assert push(trained, "someone/pets") and hub.repositories[0] != hub.repositories[1]  # the first one is private
    assert "private" in json.dumps(hub.repositories[0])
    assert set(hub.files) == {"config.json", "model.safetensors", "README.md"}
    for name, content in hub.files.items():
        own = (trained / "model" / name).read_bytes()
        folder = str(trained.parent).encode() + b"/"
        assert content.strip() == own.replace(folder, b"").strip()  # where the data lay is not told
        assert folder not in content
        assert (folder in own) == (name != "model.safetensors")
    assert {token for _, token in hub.asked} == {"Bearer hf_of_the_test"}


def test_a_refusal_is_one_line(trained, hub, capsys):
    hub.refuses = True
    with pytest.raises(SystemExit) as stop:
        main(["push", str(trained), "someone/pets"])
    printed = capsys.readouterr().err
    assert stop.value.code == 1 and printed.count("\n") == 1
    assert "someone/pets: cannot be pushed to the Hugging Face Hub (" in printed and not hub.files


@pytest.mark.parametrize("name", ["pets", "a/b/c", "/pets", "someone/"])
def test_a_name_that_is_none_is_refused(trained, name):
    with pytest.raises(HubError, match="must be OWNER/NAME"):
        push(trained, name)


def test_a_model_of_the_package_is_not_pushed():
    with pytest.raises(HubError, match="comes with the package"):
        push("stt_micro.cifar10", "someone/pets")


def test_the_page_says_what_the_hub_and_people_ask(trained):
    card = huggingface_hub.ModelCard.load(trained / "model" / "README.md")
    assert card.data.pipeline_tag == "image-classification" and card.data.library_name == "timm"
    model = load_model(trained)
    for text in ("# pets", "cat, dog, emu", "CC BY 4.0", "16 px", f"{100 * model.card.scores['validation']:.2f} %"):
        assert text in card.text, text


def test_the_page_follows_a_size_that_is_kept(trained):
    write_size(trained, 24, "named by the user")
    assert "the size 24 px" in (trained / "model" / "README.md").read_text()
    write_size(trained, 16, "named by the user")


@pytest.mark.parametrize(
    ("data", "told"),
    [
        ("/home/somebody/flowers", "flowers"),
        ("../secret/flowers", "flowers"),
        ("wds//home/somebody/f-{0..3}.tar", "f-{0..3}.tar"),
        ("hfds//home/somebody/flowers", "flowers"),
        ("hfds/owner/flowers", "hfds/owner/flowers"),
        ("torch/cifar10", "torch/cifar10"),
        ("digits", "digits"),
        (None, None),
    ],
)
def test_a_published_card_names_no_folder(data, told):
    assert ModelCard(data=data).for_others().data == told
