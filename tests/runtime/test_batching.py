"""What waits for a worker: order, shapes, and limits."""

import asyncio
import threading

import numpy as np
import pytest

from supertokenvit_runtime.serving.batching import Job, Waiting
from supertokenvit_runtime.serving.problems import Problem

LOOP = asyncio.new_event_loop()


def job(side=4, **options):
    return Job(np.zeros((side, side, 3), np.uint8), LOOP.create_future(), **options)


def filled(*jobs):
    waiting = Waiting(1e6)
    for each in jobs:
        waiting.put(each)
    return waiting


def test_a_batch_is_the_oldest_with_those_of_its_shape_and_others_keep_their_order():
    jobs = [job(4), job(5), job(4), job(6), job(5), job(4)]
    waiting = filled(*jobs)
    assert waiting.take(10, 0) == [jobs[0], jobs[2], jobs[5]]
    assert waiting.take(10, 0) == [jobs[1], jobs[4]]
    assert waiting.take(10, 0) == [jobs[3]]
    assert waiting.take(10, 0) == [] and waiting.bytes == 0


def test_a_batch_is_no_larger_than_allowed():
    jobs = [job() for _ in range(5)]
    waiting = filled(*jobs)
    assert [waiting.take(2, 0) for _ in range(3)] == [jobs[:2], jobs[2:4], jobs[4:]]


def test_explanations_are_computed_alone():
    jobs = [job(), job(explain=True), job(explain=True), job()]
    waiting = filled(*jobs)
    assert [waiting.take(9, 0) for _ in range(3)] == [[jobs[0], jobs[3]], [jobs[1]], [jobs[2]]]


def test_what_nobody_waits_for_is_not_computed():
    jobs = [job(), job(), job()]
    waiting = filled(*jobs)
    jobs[0].future.cancel()
    jobs[2].future.cancel()
    assert waiting.take(9, 0) == [jobs[1]] and len(waiting) == 0 and waiting.bytes == 0


def test_what_is_put_back_is_the_next():
    jobs = [job(), job(), job(5)]
    waiting = filled(*jobs)
    waiting.put_back(waiting.take(9, 0))
    assert waiting.take(9, 0) == jobs[:2] and waiting.bytes == jobs[2].pixels.nbytes


def test_too_many_pixels_are_refused_but_one_image_always_fits():
    waiting = Waiting(100)
    waiting.put(job(8))
    with pytest.raises(Problem) as caught:
        waiting.put(job(4))
    assert caught.value.status == 429 and caught.value.headers["Retry-After"]


def test_who_waits_is_woken_by_what_comes():
    waiting, found = Waiting(1e6), []
    thread = threading.Thread(target=lambda: found.extend(waiting.take(9, 30)))
    thread.start()
    one = job()
    waiting.put(one)
    thread.join(10)
    assert found == [one]
