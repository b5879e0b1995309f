"""The arrows between the modules of data/ run one way, and opening a data set loads no heavy library."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import supertokenvit.data

FOLDER = Path(supertokenvit.data.__file__).parent
TABLE = [line.split()[0] for line in supertokenvit.data.__doc__.split("\n\n")[1].splitlines()[1:]]


def imported(module):
    """The modules of data/ that a module imports anywhere in its text, so also within functions."""
    nodes = [n for n in ast.walk(ast.parse((FOLDER / f"{module}.py").read_text())) if isinstance(n, ast.ImportFrom)]
    return {name for n in nodes if n.level == 1 for name in ([n.module] if n.module else [a.name for a in n.names])}


def test_the_table_of_the_package_has_every_module():
    assert sorted(TABLE) == sorted(path.stem for path in FOLDER.glob("*.py") if path.stem != "__init__")


@pytest.mark.parametrize("module", TABLE)
def test_imports_run_up_the_table_only(module):
    assert imported(module) <= set(TABLE[: TABLE.index(module)])


def test_where_data_comes_from_does_not_know_the_other_places():
    assert imported("sources") == {"decode"}
    assert imported("libraries") == {"decode", "sources"}
    assert not imported("formats") & {"libraries", "splits"}


def test_opening_a_data_set_imports_no_heavy_library():
    heavy = {"sklearn", "datasets", "matplotlib", "torchmetrics"}
    program = f"import sys, supertokenvit.data.splits; print(*{heavy!r} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout == "\n"
