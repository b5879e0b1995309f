"""Starts servers in processes of their own, and asks them."""

import contextlib
import http.client
import io
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[2]
SOURCES = [str(ROOT), str(ROOT / "src"), str(ROOT / "runtime" / "src")]


def environment():
    """The environment of a process that imports these sources."""
    return os.environ | {"PYTHONPATH": os.pathsep.join(SOURCES), "OMP_NUM_THREADS": "1", "PYTHONUNBUFFERED": "1"}


def png(*colour, size=(8, 8)):
    """A PNG of one colour, which is decoded to exactly that."""
    file = io.BytesIO()
    Image.new("RGB", size, colour).save(file, "PNG")
    return file.getvalue()


def until(true, seconds=30.0):
    """Waits until something is true."""
    end = time.monotonic() + seconds
    while not (found := true()):
        assert time.monotonic() < end, "it did not become true"
        time.sleep(0.01)
    return found


class Running:
    """A server in another process; what it writes to standard error is in `lines`."""

    def __init__(self, *words):
        self.process = subprocess.Popen(
            [sys.executable, "-m", *words], stderr=subprocess.PIPE, env=environment(), cwd=ROOT, text=True
        )
        self.lines: list[str] = []
        self.reader = threading.Thread(target=self._read)
        self.reader.start()
        until(lambda: self.said("serving on") or self.process.poll() is not None)
        found = self.said("serving on")
        assert found, "".join(self.lines)
        self.address = found[0].split("//")[1].strip()

    def _read(self):
        for line in self.process.stderr:
            self.lines.append(line)

    def said(self, words):
        return [line for line in self.lines if words in line]

    def connect(self):
        return http.client.HTTPConnection(self.address, timeout=60)

    def ask(self, method, path, body=None, headers=None, connection=None):
        """Status, headers and content (JSON where it is JSON) of an answer."""
        own = connection or self.connect()
        own.request(method, path, body, headers or {})
        response = own.getresponse()
        content = response.read()
        if connection is None:
            own.close()
        is_json = "json" in response.headers.get("Content-Type", "")
        return response.status, response.headers, json.loads(content) if is_json else content

    def predict(self, body, path="/v1/predict", **options):
        status, _, content = self.ask("POST", path, body, **options)
        return status, content

    def together(self, bodies, path="/v1/predict"):
        """Asks for all bodies at once, each from a thread of its own."""
        answers = [None] * len(bodies)

        def one(place):
            try:
                answers[place] = self.predict(bodies[place], path)
            except OSError as error:
                answers[place] = error

        threads = [threading.Thread(target=one, args=(place,)) for place in range(len(bodies))]
        for thread in threads:
            thread.start()
        return threads, answers

    def metric(self, name):
        """The sum of a counter or gauge over its labels."""
        text = self.ask("GET", "/metrics")[2].decode()
        return sum(
            float(line.split()[-1]) for line in text.splitlines() if line.split("{")[0] == f"supertokenvit_{name}"
        )

    def end(self, sig=signal.SIGTERM):
        self.process.send_signal(sig)
        return self.process.wait(30)


@contextlib.contextmanager
def serving(*words):
    """A server, killed in the end."""
    server = Running(*words)
    try:
        yield server
    finally:
        server.process.kill()
        server.process.wait()
        server.reader.join()
        server.process.stderr.close()


def serving_file(path, *options):
    """A server of an exported file."""
    return serving(
        "supertokenvit_runtime.cli", "serve", "--model", str(path), "--port", "0", "--drain", "0.2", *options
    )


def write_fake(path, **said):
    """Writes the file that a fake engine reads, at once."""
    part = path.with_suffix(".part")
    part.write_text(json.dumps(said))
    part.replace(path)
    return path


def serving_fake(path, settings=None, **said):
    """A server of a fake engine."""
    write_fake(path, **said)
    return serving("tests.runtime.fake_engines", json.dumps({"path": str(path), "settings": settings or {}}))


def problem(answer, status):
    """Checks that an answer is a problem with a status, as JSON."""
    found, headers, content = answer
    assert found == status, content
    assert headers["Content-Type"] == "application/problem+json"
    assert content["status"] == status and content["title"] and content["detail"]
    return content["detail"]


def near(found, wanted):
    """Whether probabilities by label are those in the order of the classes."""
    from tests.runtime.graphs import CLASSES

    by_label = dict(zip(found["labels"], found["probabilities"], strict=True))
    np.testing.assert_allclose([by_label[name] for name in CLASSES], wanted, atol=1e-5)
    return True
