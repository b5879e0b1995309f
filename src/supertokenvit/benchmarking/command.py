"""This module is `supertokenvit benchmark`: it measures, prints the tables, and writes rows and plots."""

import sys

from rich.console import Console

from ..console import user_console
from ..machine import keep_freed_memory
from ..run_folder import new_run_folder
from .benchmark import Measurement, benchmark, find
from .options import BenchmarkError, BenchmarkOptions
from .report import draw_sizes, draw_throughput, make_table, read_rows, write_rows


def run_and_write(models: list[str], options: BenchmarkOptions, console: Console | None = None) -> None:
    """Measures models, prints the tables and writes rows.csv and the plots.

    Args:
        models: See options.contestants.
        options: What to measure.
        console: The console for tables and progress.

    Raises:
        BenchmarkError: A model that does not exist, or one that could not be measured; the others have been.
    """
    keep_freed_memory()
    console = console or user_console()
    rivals = find(models, options)
    folder = new_run_folder(options.out, "benchmark")
    folder.must_be_free()
    out = folder.path
    rows: list[Measurement] = []
    for of_one_size in benchmark(rivals, options, console):
        rows += of_one_size
        console.print(make_table(of_one_size, console.width))
        for row in of_one_size:
            if row.error:
                name = f"{row.contestant.name()} ({row.contestant.engine})"
                print(f"supertokenvit: {name}: {row.error}", file=sys.stderr)
        write_rows(out / "rows.csv", rows)
    draw_throughput(out / "throughput.png", read_rows(out / "rows.csv"))
    if len(options.img_size) > 1:
        draw_sizes(out / "sizes.png", read_rows(out / "rows.csv"))
    print(f"written: {out}")
    if any(row.error for row in rows):
        raise BenchmarkError("not every model could be measured (named above)")
