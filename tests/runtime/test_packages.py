"""The two distributions as users install them."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
from pathlib import Path

import pytest

import supertokenvit
import supertokenvit_runtime
from tests.runtime.clients import png
from tests.runtime.graphs import write_graph

ROOT = Path(__file__).parents[2]


def requirements(path):
    project = tomllib.loads(path.read_text())["project"]
    return project["dependencies"], project["optional-dependencies"]


def test_the_package_requires_the_runtime_of_this_version():
    needed, extras = requirements(ROOT / "pyproject.toml")
    assert supertokenvit.__version__ == supertokenvit_runtime.__version__
    assert "supertokenvit-runtime>=0.1" in needed and extras["serve"] == ["supertokenvit-runtime[serve]>=0.1"]


def test_the_runtime_requires_three_packages():
    needed, _ = requirements(ROOT / "runtime" / "pyproject.toml")
    assert {line.split(">=")[0] for line in needed} == {"numpy", "onnxruntime", "pillow"}


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_both_wheels_build_and_the_runtime_predicts_in_an_environment_without_torch(tmp_path):
    for name in ("src", "runtime", "pyproject.toml", "README.md", "LICENSE"):  # building writes into the folder
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copyfile
        copy(ROOT / name, tmp_path / name)
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", "wheels", ".", "./runtime"]
    subprocess.run(build, check=True, cwd=tmp_path, env=clean)
    wheels = {path.name.split("-")[0]: path for path in (tmp_path / "wheels").iterdir()}
    assert set(wheels) == {"supertokenvit", "supertokenvit_runtime"}
    venv.create(tmp_path / "env", with_pip=True)
    binaries = tmp_path / "env" / "bin"
    subprocess.run([binaries / "pip", "install", "--quiet", wheels["supertokenvit_runtime"]], check=True, env=clean)
    (tmp_path / "a.png").write_bytes(png(0, 200, 0))
    write_graph(tmp_path / "model.onnx")
    words = [binaries / "supertokenvit-runtime", "predict", "a.png", "--model", "model.onnx"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=clean)
    assert done.returncode == 0 and "green 100.0 %" in done.stdout, done.stderr
    code = "import importlib.util, sys; sys.exit(importlib.util.find_spec('torch') is not None)"
    assert subprocess.run([binaries / "python", "-c", code], env=clean).returncode == 0
    words = [binaries / "supertokenvit-runtime", "serve", "--model", "model.onnx"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, env=clean)
    assert done.returncode == 1 and "pip install 'supertokenvit-runtime[serve]'" in done.stderr
