"""Measures suites of suites.yaml, one after the other, and keeps the rows of each as NAME.csv.

python results/benchmarks/run.py peers train engines latency sizes large
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

HERE = Path(__file__).parent
START = "from supertokenvit.cli import main; main()"


def command(suite: dict, out: Path) -> list[str]:
    """The command line of a suite."""
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
            shutil.copy(out / "rows.csv", HERE / f"{name}.csv")
        return code


if __name__ == "__main__":
    suites = yaml.safe_load((HERE / "suites.yaml").read_text())
    wanted = sys.argv[1:] or [name for name in suites if not name.startswith("gpu")]
    unknown = [name for name in wanted if name not in suites]
    if unknown:
        sys.exit(f"no suite {unknown[0]}: there are {', '.join(suites)}")
    codes = [measure(name, suites[name]) for name in wanted]
    sys.exit(any(codes))
