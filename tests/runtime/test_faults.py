"""What a server loses when things go wrong: nothing but what was hit."""

import io
import json
import os
import signal
import socket
import threading
import time

import numpy as np
import pytest
from PIL import Image

from tests.runtime.clients import near, png, problem, serving_fake, serving_file, until, write_fake
from tests.runtime.fake_engines import CRASH, HANG
from tests.runtime.graphs import about, expected, write_graph


def labels_of(answers):
    return [content["predictions"][0]["labels"][0] for _, content in answers]


def join(threads):
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()


def pid_of_worker(server):
    """The process that runs the model, as the log or the system says."""
    import psutil

    family = psutil.Process(server.process.pid).children(recursive=True)
    workers = [
        each for each in family if "forkserver" in " ".join(each.cmdline()) and each.ppid() != server.process.pid
    ]
    return [each.pid for each in workers]


class Load:
    """Asks again and again from several threads, and keeps every answer."""

    def __init__(self, server, body, clients=4):
        self.server, self.body, self.answers, self.ending = server, body, [], threading.Event()
        self.threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self.threads:
            thread.start()

    def _ask(self):
        while not self.ending.is_set():
            self.answers.append(self.server.predict(self.body))

    def end(self):
        self.ending.set()
        join(self.threads)
        return self.answers


def test_a_killed_worker_is_replaced_within_two_seconds_and_only_what_it_had_gets_503(tmp_path):
    with serving_fake(tmp_path / "fake.json", {"workers": 2, "batch": 4}, seconds=0.01) as server:
        load = Load(server, png(250, 0, 0), clients=6)
        until(lambda: len(load.answers) > 20)
        victim = pid_of_worker(server)[0]
        os.kill(victim, signal.SIGKILL)
        until(lambda: server.metric("workers_restarted_total") == 1)
        began = time.monotonic()
        until(lambda: any(f"worker {pid} after" in "".join(server.lines) for pid in pid_of_worker(server)))
        assert time.monotonic() - began < 2
        seen = len(load.answers)
        until(lambda: len(load.answers) > seen + 20)
        answers = load.end()
    lost = [content for status, content in answers if status == 503]
    assert len(lost) <= 4 and all("worker was lost" in content["detail"] for content in lost)
    assert {status for status, _ in answers} <= {200, 503}
    assert {label for label in labels_of([each for each in answers if each[0] == 200])} == {"red"}


def test_a_worker_that_dies_idle_costs_no_request(tmp_path):
    with serving_fake(tmp_path / "fake.json") as server:
        (victim,) = pid_of_worker(server)
        os.kill(victim, signal.SIGKILL)
        assert [server.predict(png(0, 250, 0))[0] for _ in range(3)] == [200] * 3
        assert until(lambda: server.metric("workers_restarted_total")) == 1
        assert server.ask("GET", "/readyz")[0] == 200


def test_an_image_that_kills_the_worker_gets_503_and_the_server_goes_on(tmp_path):
    with serving_fake(tmp_path / "fake.json", {"batch": 1}) as server:
        threads, answers = server.together([png(0, 250, 0), png(*CRASH), png(250, 0, 0), png(0, 0, 250)])
        join(threads)
        assert [status for status, _ in answers] == [200, 503, 200, 200]
        assert labels_of([answers[place] for place in (0, 2, 3)]) == ["green", "red", "blue"]


@pytest.mark.slow
def test_a_worker_that_hangs_is_killed(tmp_path):
    with serving_fake(tmp_path / "fake.json", {"deadline": 0.5}) as server:
        problem(server.ask("POST", "/v1/predict", png(*HANG)), 504)
        until(lambda: server.metric("workers_restarted_total") == 1)
        until(lambda: server.predict(png(0, 250, 0))[0] == 200)


def test_poison_loses_no_good_request(tmp_path):
    good = [png(*colour) for colour in [(250, 0, 0), (0, 250, 0), (0, 0, 250)]]
    poison = [b"", b"words", good[0][:45], png(0, 0, 0, size=(60, 60))[:48], b"\x89PNG\r\n\x1a\n" + bytes(100)]
    path = write_graph(tmp_path / "model.onnx")
    with serving_file(path) as server:
        threads, answers = server.together([body for _ in range(5) for body in good + poison])
        join(threads)
    statuses = [status for status, _ in answers]
    for place in range(0, len(answers), 8):
        assert statuses[place : place + 3] == [200, 200, 200]
        assert labels_of(answers[place : place + 3]) == ["red", "green", "blue"]
        assert set(statuses[place + 3 : place + 8]) <= {415, 422}


