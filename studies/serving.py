"""Measures the server of an exported file: rate, latency, overload, poison, signals and a killed worker.

python -m studies.serving --model FILE --images FOLDER [--seconds 20] [--rounds 3] [--out FILE]

FILE is what `supertokenvit export` wrote, FOLDER holds image files, of which the first 64 are sent. Nothing else may
run meanwhile: server and client share the machine. A row for each figure goes to results/serving/rows.csv, with the
value that was wanted beside it.
"""

import argparse
import base64
import itertools
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import psutil

from supertokenvit.data.listing import find_images
from supertokenvit.machine import environment
from supertokenvit_runtime.decode import decode
from supertokenvit_runtime.exported import ExportedFile, cores

from .common import RESULTS, commit, figure, now, write_rows
from .serving_client import REFUSED, Row

CLIENTS, QUEUE, BATCH = 64, 64, 32
POISON = [b"", b"no image", b"\x89PNG\r\n\x1a\n" + bytes(100)]


class Served:
    """A server in a process of its own.

    Args:
        model: The exported file.
        options: Of the command.
    """

    def __init__(self, model: Path, *options: str) -> None:
        words = ["-m", "supertokenvit_runtime.cli", "serve", "--model", str(model), "--port", "0", *options]
        self.process = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = next((line for line in self.process.stderr if line.startswith("serving on")), None)
        if line is None:
            raise SystemExit("the server did not start")
        self.address = line.split("//")[1].strip()
        self.reader = threading.Thread(target=self.process.stderr.read, daemon=True)  # or its pipe fills
        self.reader.start()

    def __enter__(self) -> "Served":
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()

    def workers(self) -> list[int]:
        """Returns the processes that run the model."""
        family = psutil.Process(self.process.pid).children(recursive=True)
        return [each.pid for each in family if each.ppid() != self.process.pid]

    def client(self, bodies: Sequence[bytes], connections: int, seconds: float, rate: float | None = None) -> "Client":
        """Starts a client."""
        return Client(self.address, bodies, connections, seconds, rate)


class Client:
    """A client in a process of its own."""

    def __init__(
        self, address: str, bodies: Sequence[bytes], connections: int, seconds: float, rate: float | None
    ) -> None:
        self.file = tempfile.NamedTemporaryFile("w", suffix=".json")
        json.dump([base64.b64encode(body).decode() for body in bodies], self.file)
        self.file.flush()
        words = ["-m", "studies.serving_client", address, self.file.name]
        words += ["--connections", str(connections), "--seconds", str(seconds)]
        words += [] if rate is None else ["--rate", str(rate)]
        self.process = subprocess.Popen([sys.executable, *words], stdout=subprocess.PIPE)

    def rows(self) -> list[Row]:
        """Waits for its end and returns a row for each request."""
        out, _ = self.process.communicate()
        self.file.close()
        return [tuple(row) for row in json.loads(out)]


def rate_of(rows: Sequence[Row], seconds: float) -> float:
    """Returns the answers for each second, without the first fifth, in which the server warms up."""
    first = min(row[0] for row in rows) + seconds / 5
    ends = [row[0] + row[1] for row in rows if row[2] == 200]
    counted = [end for end in ends if first <= end <= first + seconds * 4 / 5]
    return len(counted) / (seconds * 4 / 5)


def percentile(rows: Sequence[Row], percent: float, status: int = 200) -> float:
    """Returns milliseconds that so many percent of the requests with a status took at most."""
    found = [1000 * row[1] for row in rows if row[2] == status]
    return float(np.percentile(found, percent)) if found else 0.0


def engine_alone(model: Path, bodies: Sequence[bytes], seconds: float) -> tuple[float, float]:
    """Returns images/s of the engine at the best batch size, and milliseconds for one image; both without decoding."""
    file = ExportedFile(model, cores())
    images = [np.asarray(decode(body, "image", enough=file.about.enough)) for body in bodies]
    alike = [image for image in images if image.shape == images[0].shape]
    one = timed(lambda: file.answer(alike[0][None]), seconds / 4)
    rates = [1 / one]
    for batch in (8, BATCH):
        pixels = np.stack((alike * batch)[:batch])
        rates.append(batch / timed(lambda pixels=pixels: file.answer(pixels), seconds / 4))  # type: ignore[misc]
    return max(rates), 1000 * one


def timed(call: Callable[[], Any], seconds: float) -> float:
    """Returns the median seconds of a call that is repeated for a while."""
    call()
    found, end = list[float](), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        call()
        found.append(time.perf_counter() - began)
    return statistics.median(found)


