"""Where decoded images wait for a worker: what comes while the workers compute is their next batch."""

import asyncio
import threading
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..about import About
from .problems import Problem, busy


@dataclass(eq=False)
class Job:
    """One decoded image to answer for."""

    pixels: np.ndarray
    """uint8 [H, W, 3]"""
    future: "asyncio.Future[Answer]"
    """Gets the answer, or a Problem; a job whose future is done is not computed any more."""
    explain: bool = False
    """Whether the answer is to be explained."""
    target: str | None = None
    """The class to explain; the likeliest by default."""


@dataclass
class Answer:
    """What a worker said about one image."""

    about: About
    """The model that answered."""
    probabilities: np.ndarray | None = None
    """float32 [K]"""
    explanation: dict[str, Any] | None = None
    """For JSON."""
    picture: bytes = b""
    """The explanation as PNG."""
    batch: int = 1
    """Images that were computed together."""


class Waiting:
    """Jobs in the order in which they came.

    Args:
        most_bytes: Pixels that may wait.
    """

    def __init__(self, most_bytes: float) -> None:
        self.most_bytes, self.bytes = most_bytes, 0
        self.jobs: deque[Job] = deque()
        self.changed = threading.Condition()

    def __len__(self) -> int:
        return len(self.jobs)

    def put(self, job: Job) -> None:
        """Adds a job at the end.

        Raises:
            Problem: Too many pixels wait already.
        """
        with self.changed:
            if self.jobs and self.bytes + job.pixels.nbytes > self.most_bytes:
                raise busy("too many large images are waiting")
            self.bytes += job.pixels.nbytes
            self.jobs.append(job)
            self.changed.notify()

    def put_back(self, batch: Sequence[Job]) -> None:
        """Puts what nobody computed at the front again."""
        with self.changed:
            self.jobs.extendleft(reversed(batch))
            self.bytes += sum(job.pixels.nbytes for job in batch)
            self.changed.notify()

    def take(self, most: int, seconds: float) -> list[Job]:
        """Takes the oldest job, and those of the same shape that wait behind it.

        Args:
            most: Jobs to take.
            seconds: How long to wait for the first; there are none if none comes.
        """
        with self.changed:
            if not self.jobs:
                self.changed.wait(seconds)
            batch, others = list[Job](), deque[Job]()
            for job in self.jobs:
                if job.future.done():  # its request has ended, by its deadline
                    self.bytes -= job.pixels.nbytes
                elif len(batch) < most and (not batch or fits(job, batch[0])):
                    self.bytes -= job.pixels.nbytes
                    batch.append(job)
                else:
                    others.append(job)
            self.jobs = others
            if others:
                self.changed.notify()
            return batch


def fits(job: Job, first: Job) -> bool:
    """Whether two jobs can be computed together."""
    return not job.explain and not first.explain and job.pixels.shape == first.pixels.shape


def deliver(results: Iterable[tuple[Job, Answer | Problem]]) -> None:
    """Gives jobs their answers, from any thread."""
    results = list(results)
    if not results:
        return
    loop = results[0][0].future.get_loop()
    try:
        loop.call_soon_threadsafe(settle, [(job.future, result) for job, result in results])
    except RuntimeError:  # the loop has ended, and with it everybody who waited
        pass


def settle(results: Sequence[tuple["asyncio.Future[Answer]", Answer | Problem]]) -> None:
    """Ends futures with their results, but for those that have ended already."""
    for future, result in results:
        if future.done():
            continue
        if isinstance(result, Problem):
            future.set_exception(result)
        else:
            future.set_result(result)
