"""A lane takes batches to a worker, and replaces the worker when it is lost."""

import logging
import threading
import time
from collections.abc import Callable

import numpy as np

from ..about import About
from .batching import Answer, Job, Waiting, deliver
from .metrics import ModelMetrics
from .problems import Problem
from .worker import Worker, WorkerFailed, WorkerLost

LOG = logging.getLogger("supertokenvit.serving")
LOOK = 0.1  # seconds after which an idle lane looks whether its worker lives
SLOWEST = 5.0  # seconds between attempts to start a worker, when it ends again and again


class Lane:
    """A thread with a worker.

    Args:
        start: Starts a worker.
        worker: The first one, which has loaded its model.
        about: The model in it.
        waiting: Where batches come from.
        metrics: Those of the model.
        most: Images of a batch.
        patience: Seconds after which a worker that does not answer is killed.
    """

    def __init__(
        self,
        start: Callable[[], Worker],
        worker: Worker,
        about: About,
        waiting: Waiting,
        metrics: ModelMetrics,
        *,
        most: int,
        patience: float,
    ) -> None:
        self.start_worker, self.worker, self.about, self.waiting, self.metrics = start, worker, about, waiting, metrics
        self.most, self.patience = most, patience
        self.ready, self.ending = True, threading.Event()
        self.thread = threading.Thread(target=self._run, daemon=True, name=f"lane of {about.name}")
        self.thread.start()

    def end(self) -> None:
        """Lets the lane end behind the batch that it computes."""
        self.ending.set()

    def join(self, seconds: float | None) -> None:
        """Waits until the lane has ended; after some seconds its worker is killed."""
        self.thread.join(seconds)
        if self.thread.is_alive():
            self.worker.process.kill()  # its pipe ends, and with it the wait of the lane
            self.thread.join()

    def _run(self) -> None:
        while not self.ending.is_set():
            batch = self.waiting.take(self.most, LOOK)
            if self.worker.is_alive():
                self._answer(batch)
            else:
                self.waiting.put_back(batch)
                self._replace()
        self.ready = False
        self.worker.close()

    def _answer(self, batch: list[Job]) -> None:
        """Answers a batch; where it fails, each image alone, so that one cannot harm the others."""
        if not batch:
            return
        try:
            deliver(self._ask(batch))
        except WorkerLost:
            self.worker.kill()
            deliver((job, Problem(503, "the worker was lost; ask again")) for job in batch)
        except WorkerFailed as error:
            if error.users:
                deliver((job, Problem(422, str(error))) for job in batch)
            elif len(batch) == 1:
                LOG.error("%s: the engine failed: %s", self.about.name, " ".join(str(error).split()))
                deliver((job, Problem(500, "the engine failed for this image")) for job in batch)
            else:
                for job in batch:
                    self._answer([job])

    def _ask(self, batch: list[Job]) -> list[tuple[Job, Answer | Problem]]:
        if batch[0].explain:
            told, picture, seconds = self.worker.explain(batch[0].pixels, batch[0].target, self.patience)
            self.metrics.seconds.observe(seconds)
            return [(batch[0], Answer(self.about, explanation=told, picture=picture))]
        found, seconds = self.worker.ask([job.pixels for job in batch], self.patience)
        self.metrics.seconds.observe(seconds)
        self.metrics.batch.observe(len(batch))
        return [(job, self._checked(row, len(batch))) for job, row in zip(batch, found, strict=True)]

    def _checked(self, row: np.ndarray, batch: int) -> Answer | Problem:
        if not np.isfinite(row).all():
            return Problem(500, "the network's answer is no number")
        return Answer(self.about, row, batch=batch)

    def _replace(self) -> None:
        """Starts another worker, again and again until one has loaded the model."""
        self.ready, delay, began = False, 0.1, time.monotonic()
        self.worker.kill()
        LOG.warning("%s: worker %s was lost", self.about.name, self.worker.process.pid)
        while not self.ending.is_set():
            self.metrics.restarted.inc()
            self.worker = self.start_worker()
            try:
                self.worker.wait()
            except (WorkerLost, WorkerFailed) as error:
                self.worker.kill()
                LOG.error("%s: no worker in its place: %s", self.about.name, str(error) or "it ended")
                self.ending.wait(delay)
                delay = min(2 * delay, SLOWEST)
            else:
                self.ready = True
                seconds = time.monotonic() - began
                LOG.warning("%s: worker %s after %.2f s", self.about.name, self.worker.process.pid, seconds)
                return
