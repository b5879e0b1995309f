"""Real processes: killed commands, killed workers, and the same rows from however many."""

import contextlib
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from supertokenvit.bulk.parts import Parts
from supertokenvit.exporting.export import export

from .conftest import make_pictures
from .test_command import rows_in

COMMAND = """
import sys
from supertokenvit.bulk import command
from supertokenvit.cli import main

if __name__ == "__main__":  # workers import this file again
    command.ROWS = 10
    main(["predict", *sys.argv[1:]])
"""
pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return make_pictures(tmp_path_factory.mktemp("workers") / "pictures", count=600, bad=(77,))


@pytest.fixture
def begin(tmp_path, model, photographs):
    script = tmp_path / "command.py"
    script.write_text(COMMAND)

    def call(out, *words, network=model):
        command = [sys.executable, str(script), str(photographs), "--model", str(network), "--out", str(out), *words]
        return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    return call


def wait_until(fact, seconds=120):
    end = time.monotonic() + seconds
    while not fact():
        assert time.monotonic() < end, "it did not come about in time"
        time.sleep(0.01)


def is_alive(process):
    return process.is_running() and process.status() != psutil.STATUS_ZOMBIE


def parts_of(out):
    """Complete parts with the times of their writing; they vanish when the file is complete."""
    found = {}
    for path in Parts(out).folder.glob("0*.parquet"):
        with contextlib.suppress(FileNotFoundError):
            found[path.name] = path.stat().st_mtime_ns
    return found


def ended(process):
    printed, errors = process.communicate(timeout=300)
    return process.returncode, printed, errors.strip()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_command_leaves_no_process_and_its_finished_parts_are_kept(begin, tmp_path, how):
    out = tmp_path / "a.parquet"
    process = begin(out, "--processes", "2")
    wait_until(lambda: len(parts_of(out)) >= 3)
    children = psutil.Process(process.pid).children(recursive=True)
    assert len(children) >= 2
    process.send_signal(how)
    process.wait(timeout=120)
    try:
        wait_until(lambda: not any(map(is_alive, children)), seconds=60)
    finally:
        for child in filter(is_alive, children):
            child.kill()
    _, _, errors = ended(process)
    assert "Traceback" not in errors
    kept = parts_of(out)
    assert 3 <= len(kept) < 60 and not out.exists()
    process = begin(out, "--processes", "1", "--resume")
    after = dict(kept)
    while process.poll() is None:
        after |= parts_of(out) if Parts(out).folder.exists() else {}
        time.sleep(0.01)
    code, printed, errors = ended(process)
    assert code == 1 and "1 image could not be read" in errors
    assert f"600 images, {10 * len(kept)} of them answered before" in printed
    assert {name: after[name] for name in kept} == kept  # none was written again
    whole = tmp_path / "whole.parquet"
    ended(begin(whole, "--processes", "1"))
    assert rows_in(out) == rows_in(whole) and len(rows_in(whole)) == 600
    assert not Parts(out).folder.exists()


def test_a_dead_worker_is_one_line_and_what_was_answered_stays(begin, tmp_path):
    out = tmp_path / "a.parquet"
    process = begin(out, "--processes", "2")
    wait_until(lambda: parts_of(out))
    workers = [child for child in psutil.Process(process.pid).children() if "spawn_main" in " ".join(child.cmdline())]
    assert len(workers) == 2
    os.kill(workers[0].pid, signal.SIGKILL)
    code, _, errors = ended(process)
    lines = [line for line in errors.splitlines() if "077.png" not in line]
    assert code == 1 and len(lines) == 1 and "a worker died" in lines[0] and "--resume" in lines[0]
    assert parts_of(out) and not out.exists()
    code, _, errors = ended(begin(out, "--processes", "2", "--resume"))
    assert "1 image could not be read" in errors and len(rows_in(out)) == 600


def test_exported_files_answer_on_several_processes(begin, model, tmp_path):
    file = export(model, out=str(tmp_path / "exported"))
    ended(begin(tmp_path / "one.parquet", "--processes", "1", network=file))
    ended(begin(tmp_path / "two.parquet", "--processes", "2", network=file))
    one, two = rows_in(tmp_path / "one.parquet"), rows_in(tmp_path / "two.parquet")
    assert len(one) == 600 and [row["file"] for row in one] == [row["file"] for row in two]
    for a, b in zip(one, two, strict=True):
        assert a["labels"] == b["labels"] and a["error"] == b["error"]
        assert a["probabilities"] == pytest.approx(b["probabilities"], rel=1e-5)
