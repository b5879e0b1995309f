"""This module runs shards on several processes, each with its own engine and its share of the cores."""

import contextlib
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection

import torch

from ..errors import UserError
from ..machine import cores, keep_freed_memory
from .shard import Done, Question, Shard, answer_shard

AHEAD = 2  # shards that wait for each worker, so that none is idle


class WorkerError(UserError):
    """Reports a worker that ended before its work did."""


@contextlib.contextmanager
def workers(processes: int) -> Iterator[ProcessPoolExecutor]:
    """Keeps processes that work until this ends; if it ends early, or this process is killed, they end at once.

    They are spawned, because a forked process would share locks and threads of the engine.

    Args:
        processes: How many.
    """
    context = multiprocessing.get_context("spawn")
    theirs, ours = context.Pipe(duplex=False)
    pool = ProcessPoolExecutor(processes, context, initializer=begin_worker, initargs=(theirs, processes))
    try:
        yield pool
        pool.shutdown()
    finally:
        ours.close()
        pool.shutdown(cancel_futures=True)
        theirs.close()


def begin_worker(lifeline: Connection, processes: int) -> None:
    """Prepares a process for its work.

    Args:
        lifeline: It is closed when the process shall end, also by the death of the process that holds its other end.
        processes: Among how many the cores are shared.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # who holds the lifeline decides
    threading.Thread(target=_leave_with, args=(lifeline,), daemon=True).start()
    os.environ["LOCAL_WORLD_SIZE"] = str(processes * int(os.environ.get("LOCAL_WORLD_SIZE", "1")))  # see machine.cores
    torch.set_num_threads(min(torch.get_num_threads(), cores()))
    keep_freed_memory()


def _leave_with(lifeline: Connection) -> None:
    """Ends this process when the lifeline is closed."""
    with contextlib.suppress(EOFError, OSError):
        lifeline.recv()
    os._exit(1)


def answered(processes: int, question: Question, shards: Iterable[Shard]) -> Iterator[Done]:
    """Passes on what workers on this machine say of shards, in the order in which they are done.

    Args:
        processes: That answer.
        question: What is asked.
        shards: That are missing.

    Raises:
        WorkerError: A worker has died.
        UserError: As it was raised in a worker.
    """
    waiting: set[Future[Done]] = set()
    coming = iter(shards)
    try:
        with workers(processes) as pool:
            while True:
                for shard in coming:
                    waiting.add(pool.submit(answer_shard, question, shard))
                    if len(waiting) >= AHEAD * processes:
                        break
                if not waiting:
                    return
                done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
                yield from (future.result() for future in done)
    except BrokenProcessPool:
        raise WorkerError(
            "a worker died, maybe as the memory ran out; what was answered is kept: go on with --resume, and with a "
            "smaller --batch_size or fewer --processes if it dies again"
        ) from None
