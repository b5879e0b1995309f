"""What a person sees of a run and can do to it while it goes on: the bar, and signals."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeRemainingColumn,
)

from ..console import is_watched
from ..errors import UserError
from ..tasks import Task
from .checkpoint import Standing

TWICE = 1.0  # seconds within which two signals are one


class TrainingStopped(UserError):
    """The run ended before its last step; the message says why and how to go on."""


class TrainingBar:
    """The progress bar of a run, which fits into 80 columns; a context manager.

    Args:
        console: To draw on.
        steps: Of the whole run.
        done: Where it begins.
        task: What the model learns.
        hidden: Draw nothing.
    """

    def __init__(self, console: Console, steps: int, done: int, task: Task, hidden: bool) -> None:
        self.counts_accuracy = task.hits_name == "accuracy"
        self.progress = Progress(
            BarColumn(bar_width=10),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=hidden or not is_watched(console),
        )
        self.task = self.progress.add_task("training", total=steps, completed=done, note="")

    def __enter__(self) -> "TrainingBar":
        self.progress.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.progress.stop()

    def update(self, steps: int, at: Standing, batch_size: int) -> None:
        """Moves it.

        Args:
            steps: Of the whole run.
            at: Where the run stands.
            batch_size: Images per step.
        """
        waiting = 100 * at.waited / max(at.seconds, 1e-9)
        loss, correct = (value / max(1, at.seen) for value in (at.loss, at.correct))
        hits = f" acc {100 * correct:.1f}%" if self.counts_accuracy else ""
        note = f"loss {loss:.3f}{hits} {at.rate(batch_size):.0f} img/s wait {waiting:.0f}%"
        self.progress.update(self.task, completed=at.step, total=steps, note=note)


class Interrupted(KeyboardInterrupt):
    """A signal ended the run where it stood; the message says how to go on.

    It is no Exception, so that nothing takes it for a fault of what was being done.

    Args:
        text: The message.
        number: Of the signal.
    """

    def __init__(self, text: str, number: int) -> None:
        super().__init__(text)
        self.exit_code = 128 + number


class Interruption:
    """The signal that asks the run to end, if there was one.

    While steps are made, it waits for the end of the present one (`waits` is true). Before and afterwards it ends the
    run at once, with the advice that holds then.
    """

    def __init__(self) -> None:
        self.number: int | None = None
        self.since = 0.0
        self.waits = False
        self.advice = "nothing was saved: begin again with the same command"

    def note(self, number: int, frame: Any) -> None:
        """Handles a signal: the first is noted while steps are made, a later one ends the run at once.

        Launchers send a signal twice in a row, which counts once.
        """
        now = time.monotonic()
        again = self.number is not None and now - self.since > TWICE
        if self.number is None:
            self.number, self.since = number, now
            if not self.waits:
                raise Interrupted(f"{self.name}: {self.advice}", number)
        elif again:
            raise Interrupted(f"{self.name}, twice: {self.advice}", number)

    @property
    def name(self) -> str:
        """Of the signal."""
        return "a signal to another process" if self.number is None else signal.Signals(self.number).name

    @contextmanager
    def watched(self) -> Iterator[None]:
        """While this lasts, Ctrl-C and SIGTERM come here.

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

    @contextmanager
    def steps(self) -> Iterator[None]:
        """While this lasts, steps are made: the first signal waits for the end of one."""
        self.waits = True
        try:
            yield
        finally:
            self.waits = False
