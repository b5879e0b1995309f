"""Runs timm's own model tests on every stt_* model: `make test-timm`, with further pytest arguments if any.

The tests come from the source distribution of the installed timm; nothing of them is kept.
"""

import os
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path

import timm

PLUGIN = """
import timm
import supertokenvit

listed = timm.list_models


def list_models(filter="", module="", *args, **kwargs):
    if isinstance(module, list) and "hiera" in module:  # timm's list of modules with forward_intermediates
        module = [*module, "family"]
    return listed(filter, module, *args, **kwargs)


timm.list_models = list_models
"""


def main(arguments: list[str]) -> int:
    """Exit code of pytest."""
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch)
        wanted = [f"timm=={timm.__version__}", "--no-deps", "--no-binary", "timm", "--quiet", "--dest", scratch]
        subprocess.run([sys.executable, "-m", "pip", "download", *wanted], check=True)
        with tarfile.open(next(root.glob("timm-*.tar.gz"))) as archive:
            archive.extractall(root, [m for m in archive if "/tests/" in m.name], filter="data")
        (root / "stt_plugin.py").write_text(PLUGIN)
        environment = {k: v for k, v in os.environ.items() if k != "GITHUB_ACTIONS"}
        environment["PYTHONPATH"] = os.pathsep.join([scratch, str(Path(__file__).resolve().parents[1] / "src")])
        command = [sys.executable, "-m", "pytest", "-p", "stt_plugin", "-p", "no:cacheprovider", "-q", "-k", "stt_"]
        tests = next(root.glob("timm-*/tests"))
        return subprocess.run([*command, "test_models.py", *arguments], cwd=tests, env=environment).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