def test_overload_is_refused_at_once_and_the_rest_is_answered(tmp_path):
    with serving_fake(tmp_path / "fake.json", {"queue": 4, "batch": 1}, seconds=0.2) as server:
        threads, answers = server.together([png(0, 250, 0)] * 4)
        until(lambda: server.metric("queue_length") == 4)
        began = time.monotonic()
        answer = server.ask("POST", "/v1/predict", png(0, 250, 0))
        assert time.monotonic() - began < 0.2  # less than one image takes
        assert "queue is full" in problem(answer, 429)
        assert int(answer[1]["Retry-After"]) >= 1
        join(threads)
        assert [status for status, _ in answers] == [200] * 4 and server.metric("queue_length") == 0
        assert server.predict(png(0, 250, 0))[0] == 200


@pytest.mark.parametrize("sig", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_all_that_was_taken_be_answered(sig, tmp_path):
    with serving_fake(tmp_path / "fake.json", {"drain": 0.6, "batch": 2}, seconds=0.1) as server:
        threads, answers = server.together([png(0, 250, 0)] * 10)
        until(lambda: server.metric("queue_length") == 10)
        server.process.send_signal(sig)
        assert "draining" in until(lambda: not_ready(server))
        status, headers, _ = server.ask("POST", "/v1/predict", png(0, 250, 0))  # still taken
        assert status == 200 and headers["Connection"] == "close"
        join(threads)
        assert [status for status, _ in answers] == [200] * 10
        assert server.process.wait(20) == 0
        with pytest.raises(ConnectionRefusedError):
            server.ask("GET", "/healthz")


def not_ready(server):
    status, _, content = server.ask("GET", "/readyz")
    return content["detail"] if status == 503 else None


def test_a_request_that_begins_before_the_end_is_answered(tmp_path):
    with serving_fake(tmp_path / "fake.json", {"drain": 0}) as server:
        host, port = server.address.split(":")
        body = png(0, 250, 0)
        with socket.create_connection((host, int(port)), timeout=20) as connection:
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body))
            until(lambda: server.metric("queue_length") == 1)
            server.process.send_signal(signal.SIGTERM)
            until(lambda: refused(server))
            connection.sendall(body)
            assert connection.makefile("rb").readline() == b"HTTP/1.1 200 OK\r\n"
        assert server.process.wait(20) == 0


def refused(server):
    try:
        socket.create_connection(server.address.split(":"), timeout=20).close()
    except OSError:
        return True
    return False


@pytest.mark.parametrize("by", ["signal", "file"])
def test_a_reload_under_load_loses_no_request(by, tmp_path):
    path = tmp_path / "fake.json"
    with serving_fake(path, {"workers": 1}, seconds=0.002) as server:
        load = Load(server, png(250, 0, 0))
        until(lambda: len(load.answers) > 20)
        if by == "file":
            write_fake(path, seconds=0.002, sign=-1)
        else:
            os.utime(write_in_place(path, seconds=0.002, sign=-1), ns=(1, 1))
            server.process.send_signal(signal.SIGHUP)
        until(lambda: server.said(": reloaded"))
        seen = len(load.answers)
        until(lambda: len(load.answers) > seen + 20)
        answers = load.end()
    assert {status for status, _ in answers} == {200}
    found = labels_of(answers)
    assert found[0] == "red" and found[-1] == "green"  # where the sign is turned, red is the unlikeliest


def write_in_place(path, **said):
    path.write_text(json.dumps(said))
    return path


def test_a_broken_new_file_keeps_the_old_model_also_for_later_workers(tmp_path):
    path = write_graph(tmp_path / "model.onnx")
    with serving_file(path) as server:
        path.write_bytes(b"nonsense")
        (line,) = until(lambda: server.said("not reloaded"))
        assert f"{path}: cannot be read" in line
        os.kill(pid_of_worker(server)[0], signal.SIGKILL)
        assert server.predict(png(90, 0, 9))[1]["predictions"][0]["labels"][0] == "red"
        write_graph(path, about(name="turned"), sign=-1)
        until(lambda: server.said(": reloaded"))
        assert server.predict(png(90, 0, 9))[1]["predictions"][0]["labels"][0] == "green"
        assert len(server.said("not reloaded")) == 1


