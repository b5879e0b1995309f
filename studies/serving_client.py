"""A client for measuring servers, on plain sockets: one thread, so that it takes little from the server's cores.

python -m studies.serving_client ADDRESS REQUESTS --connections N --seconds S [--rate R]

REQUESTS is a file of JSON: a list of bodies in base64, which are sent in turn. Without a rate each connection asks
again as soon as it has its answer; with one, requests begin at that rate whether the server keeps up or not. Standard
output is JSON: for each request its beginning (monotonic clock), its seconds, its status (0: accepted, but never
answered; -1: never accepted) and the number of its body.
"""

import argparse
import base64
import itertools
import json
import selectors
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

Row = tuple[float, float, int, int]
LOST, REFUSED = 0, -1


class Connection:
    """One connection, which is opened when it is needed.

    Args:
        address: Host and port.
        rows: Gets a row for each request.
    """

    def __init__(self, address: tuple[str, int], rows: list[Row]) -> None:
        self.address, self.rows = address, rows
        self.socket: socket.socket | None = None
        self.busy = False

    def ask(self, request: bytes, number: int) -> bool:
        """Sends a request; says whether it was accepted."""
        self.began, self.number, self.received, self.busy = time.monotonic(), number, b"", True
        try:
            if self.socket is None:
                self.socket = socket.create_connection(self.address, timeout=60)
                self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket.sendall(request)
        except ConnectionRefusedError:
            self._end(REFUSED)
            return False
        except OSError:
            self._end(LOST)
            self.close()
            return False
        return True

    def read(self) -> bool:
        """Reads what has come; says whether the answer is complete."""
        assert self.socket is not None
        try:
            content = self.socket.recv(1 << 16)
        except OSError:
            content = b""
        self.received += content
        head, found, body = self.received.partition(b"\r\n\r\n")
        lines = head.lower().split(b"\r\n")
        length = next((int(line[15:]) for line in lines if line.startswith(b"content-length:")), 0)
        if content and not (found and len(body) >= length):
            return False
        self._end(int(head.split()[1]) if content else LOST)
        if not content or b"connection: close" in lines:
            self.close()
        return True

    def close(self) -> None:
        """Closes it."""
        if self.socket is not None:
            self.socket.close()
            self.socket = None

    def _end(self, status: int) -> None:
        self.busy, self.refused = False, status == REFUSED
        self.rows.append((self.began, time.monotonic() - self.began, status, self.number))


def run(
    address: tuple[str, int], bodies: Sequence[bytes], connections: int, seconds: float, rate: float | None
) -> list[Row]:
    """Asks for some seconds, waits for the last answers, and returns a row for each request."""
    head = "POST /v1/predict HTTP/1.1\r\nHost: measured\r\nContent-Length: %d\r\n\r\n"
    requests = itertools.cycle([((head % len(body)).encode() + body, number) for number, body in enumerate(bodies)])
    rows: list[Row] = []
    opened = [Connection(address, rows) for _ in range(connections)]
    try:
        ask_all(opened, requests, seconds, rate)
    finally:
        for connection in opened:
            connection.close()
    return rows


def ask_all(
    opened: Sequence[Connection], requests: Iterator[tuple[bytes, int]], seconds: float, rate: float | None
) -> None:
    """Asks for some seconds, and waits for the last answers."""
    free = list(opened)
    selector = selectors.DefaultSelector()
    began, sent, working = time.monotonic(), 0, 0
    while True:
        passed = time.monotonic() - began
        due = len(opened) if rate is None else int(passed * rate) - sent
        while passed < seconds and free and due > 0:
            connection = free.pop()
            before = connection.socket
            sent, due = sent + 1, due - 1
            if connection.ask(*next(requests)):
                if connection.socket is not before:
                    assert connection.socket is not None
                    selector.register(connection.socket, selectors.EVENT_READ, connection)
                working += 1
            elif connection.refused:
                return finish(selector, working)
            else:
                free.append(connection)
        if passed >= seconds and not working:
            return
        for key, _ in selector.select(0.001 if rate else 0.05):
            connection = key.data
            if not connection.busy:  # the server closed it while it was idle
                selector.unregister(key.fileobj)
                connection.close()
            elif connection.read():
                if connection.socket is None:
                    selector.unregister(key.fileobj)
                working -= 1
                free.append(connection)


def finish(selector: selectors.BaseSelector, working: int) -> None:
    """Waits for the answers of a server that takes no more requests."""
    while working:
        for key, _ in selector.select(60):
            if not key.data.busy:
                selector.unregister(key.fileobj)
            elif key.data.read():
                selector.unregister(key.fileobj)
                key.data.close()
                working -= 1


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("address")
    parser.add_argument("requests", type=Path)
    parser.add_argument("--connections", type=int, required=True)
    parser.add_argument("--seconds", type=float, required=True)
    parser.add_argument("--rate", type=float, default=None)
    given: Any = parser.parse_args(argv)
    host, port = given.address.rsplit(":", 1)
    bodies = [base64.b64decode(body) for body in json.loads(given.requests.read_text())]
    rows = run((host, int(port)), bodies, given.connections, given.seconds, given.rate)
    json.dump(rows, sys.stdout)


if __name__ == "__main__":
    main()
