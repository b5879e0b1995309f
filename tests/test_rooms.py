"""The house: arrows between rooms run down, no circle of imports, files stay short."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "src" / "supertokenvit"
FLOORS = [
    {"errors"},
    {"machine", "command_line", "console", "products", "sizes"},
    {"model"},
    {"preprocessing", "run_folder", "engines"},
    {"data"},
    {"tasks"},
    {"dense", "model_page"},
    {"model_folder"},
    {"prediction"},
    {"explaining", "hub"},
    {"evaluation", "answers", "serving"},
    {"evaluation_report", "bulk"},
    {"evaluation_sizes", "inspecting"},
    {"training", "exporting"},
    {"benchmarking"},
    {"verbs"},
    {"cli"},
]
HEIGHT = {room: height for height, rooms in enumerate(FLOORS) for room in rooms}
FILES = sorted(PACKAGE.rglob("*.py"))


def module_of(path):
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def imports_of(path):
    """Modules of the package that a file imports, wherever in it."""
    here = module_of(path) if path.name == "__init__.py" else module_of(path)[:-1]
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = here[: len(here) - node.level + 1] + tuple((node.module or "").split(".") if node.module else ())
            for name in node.names:
                whole = (*base, name.name)
                file = PACKAGE.joinpath(*whole)
                found.add(whole if file.with_suffix(".py").exists() or file.is_dir() else base)
    return {module for module in found if module}


def test_every_file_has_a_room():
    assert {module_of(path)[0] for path in FILES if module_of(path)} == set(HEIGHT)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_arrows_between_rooms_run_down(path):
    if not module_of(path):
        return  # the package itself names what is public
    room = module_of(path)[0]
    for module in imports_of(path):
        other = module[0]
        if other != room:
            assert HEIGHT[other] < HEIGHT[room], f"{room} imports {'.'.join(module)}"


def test_there_is_no_circle_of_imports_within_a_room():
    arrows = {module_of(path): imports_of(path) - {module_of(path)} for path in FILES if path.name != "__init__.py"}
    done = set()

    def visit(module, way):
        assert module not in way, " -> ".join(".".join(m) for m in (*way, module))
        if module not in done:
            for other in arrows.get(module, ()):
                visit(other, (*way, module))
            done.add(module)

    for module in arrows:
        visit(module, ())


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_files_stay_short(path):
    lines = len(path.read_text().splitlines())
    assert lines < (100 if path.name == "cli.py" else 400)


def test_results_hold_no_code():
    assert not list((PACKAGE.parents[1] / "results").rglob("*.py"))