def hostile_bodies():
    """Bodies that nobody means well with, without their statuses."""
    rng = np.random.default_rng(0)
    whole = [png(9, 9, 9, size=(40, 40))]
    for kind in ("JPEG", "GIF", "TIFF", "WEBP", "BMP"):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (40, 40, 3), np.uint8)).save(file, kind)
        whole.append(file.getvalue())
    for content in whole:
        for _ in range(12):
            damaged = bytearray(content)
            for place in rng.integers(0, len(content), 6):
                damaged[place] = rng.integers(0, 256)
            yield bytes(damaged[: rng.integers(1, len(content) + 1)])
    header = b"\x89PNG\r\n\x1a\n" + b"\x00\x00\x00\rIHDR" + (2**31 - 1).to_bytes(4, "big") * 2 + b"\x08\x02\x00\x00\x00"
    yield header + b"\x00\x00\x00\x00"
    yield b"GIF89a" + b"\xff\xff\xff\xff\xf7\x00\x00" + bytes(800)
    yield b"GIF8" * 10000
    yield b'<?xml version="1.0"?><!DOCTYPE a [<!ENTITY b SYSTEM "file:///etc/passwd">]><svg>&b;</svg>'
    yield b"cos\nsystem\n(S'true'\ntR."
    yield b"http://127.0.0.1/picture.png"
    yield b"/etc/passwd"


def test_hostile_images_give_no_5xx_and_change_no_other_answer(tmp_path):
    path = write_graph(tmp_path / "model.onnx")
    with serving_file(path) as server:
        for body in hostile_bodies():
            status, _ = server.predict(body)
            assert status in (200, 415, 422), (status, body[:40])
            status, content = server.predict(png(30, 40, 35))
            assert near(content["predictions"][0], expected(np.array([30, 40, 35])))
        assert server.metric("workers_restarted_total") == 0


def test_hostile_requests_end_their_own_connection_only(tmp_path):
    requests = [
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 300_000 + b"\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: -5\r\n\r\n",
        b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"nonsense\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
        b"GET http://127.0.0.1/ HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET /healthz HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: upgrade\r\nConnection: close\r\n\r\n",
    ]
    path = write_graph(tmp_path / "model.onnx")
    with serving_file(path, "--deadline", "2") as server:
        for content in requests:
            with socket.create_connection(server.address.split(":"), timeout=20) as connection:
                connection.sendall(content)
                try:
                    answered = connection.makefile("rb").readline()
                except ConnectionResetError:  # with what it had not read yet
                    answered = b""
            assert not answered.startswith(b"HTTP/1.1 5"), content[:60]
            assert server.predict(png(30, 40, 35))[0] == 200
        with socket.create_connection(server.address.split(":"), timeout=20) as connection:
            connection.sendall(b"POST /v1/predict HTTP/1.1\r\nHost: a\r\nContent-Length: 500\r\n\r\nhalf")
        until(lambda: server.metric("queue_length") == 0)
        assert server.predict(png(30, 40, 35))[0] == 200


def test_no_file_is_written_for_a_request(tmp_path):
    path = write_graph(tmp_path / "model.onnx")
    with serving_file(path) as server:
        noise = np.random.default_rng(0).integers(0, 256, (1100, 1100, 3), np.uint8)
        file = io.BytesIO()
        Image.fromarray(noise).save(file, "PNG", compress_level=1)  # 3.6 MB, which libraries like to spool to a disk
        head = b'--cut\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        before = written(server)
        status, _ = server.predict(head + file.getvalue() + b"\r\n--cut--\r\n",
                                   headers={"Content-Type": "multipart/form-data; boundary=cut"})  # fmt: skip
        assert status == 200 and written(server) - before < 1_000_000


def written(server):
    """Bytes that the server has given to files, as Linux counts them; sockets do not count."""
    import psutil

    return psutil.Process(server.process.pid).io_counters().write_bytes


def test_a_model_that_cannot_be_loaded_is_one_line(tmp_path):
    import subprocess
    import sys

    from tests.runtime.clients import ROOT, environment

    path = tmp_path / "model.onnx"
    path.write_bytes(b"nonsense")
    words = ["-m", "supertokenvit_runtime.cli", "serve", "--port", "0", "--model", str(path)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment(), cwd=ROOT)
    assert done.returncode == 1 and len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith(f"supertokenvit-runtime: {path}: cannot be read")


def test_two_models_of_one_name_and_a_taken_port_are_one_line_each(tmp_path, capsys):
    from supertokenvit_runtime.cli import main

    path = write_graph(tmp_path / "model.onnx")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with pytest.raises(SystemExit) as ended:
            main(["serve", "--model", str(path), "--port", str(taken.getsockname()[1])])
    assert ended.value.code == 1 and "choose another --port" in capsys.readouterr().err
