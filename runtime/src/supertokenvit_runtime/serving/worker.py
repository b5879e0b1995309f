"""The process that runs a model, and the handle by which the server talks to it."""

import json
import multiprocessing
import signal
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from ..about import About
from ..errors import UserError

LOADING = 120.0  # seconds in which a model must be loaded


class Engine(Protocol):
    """A model in a worker."""

    about: About

    def answer(self, photographs: np.ndarray) -> np.ndarray:
        """Returns probabilities [B, K] for photographs, uint8 [B, H, W, 3]."""


class Explainer(Engine, Protocol):
    """A model whose answers can be explained: its `about.explains` is true."""

    def explain(self, photograph: np.ndarray, target: str | None) -> tuple[dict[str, Any], bytes]:
        """Explains the answer for a photograph, uint8 [H, W, 3]: for JSON, and as PNG."""


Opener = Callable[[Path, int], Engine]


class WorkerLost(Exception):
    """The process has ended, or hangs."""


class WorkerFailed(UserError):
    """The process says that it could not do what was asked."""

    def __init__(self, reason: str, *, users: bool = False) -> None:
        super().__init__(reason)
        self.users = users  # whether what was asked cannot be, so that whoever asked can mend it


def work(connection: Connection, opener: Opener, path: Path, threads: int) -> None:
    """Loads a model and answers until the server ends, in a process of its own."""
    for name in ("SIGINT", "SIGTERM", "SIGHUP"):  # the server says when to end, also where all processes get a signal
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    try:
        engine = opener(path, threads)
        check(engine)
    except Exception as error:
        send(connection, {"error": str(error) or type(error).__name__})
        return
    send(connection, {"about": engine.about.as_dict()})
    while True:
        try:
            asked = receive(connection)
        except (EOFError, OSError):
            return
        try:
            answer(connection, engine, *asked)
        except (BrokenPipeError, ConnectionResetError):
            return
        except Exception as error:
            send(connection, {"error": str(error) or type(error).__name__, "users": isinstance(error, UserError)})


def check(engine: Engine) -> None:
    """Makes sure that a model answers before it is given requests.

    Raises:
        UserError: It does not answer with a probability for each class.
    """
    side, classes = max(engine.about.pixels, 32), len(engine.about.classes)
    found = engine.answer(np.full((1, side, side, 3), 128, np.uint8))
    if found.shape != (1, classes) or not np.isfinite(found).all():
        raise UserError(f"{engine.about.name}: answers {list(found.shape)} for an image, not {classes} probabilities")


def answer(connection: Connection, engine: Any, asked: dict[str, Any], pixels: np.ndarray) -> None:
    """Computes what was asked and sends it."""
    began = time.perf_counter()
    if "explain" in asked:
        told, content = engine.explain(pixels[0], asked["explain"])
        send(connection, {"seconds": time.perf_counter() - began, "explanation": told}, content)
    else:
        found = np.ascontiguousarray(engine.answer(pixels), dtype=np.float32)
        send(connection, {"seconds": time.perf_counter() - began, "shape": found.shape}, found.data.cast("B"))


def send(connection: Connection, header: dict[str, Any], *contents: Any) -> None:
    """Sends a message: a line of JSON, then bytes as they are."""
    connection.send_bytes(json.dumps(header).encode())
    for content in contents:
        connection.send_bytes(content)


def receive(connection: Connection) -> tuple[dict[str, Any], np.ndarray]:
    """Receives what is asked, and the photographs [B, H, W, 3]."""
    asked = json.loads(connection.recv_bytes())
    pixels = np.empty(asked["shape"], np.uint8)
    for photograph in pixels:
        connection.recv_bytes_into(photograph.data.cast("B"))
    return asked, pixels


def context() -> Any:
    """Returns how processes are started: from one that has imported everything, where the system can do that."""
    forks = "forkserver" in multiprocessing.get_all_start_methods()
    return multiprocessing.get_context("forkserver" if forks else "spawn")


class Worker:
    """A process that runs a model.

    Args:
        opener: Loads the model, in the process; a function or class that can be pickled.
        path: Of the model.
        threads: CPU threads of the process.
    """

    def __init__(self, opener: Opener, path: Path, threads: int) -> None:
        self.connection, theirs = multiprocessing.Pipe()
        self.process = context().Process(target=work, args=(theirs, opener, path, threads), daemon=True)
        self.process.start()
        theirs.close()

    def wait(self) -> About:
        """Waits until the model is loaded and has answered.

        Raises:
            WorkerFailed: It cannot be loaded.
            WorkerLost: The process ended.
        """
        told = self._reply(LOADING)
        return About(**told["about"])

    def ask(self, photographs: Sequence[np.ndarray], seconds: float) -> tuple[np.ndarray, float]:
        """Returns probabilities [B, K] for photographs of one shape, uint8 [H, W, 3], and the seconds of the engine."""
        self._send({"shape": [len(photographs), *photographs[0].shape]}, photographs)
        told = self._reply(seconds)
        return np.frombuffer(self._content(), np.float32).reshape(told["shape"]), told["seconds"]

    def explain(
        self, photograph: np.ndarray, target: str | None, seconds: float
    ) -> tuple[dict[str, Any], bytes, float]:
        """Returns the explanation of an answer, for JSON and as PNG, and the seconds of the engine."""
        self._send({"shape": [1, *photograph.shape], "explain": target}, [photograph])
        told = self._reply(seconds)
        return told["explanation"], self._content(), told["seconds"]

    def is_alive(self) -> bool:
        """Whether an idle process is there: unless asked it says nothing, so that whatever comes is its end."""
        try:
            return not self.connection.poll(0)
        except OSError:
            return False

    def close(self) -> None:
        """Ends the process, which must be idle."""
        self.connection.close()
        self.process.join(1)
        self.kill()

    def kill(self) -> None:
        """Ends the process at once."""
        self.connection.close()
        self.process.kill()
        self.process.join(1)

    def _send(self, asked: dict[str, Any], photographs: Sequence[np.ndarray]) -> None:
        try:
            send(self.connection, asked, *(np.ascontiguousarray(each).data.cast("B") for each in photographs))
        except OSError as error:
            raise WorkerLost from error

    def _reply(self, seconds: float) -> dict[str, Any]:
        try:
            if not self.connection.poll(seconds):
                raise WorkerLost
            told = json.loads(self.connection.recv_bytes())
        except (EOFError, OSError) as error:
            raise WorkerLost from error
        if "error" in told:
            raise WorkerFailed(told["error"], users=told.get("users", False))
        return told

    def _content(self) -> bytes:
        try:
            return self.connection.recv_bytes()
        except (EOFError, OSError) as error:
            raise WorkerLost from error
