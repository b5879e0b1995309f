"""This module runs shards on the machines of a Ray cluster, all of which see the same files."""

import os
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from ..engines.packages import need, quiet
from ..machine import cores, keep_freed_memory
from .shard import Done, Question, Shard, answer_shard
from .workers import AHEAD, WorkerError

RETRIES = 3  # of a shard whose worker or machine died


def answered_by_cluster(processes: int | None, question: Question, shards: Iterable[Shard]) -> Iterator[Done]:
    """Passes on what workers of a cluster say of shards, in the order in which they are done.

    A shard whose worker dies is given to another one. If the variable RAY_ADDRESS names no cluster, one is started on
    this machine, and ends with the work.

    Args:
        processes: How many work at once, each on one core; as many as the cluster has cores by default.
        question: What is asked.
        shards: That are missing.

    Raises:
        WorkerError: The workers of one shard died again and again, or the cluster was lost.
        UserError: As it was raised in a worker.
        EngineError: Ray is not installed.
    """
    ray = need("ray", "ray")
    begin(ray, processes)
    task = ray.remote(num_cpus=1, max_retries=RETRIES)(answer_in_cluster)
    here, asked = os.getcwd(), ray.put(question)
    limit = AHEAD * (processes or int(ray.cluster_resources().get("CPU", 1)))
    try:
        coming, waiting = iter(shards), list[Any]()
        while True:
            for shard in coming:
                waiting.append(task.remote(here, asked, shard))
                if len(waiting) >= limit:
                    break
            if not waiting:
                return
            done, waiting = ray.wait(waiting)
            yield from ray.get(done)
    except ray.exceptions.RayTaskError as error:
        raise error.cause from None
    except ray.exceptions.RayError as error:
        reason = str(error).strip().splitlines()[0]
        raise WorkerError(f"the cluster failed ({reason}); what was answered is kept: go on with --resume") from None
    finally:
        ray.shutdown()


def begin(ray: Any, processes: int | None) -> None:
    """Joins the cluster that RAY_ADDRESS names, or starts one here.

    Raises:
        WorkerError: That cluster cannot be reached.
    """
    settings: dict[str, Any] = {"log_to_driver": False, "logging_level": "error"}
    if "RAY_ADDRESS" not in os.environ:
        settings |= {"address": "local", "num_cpus": processes or cores(), "include_dashboard": False}
    try:
        with quiet():
            ray.init(**settings)
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0]
        raise WorkerError(f"--cluster ray: cannot be joined or started ({reason})") from None


def answer_in_cluster(folder: str, question: Question, shard: Shard) -> Done:
    """Answers a shard on one core of some machine of the cluster; see shard.answer_shard.

    Args:
        folder: In which the command was begun, so that relative paths lead to the same files.
        question: What is asked.
        shard: The images.
    """
    os.chdir(folder)
    os.environ["LOCAL_WORLD_SIZE"] = "1"
    os.environ["LOCAL_WORLD_SIZE"] = str(cores())  # so that every engine takes one; see machine.cores
    torch.set_num_threads(1)
    keep_freed_memory()
    return answer_shard(question, shard)
