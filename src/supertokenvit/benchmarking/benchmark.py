"""This module measures contestants in every engine and at every size, and returns measurements."""

import difflib
import re
import statistics
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
import timm
import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from ..engines.packages import EngineError
from ..machine import DTYPES, best_device, wait_for
from ..model_folder import is_model_folder
from .calls import Job, exported, make_call
from .cost import Cost, cost_of, own_size
from .options import FILES, BenchmarkError, BenchmarkOptions, Contestant, contestants
from .timing import in_child, one_line, peak_memory, product_call, take_turns

CPU_BATCHES, GPU_BATCHES = 64, 1024


@dataclass
class Measurement:
    """Holds what was measured of one model in one engine at one size.

    Args:
        contestant: The model and its setting.
        job: The task that it was timed at.
        cost: Parameters and MACs; None for an exported file.
        seconds: Seconds of one call, for each round.
        ratios: Speed relative to the first model (its seconds divided by these), for each round.
        product_seconds: Seconds of the model's matrix products alone, for each round.
        memory: Peak memory in bytes.
        error: The reason why there are no figures.
    """

    contestant: Contestant
    job: Job
    cost: Cost | None = None
    seconds: list[float] = field(default_factory=list)
    ratios: list[float] = field(default_factory=list)
    product_seconds: list[float] = field(default_factory=list)
    memory: int | None = None
    error: str | None = None

    @property
    def images_per_second(self) -> float:
        """Returns the median over rounds."""
        return self.job.batch / statistics.median(self.seconds)

    @property
    def flops_per_second(self) -> float | None:
        """Counts two operations per multiply-accumulate; a training step counts as three inferences."""
        if self.cost is None:
            return None
        return 2 * self.cost.macs * (3 if self.job.mode == "train" else 1) / statistics.median(self.seconds)

    @property
    def share_of_products(self) -> float | None:
        """Returns the FLOP/s achieved divided by those of the model's matrix products alone, median over rounds."""
        if not self.product_seconds or self.cost is None:
            return None
        work = 3 if self.job.mode == "train" else 1
        inside = sum(n * rows * inner * columns * k for (n, rows, inner, columns), k in self.cost.products.items())
        scale = work * self.cost.macs / inside
        return statistics.median(scale * p / s for p, s in zip(self.product_seconds, self.seconds, strict=True))


def find(models: list[str], options: BenchmarkOptions) -> list[Contestant]:
    """Returns the contestants, after checking that each model exists.

    Args:
        models: See options.contestants.
        options: What to measure.

    Raises:
        BenchmarkError: A model that does not exist, or cannot be understood.
    """
    rivals = contestants(models, options)
    for name in (contestant.model for contestant in rivals):
        there = Path(name).is_file() if Path(name).suffix in FILES else is_model_folder(name)
        if not there and not timm.is_model(name):
            near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
            hint = f"; near: {', '.join(near)}" if near else ""
            raise BenchmarkError(f"{name}: no timm model, run folder, .onnx or .xml file of that name{hint}")
    return rivals


def benchmark(rivals: list[Contestant], options: BenchmarkOptions, console: Console) -> Iterator[list[Measurement]]:
    """Measures all models at one size after the other, and yields the rows of each.

    Args:
        rivals: From find.
        options: What to measure.
        console: The console that shows progress.

    Raises:
        BenchmarkError: The options cannot be carried out.
    """
    device = str(best_device(options.device))
    threads = options.threads or torch.get_num_threads()
    torch.set_num_threads(threads)
    for img_size in options.img_size or [own_size(rivals[0])]:
        with tempfile.TemporaryDirectory(prefix="supertokenvit-") as folder:
            first = 1 if options.mode == "latency" else options.batch_size
            job = Job(options.mode, 8 if first == "auto" else int(first), img_size, device, threads, folder)
            if first == "auto":
                job = largest_batch(rivals, job)
                console.print(f"batch: {job.batch} images fit", highlight=False)
            yield measure_size(rivals, job, options, console)


