"""A lane and its workers, without processes: what is lost, and what is not."""

import asyncio

import numpy as np
import pytest

from supertokenvit_runtime.about import About
from supertokenvit_runtime.serving.batching import Job, Waiting
from supertokenvit_runtime.serving.lanes import Lane
from supertokenvit_runtime.serving.metrics import Metrics
from supertokenvit_runtime.serving.problems import Problem
from supertokenvit_runtime.serving.worker import WorkerFailed, WorkerLost

ABOUT = About("fake", ["dark", "bright"])


class FakeWorker:
    """Answers in this process; what it is told to raise, it raises once."""

    process = type("Process", (), {"pid": 0, "kill": staticmethod(lambda: None)})

    def __init__(self, *, alive=True, asked=None, loads=None):
        self.alive, self.asked, self.loads = alive, asked, loads

    def is_alive(self):
        return self.alive

    def wait(self):
        if self.loads is not None:
            raise self.loads
        return ABOUT

    def ask(self, photographs, seconds):
        if self.asked is not None:
            self.alive = not isinstance(self.asked, WorkerLost)
            raise self.asked
        return np.array([[1 - p.mean() / 255, p.mean() / 255] for p in photographs], np.float32), 0.0

    def kill(self):
        self.alive = False

    close = kill


def answers_of(first, *later, brightness=(0, 255)):
    """What jobs get that wait before a lane begins with a worker, which later ones replace; and the metrics."""
    metrics, fresh = Metrics(), iter(later)

    async def ask():
        loop, waiting = asyncio.get_running_loop(), Waiting(1e6)
        jobs = [Job(np.full((2, 2, 3), value, np.uint8), loop.create_future()) for value in brightness]
        for job in jobs:
            waiting.put(job)
        own = metrics.of("fake")
        lane = Lane(lambda: next(fresh), first, ABOUT, waiting, own, most=8, patience=1)
        found = await asyncio.wait_for(asyncio.gather(*(job.future for job in jobs), return_exceptions=True), 20)
        lane.end()
        await asyncio.to_thread(lane.join, None)
        return found

    return asyncio.run(ask()), metrics.registry.get_sample_value


def test_a_worker_that_was_dead_before_it_was_asked_costs_nothing():
    found, value = answers_of(FakeWorker(alive=False), FakeWorker())
    assert [answer.probabilities.argmax() for answer in found] == [0, 1]
    assert value("supertokenvit_workers_restarted_total", {"model": "fake"}) == 1


def test_a_worker_that_dies_with_images_costs_those():
    found, _ = answers_of(FakeWorker(asked=WorkerLost()), FakeWorker())
    assert [answer.status for answer in found] == [503, 503]


def test_workers_are_started_until_one_loads_the_model():
    broken = [FakeWorker(loads=WorkerFailed("no memory")), FakeWorker(loads=WorkerLost())]
    found, value = answers_of(FakeWorker(alive=False), *broken, FakeWorker())
    assert [answer.probabilities.argmax() for answer in found] == [0, 1]
    assert value("supertokenvit_workers_restarted_total", {"model": "fake"}) == 3


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_harms_no_other(bad):
    class Odd(FakeWorker):
        def ask(self, photographs, seconds):
            found, took = super().ask(photographs, seconds)
            found[0] = bad
            return found, took

    found, _ = answers_of(Odd())
    assert isinstance(found[0], Problem) and found[0].status == 500
    assert found[1].probabilities.argmax() == 1 and found[1].batch == 2
