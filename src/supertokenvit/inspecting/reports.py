"""This module writes a report as a table, CSV or Parquet, with one picture beside it."""

import csv
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..answers import parquet_library
from ..errors import UsageError, UserError
from ..run_folder import put_in_place
from ..tasks.drawing import Panel, draw_panels, panel
from ..tasks.label_rows import shortened

ENDINGS = (".csv", ".parquet")
ROWS, COLUMNS = 8, 6  # of the picture
LETTERS = 26  # of a file's name below an image there


class InspectionError(UserError):
    """Reports images or answers that cannot be inspected."""


def checked(out: str) -> Path:
    """Returns the path of a report.

    Raises:
        UsageError: Its ending is not known, or its library is missing.
    """
    path = Path(out)
    if path.suffix.lower() not in ENDINGS:
        raise UsageError(f"--out {out}: must end in {' or '.join(ENDINGS)}")
    if path.suffix.lower() == ".parquet":
        parquet_library(path)
    return path


def write_table(path: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Writes rows under a temporary name and gives the file its own name when it is complete."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}")
    if path.suffix.lower() == ".parquet":
        pyarrow = parquet_library(path)
        values = {name: [row[k] for row in rows] for k, name in enumerate(columns)}
        pyarrow.parquet.write_table(pyarrow.table(values), temporary)
    else:
        with open(temporary, "w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            writer.writerow(columns)
            writer.writerows([["" if cell is None else cell for cell in row] for row in rows])
    put_in_place(temporary, path)


def draw(path: Path, rows: Sequence[Sequence[Panel]], title: str) -> None:
    """Draws the first rows of panels as a PNG; without any, an older picture is removed."""
    if not rows:
        path.unlink(missing_ok=True)
        return
    temporary = path.with_name(f".{path.name}")
    draw_panels(temporary, [row[:COLUMNS] for row in rows[:ROWS]], title)
    put_in_place(temporary, path)


def named(image: Any, file: str, line: str = "") -> Panel:
    """Makes a panel with the end of a file's path below a line of text."""
    end = "/".join(Path(file).parts[-2:])
    end = end if len(end) <= LETTERS else f"...{end[3 - LETTERS :]}"
    return panel(image, f"{shortened(line, LETTERS)}\n{end}" if line else end)