def largest_batch(rivals: list[Contestant], job: Job) -> Job:
    """Doubles the batch until the next one would take more than a quarter of the free memory for some contestant."""
    gpu = job.device.startswith("cuda")
    free = torch.cuda.mem_get_info()[0] if gpu else psutil.virtual_memory().available
    while job.batch < (GPU_BATCHES if gpu else CPU_BATCHES):
        peaks = [in_child(peak_memory, contestant, job)[0] for contestant in rivals]
        if max((peak for peak in peaks if peak is not None), default=0) * 2 > free / 4:
            break
        job = replace(job, batch=2 * job.batch)
    return job


def measure_size(rivals: list[Contestant], job: Job, options: BenchmarkOptions, console: Console) -> list[Measurement]:
    """Measures all contestants at one size, and returns the rows in their order."""
    rows = [Measurement(contestant, job) for contestant in rivals]
    with progress(console) as bar:
        task = bar.add_task("preparing", total=len(rows) * 4)

        def attempt(row: Measurement, work: Callable[[], Any]) -> Any:
            bar.update(task, description=f"preparing {row.contestant.name()}"[:60])
            try:
                return work() if row.error is None else None
            except Exception as error:  # whatever it is, the others go on
                row.error = str(error) if isinstance(error, (BenchmarkError, EngineError)) else one_line(error)
            finally:
                bar.advance(task)

        for row in rows:
            row.cost = attempt(row, lambda: counted(row))  # noqa: B023 (called at once)
            attempt(row, lambda: check_graph(row))  # noqa: B023
            row.memory = attempt(row, lambda: rehearsed(row, options.memory))  # noqa: B023
        calls = {i: attempt(row, lambda: make_call(row.contestant, job)) for i, row in enumerate(rows)}  # noqa: B023
        calls = {i: call for i, call in calls.items() if rows[i].error is None}
        bar.remove_task(task)
        time_rows(rows, calls, options, bar)
    return rows


def counted(row: Measurement) -> Cost | None:
    """Counts parameters and MACs, unless the model is an exported file."""
    return None if row.contestant.is_file else cost_of(row.contestant, row.job.img_size, row.job.batch)


def check_graph(row: Measurement) -> None:
    """Exports the graph in a process of its own, if the engine needs one."""
    if row.contestant.engine not in ("eager", "compile") and row.job.mode != "train":
        error = in_child(exported, row.contestant, row.job)[1]
        if error:
            raise BenchmarkError(re.sub("^(Benchmark|Engine)Error: ", "", error))


def rehearsed(row: Measurement, wanted: bool) -> int | None:
    """Measures peak memory in a process of its own, if wanted."""
    if not wanted:
        return None
    peak, error = in_child(peak_memory, row.contestant, row.job)
    if error:
        raise BenchmarkError(re.sub("^(Benchmark|Engine)Error: ", "", error))
    return peak


def time_rows(
    rows: list[Measurement], calls: dict[int, Callable[[], Any]], options: BenchmarkOptions, bar: Progress
) -> None:
    """Lets models, and the matrix products of each by themselves, take turns; fills the rows."""
    turns: dict[tuple[str, int], Callable[[], Any]] = {}
    for i, call in calls.items():
        turns["model", i] = call
        cost = rows[i].cost
        if cost is not None:
            dtype = DTYPES[rows[i].contestant.dtype]
            turns["products", i] = product_call(cost.products.items(), dtype, rows[i].job.device)
    task = bar.add_task("taking turns", total=len(turns) * (1 + options.rounds))
    times, errors = take_turns(
        turns,
        rounds=options.rounds,
        seconds=options.seconds,
        wait=lambda: wait_for(rows[0].job.device),
        advance=lambda: bar.advance(task),
    )
    for i in calls:
        rows[i].error = errors.get(("model", i))
        rows[i].seconds = times.get(("model", i), [])
        rows[i].product_seconds = times.get(("products", i), []) if rows[i].seconds else []
    if rows[0].seconds:
        for row in rows:
            row.ratios = [a / b for a, b in zip(rows[0].seconds, row.seconds, strict=False)]


def progress(console: Console) -> Progress:
    """Makes the progress bar."""
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    )
