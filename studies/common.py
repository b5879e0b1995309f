"""What studies share: where things are, rows, and the commit that made them."""

import argparse
import csv
import functools
import io
import statistics
import subprocess
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

STUDIES = Path(__file__).parent
ROOT = STUDIES.parent
RESULTS = ROOT / "results"
DOCS = ROOT / "docs"


def read_rows(path: Path) -> list[dict[str, str]]:
    """Reads the rows of a CSV file as text; there are none if there is no file."""
    if not path.exists():
        return []
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def write_rows(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Writes rows as CSV with the columns of the last one; an error leaves the file as it was."""
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, list(rows[-1]))
    writer.writeheader()
    writer.writerows(rows)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text.getvalue(), newline="")


def add_row(path: Path, row: dict[str, Any]) -> None:
    """Adds a row to a CSV file; a column that its first row does not have is an error."""
    columns = list(read_rows(path)[0]) if path.exists() else list(row)
    new = not path.exists()
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", newline="") as file:
        writer = csv.DictWriter(file, columns)
        if new:
            writer.writeheader()
        writer.writerow(row)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Writes the mean of percentages, and the lowest and highest when there are several."""
    around = f" ({min(values):.{digits}f} to {max(values):.{digits}f})" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f} %{around}"


def figure(what: str, value: float, unit: str, wanted: str = "") -> dict[str, Any]:
    """Makes a row of one measured value, with what was wanted beside it, and prints it."""
    print(f"{what}: {value:.4g} {unit}  {f'[{wanted}]' if wanted else ''}", flush=True)
    return {"what": what, "value": round(value, 4), "unit": unit, "wanted": wanted}


def refuse_options(about: str | None, argv: Sequence[str] | None) -> None:
    """Reads the command line of a study that takes no options: shows its help if asked, and refuses anything else."""
    argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args(argv)


def now() -> str:
    """Returns the time in UTC."""
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M")


@functools.cache  # it may change while a study runs
def commit() -> str:
    """Returns the commit of the code when it began to run; with -dirty behind it if that had been changed since."""

    def git(*words: str) -> str:
        return subprocess.run(["git", *words], cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()

    try:
        changed = git("status", "--porcelain", "src", "studies")
        return git("rev-parse", "--short", "HEAD") + ("-dirty" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
