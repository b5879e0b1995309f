"""The scripts of results/, as they are when they are run."""

import importlib.util
import sys
from pathlib import Path

RESULTS = Path(__file__).parents[1] / "results"


def script(name):
    """The module of results/NAME.py, made anew; it finds what stands beside it."""
    path = RESULTS / f"{name}.py"
    if str(RESULTS) not in sys.path:
        sys.path.insert(0, str(RESULTS))
    spec = importlib.util.spec_from_file_location("results_" + name.replace("/", "_"), path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
