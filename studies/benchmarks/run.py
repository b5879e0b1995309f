"""Measures suites of suites.yaml, one after the other, and keeps the rows of each as NAME.csv.

python -m studies.benchmarks.run peers train engines latency sizes large
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

import yaml

from ..common import RESULTS, STUDIES

HERE = STUDIES / "benchmarks"
ROWS = RESULTS / "benchmarks"
START = "from supertokenvit.cli import main; main()"


def command(suite: dict, out: Path) -> list[str]:
    """Writes the command line of a suite."""
    options = []
    for key, value in suite["args"].items():
        text = yaml.safe_dump(value, default_flow_style=True).split("\n")[0]
        options.append(f"--{key}={text}")
    return ["benchmark", *suite["models"], *options, f"--out={out}"]


def measure(name: str, suite: dict) -> int:
    """Runs one suite, keeps what it measured, and returns its exit code (minus the signal, if one ended it)."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        argv = command(suite, out)
        print(f"{name}: supertokenvit {' '.join(argv[:-1])}", flush=True)
        code = subprocess.run([sys.executable, "-c", START, *argv]).returncode
        if code < 0:
            print(f"{name}: ended by signal {-code}; what it had measured is kept", file=sys.stderr, flush=True)
        if (out / "rows.csv").exists():
            shutil.copy(out / "rows.csv", ROWS / f"{name}.csv")
        return code


def main(argv: Sequence[str] | None = None) -> None:
    """Measures the suites named."""
    suites = yaml.safe_load((HERE / "suites.yaml").read_text())
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = [name for name in suites if not name.startswith("gpu")]
    parser.add_argument("suites", nargs="*", help=f"of {', '.join(suites)}; all but those for a GPU by default")
    wanted = parser.parse_args(argv).suites or usual
    unknown = [name for name in wanted if name not in suites]
    if unknown:
        parser.error(f"no suite {unknown[0]}: there are {', '.join(suites)}")
    codes = [measure(name, suites[name]) for name in wanted]
    sys.exit(any(codes))


if __name__ == "__main__":
    main()