def speeds(model: Path, bodies: Sequence[bytes], seconds: float) -> tuple[list[dict[str, Any]], float]:
    """Measures rate, latency of a lone client and overload; returns rows, and the rate."""
    alone, one = engine_alone(model, bodies, seconds)
    with Served(model, "--queue", str(QUEUE)) as server:
        full = server.client(bodies, CLIENTS, seconds).rows()
        lone = server.client(bodies, 1, seconds).rows()
        rate = rate_of(full, seconds)
        over = server.client(bodies, 8 * CLIENTS, seconds, rate=2 * rate).rows()
    return [
        figure("engine alone", alone, "images/s"),
        figure(f"server, {CLIENTS} clients", rate, "images/s"),
        figure("server to engine", rate / alone, "times", "at least 0.9"),
        figure("engine, one image", one, "ms"),
        figure("one client, median", percentile(lone, 50), "ms"),
        figure("one client, median, without the engine", percentile(lone, 50) - one, "ms", "at most 2"),
        figure("2 times overload: answered to capacity", rate_of(over, seconds) / rate, "times", "at least 0.95"),
        figure("full load: 99 % within", percentile(full, 99), "ms"),
        figure("2 times overload: 99 % within", percentile(over, 99), "ms"),
        figure(
            "2 times overload: 99 % to full load",
            percentile(over, 99) / percentile(full, 99), "times", "at most 1.2",
        ),
        figure("2 times overload: 99 % of refusals within", percentile(over, 99, 429), "ms", "at most 30"),
    ], rate  # fmt: skip


def poisoned(model: Path, bodies: Sequence[bytes], seconds: float) -> list[dict[str, Any]]:
    """Measures what a fifth of bad bodies does to the others."""
    mixed = [*bodies[: 4 * len(POISON)], *POISON]
    good = 4 * len(POISON)
    with Served(model) as server:
        rows = server.client(mixed, CLIENTS // 2, seconds).rows()
    lost = [row for row in rows if row[3] < good and row[2] != 200]
    wrong = [row for row in rows if row[3] >= good and row[2] not in (415, 422)]
    return [
        figure("20 % poison: good requests", len([row for row in rows if row[3] < good]), "requests"),
        figure("20 % poison: good requests lost", len(lost), "requests", "0"),
        figure("20 % poison: bad requests with a wrong status", len(wrong), "requests", "0"),
    ]


def signalled(model: Path, bodies: Sequence[bytes], seconds: float) -> list[dict[str, Any]]:
    """Measures what SIGTERM loses under load."""
    with Served(model, "--drain", "1") as server:
        client = server.client(bodies, CLIENTS, seconds)
        time.sleep(seconds / 2)  # in the midst of the load; what happens does not hang on it
        server.process.send_signal(signal.SIGTERM)
        code = server.process.wait(60)
        rows = client.rows()
    lost = [row for row in rows if row[2] not in (200, REFUSED)]
    return [
        figure("SIGTERM: requests answered", len([row for row in rows if row[2] == 200]), "requests"),
        figure("SIGTERM: accepted requests lost", len(lost), "requests", "0"),
        figure("SIGTERM: exit code", code, "", "0"),
    ]


def killed(model: Path, bodies: Sequence[bytes], seconds: float) -> list[dict[str, Any]]:
    """Measures how long a server is without its only worker after kill -9."""
    with Served(model) as server:
        client = server.client(bodies, CLIENTS, seconds)
        time.sleep(seconds / 2)
        at = time.monotonic()
        os.kill(server.workers()[0], signal.SIGKILL)
        rows = client.rows()
    answered = sorted(row[0] + row[1] for row in rows if row[2] == 200 and row[0] + row[1] > at)
    gaps = [later - earlier for earlier, later in itertools.pairwise([at, *answered])]
    hit = [row for row in rows if row[2] == 503]
    other = [row for row in rows if row[2] not in (200, 503)]
    return [
        figure("kill -9: longest time without an answer", max(gaps, default=float("inf")), "s", "at most 2"),
        figure("kill -9: requests with 503", len(hit), "requests", f"at most {BATCH}"),
        figure("kill -9: other requests lost", len(other), "requests", "0"),
    ]


def measure(model: Path, bodies: Sequence[bytes], seconds: float) -> list[dict[str, Any]]:
    """Measures everything once."""
    rows, _ = speeds(model, bodies, seconds)
    return rows + poisoned(model, bodies, seconds) + signalled(model, bodies, seconds) + killed(model, bodies, seconds)


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--images", required=True)
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, default=RESULTS / "serving" / "rows.csv")
    given = parser.parse_args(argv)
    bodies = [file.read_bytes() for file in find_images([given.images])[:CLIENTS]]
    rows = []
    for number in range(given.rounds):
        for row in measure(given.model, bodies, given.seconds):
            rows.append({"round": number, **row, "model": given.model.stem, "date": now(), "commit": commit()})
    given.out.parent.mkdir(parents=True, exist_ok=True)
    write_rows(given.out, [row | environment() for row in rows])


if __name__ == "__main__":
    main()
