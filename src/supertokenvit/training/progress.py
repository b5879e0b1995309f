"""What a person sees of a run and can do to it while it goes on: the bar, and signals."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

TWICE = 1.0  # seconds within which two signals are one


class TrainingBar:
    """The progress bar of a run; a context manager.

    Args:
        console: To draw on.
        steps: Of the whole run.
        done: Where it begins.
        hidden: Draw nothing.
    """

    def __init__(self, console: Console, steps: int, done: int, hidden: bool) -> None:
        self.progress = Progress(
            TextColumn("[progress.description]{task.description}"),
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=hidden,
        )
        self.task = self.progress.add_task("training", total=steps, completed=done, note="")

    def __enter__(self) -> "TrainingBar":
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def update(self, done: int, steps: int, note: str) -> None:
        """Moves it."""
        self.progress.update(self.task, completed=done, total=steps, note=note)


class Interruption:
    """The signal that asks the run to end after the present step, if there was one."""

    def __init__(self) -> None:
        self.number: int | None = None
        self.since = 0.0

    def note(self, number: int, frame: Any) -> None:
        """Handles a signal: the first is noted, a later one ends the run at once.

        Launchers send a signal twice in a row, which counts once.
        """
        now = time.monotonic()
        if self.number is not None and now - self.since > TWICE:
            raise KeyboardInterrupt
        if self.number is None:
            self.number, self.since = number, now

    @property
    def name(self) -> str:
        """Of the signal."""
        return "a signal to another process" if self.number is None else signal.Signals(self.number).name

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While this lasts, Ctrl-C and SIGTERM are noted instead of ending the process.

        Only the main thread may do so: in another one they go on meaning what they mean to the program.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        old = {number: signal.signal(number, self.note) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in old.items():
                signal.signal(number, handler)
