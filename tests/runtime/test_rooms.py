"""The runtime's house: it knows nothing of the package above, arrows run down, and the server stays in its room."""

import ast
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "runtime" / "src" / "supertokenvit_runtime"
FLOORS = [
    {"errors"},
    {"answers", "decode", "about", "sessions"},
    {"exported"},
    {"model"},
    {"serving.settings", "serving.problems", "serving.metrics", "serving.openapi", "serving.worker", "serving.page"},
    {"serving.batching", "serving.bodies", "serving.preload"},
    {"serving.lanes"},
    {"serving.hosting"},
    {"serving.service"},
    {"serving.app"},
    {"serving.server"},
    {"serving.command"},
    {"cli"},
]
HEIGHT = {module: height for height, modules in enumerate(FLOORS) for module in modules}
FILES = sorted(path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
NEEDED = {"numpy", "PIL", "onnxruntime"} | sys.stdlib_module_names
SERVER = {"starlette", "uvicorn", "prometheus_client", "python_multipart"}


def name_of(path):
    return ".".join(path.relative_to(PACKAGE).with_suffix("").parts)


def imports_of(path):
    """Modules of the package that a file imports, and packages of others."""
    here = name_of(path).split(".")[:-1]
    own, others = set(), set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            others |= {name.name.split(".")[0] for name in node.names}
        elif isinstance(node, ast.ImportFrom) and not node.level:
            others.add(node.module.split(".")[0])
        elif isinstance(node, ast.ImportFrom):
            base = here[: len(here) - node.level + 1] + ([node.module] if node.module else [])
            for name in node.names:
                whole = ".".join([*base, name.name])
                own.add(whole if whole in HEIGHT else ".".join(base))
    return own - {""}, others


def test_every_file_has_a_floor():
    assert {name_of(path) for path in FILES} == set(HEIGHT)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_arrows_run_down_and_out_of_the_package_only_to_what_it_requires(path):
    own, others = imports_of(path)
    for module in own:
        assert HEIGHT[module] < HEIGHT[name_of(path)], module
    allowed = NEEDED | (SERVER if name_of(path).startswith("serving.") else set())
    assert others <= allowed
    assert len(path.read_text().splitlines()) < 400
