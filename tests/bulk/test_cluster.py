"""Shards on a Ray cluster of this one machine: a killed worker's shard is redone."""

import os
import signal
import subprocess
import sys

import psutil
import pytest

from supertokenvit.bulk.parts import Parts

from .conftest import make_pictures
from .test_command import rows_in
from .test_workers import COMMAND, ended, is_alive, parts_of, wait_until

pytest.importorskip("ray")
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
def begin(tmp_path, model):
    make_pictures(tmp_path / "pictures", count=300, bad=(77,))
    (tmp_path / "command.py").write_text(COMMAND)
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0"}

    def call(out, *words):  # by paths that hold only in the command's own folder
        command = [sys.executable, "command.py", "pictures", "--model", str(model), "--out", out, *words]
        return subprocess.Popen(
            command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    return call


def workers_of(process):
    """Processes that answer shards; Ray writes what a worker does into its command line."""
    found = []
    for child in psutil.Process(process.pid).children(recursive=True):
        try:
            if "answer_in_cluster" in " ".join(child.cmdline()):
                found.append(child)
        except psutil.Error:  # it ended meanwhile
            continue
    return found


def test_a_killed_worker_of_a_cluster_is_replaced_and_its_shard_redone(begin, tmp_path):
    out = tmp_path / "a.parquet"
    process = begin("a.parquet", "--cluster", "ray", "--processes", "2")
    wait_until(lambda: process.poll() is not None or (parts_of(out) and workers_of(process)), seconds=240)
    assert process.poll() is None
    children = psutil.Process(process.pid).children(recursive=True)
    os.kill(workers_of(process)[0].pid, signal.SIGKILL)
    code, printed, errors = ended(process)
    assert code == 1 and "300 images" in printed and "Traceback" not in errors
    assert [line.split(": ", 1)[1] for line in errors.splitlines()] == [
        "pictures/077.png: not an image",
        "1 image could not be read (column error of a.parquet)",
    ]
    wait_until(lambda: not any(map(is_alive, children)))
    code, _, _ = ended(begin("b.parquet", "--processes", "1"))
    assert code == 1 and rows_in(out) == rows_in(tmp_path / "b.parquet") and len(rows_in(out)) == 300
    assert not Parts(out).folder.exists()
