"""What the server does for a request: hold, read, decode, wait for a worker, answer."""

import asyncio
import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..decode import BadImage, NotAnImage, decode
from ..exported import cores
from ..model import likeliest
from .batching import Answer, Job, deliver
from .bodies import Bodies, files_in
from .hosting import Host
from .metrics import CONTENT_TYPE, Metrics
from .openapi import describe
from .problems import Problem
from .settings import Settings

LOG = logging.getLogger("supertokenvit.serving")


class Service:
    """The answers to requests, one method for each route.

    Args:
        hosts: The served models by name; the first one answers where a request names none.
        settings: Limits.
        metrics: Those of the server.
    """

    def __init__(self, hosts: Mapping[str, Host], settings: Settings, metrics: Metrics) -> None:
        self.hosts, self.settings, self.metrics = hosts, settings, metrics
        self.bodies = Bodies(settings.max_mb * 1e6, settings.max_waiting_mb * 1e6)
        self.decoders = ThreadPoolExecutor(cores(), thread_name_prefix="decode")
        self.draining = False

    async def health(self, request: Request) -> Response:
        """Says that the process lives."""
        return JSONResponse({"status": "alive"})

    async def readiness(self, request: Request) -> Response:
        """Says whether requests should be sent here."""
        if self.draining:
            raise Problem(503, "draining: the server ends soon")
        lost = [name for name, host in self.hosts.items() if not host.ready]
        if lost:
            raise Problem(503, f"no worker for {', '.join(lost)}")
        return JSONResponse({"status": "ready"})

    async def models(self, request: Request) -> Response:
        """Lists the models with their classes."""
        return JSONResponse({"models": [host.about.as_dict() | {"name": name} for name, host in self.hosts.items()]})

    async def counters(self, request: Request) -> Response:
        """Answers with the metrics."""
        return Response(self.metrics.text(), media_type=CONTENT_TYPE)

    async def description(self, request: Request) -> Response:
        """Answers with the OpenAPI description."""
        explains = any(host.about.explains for host in self.hosts.values())
        return JSONResponse(describe(explains=explains, token=self.settings.token is not None))

    async def predict(self, request: Request) -> Response:
        """Says what is on one image or several."""
        host, topk = self._host(request), read_topk(request)
        answers = await self._answers(host, request)
        request.state.batch = max((answer.batch for answer in answers if isinstance(answer, Answer)), default=0)
        return JSONResponse({"model": host.name, "predictions": [as_row(answer, topk) for answer in answers]})

    async def explain(self, request: Request) -> Response:
        """Says what in an image spoke for an answer: as a picture where the request accepts PNG, else as JSON."""
        host = self._host(request)
        if not host.about.explains:
            raise Problem(404, f"{host.name} cannot be explained here; serve its run folder with supertokenvit serve")
        (answer,) = await self._answers(host, request, explain=True, target=request.query_params.get("class"))
        assert isinstance(answer, Answer)  # of one image, problems are raised
        request.state.batch = 1
        if "image/png" in request.headers.get("accept", ""):
            return Response(answer.picture, media_type="image/png")
        return JSONResponse({"model": host.name, "explanation": answer.explanation})

    def _host(self, request: Request) -> Host:
        """Returns the model that a request asks."""
        name = request.query_params.get("model", next(iter(self.hosts)))
        if name not in self.hosts:
            raise Problem(404, f"no such model; there are {', '.join(self.hosts)}")
        return self.hosts[name]

    async def _answers(self, host: Host, request: Request, **options: Any) -> Sequence[Answer | Problem]:
        """Answers for the images of a body; what is wrong with one of several is its own answer."""
        until = asyncio.get_running_loop().time() + self.settings.deadline
        host.hold(1)
        held, length = 1, 0
        try:
            body = await self.bodies.read(request, self.settings.deadline)
            length = len(body)
            files = files_in(body, request.headers.get("content-type", ""), self.settings.queue)
            if options and len(files) > 1:
                raise Problem(422, f"{len(files)} files: send one at a time to be explained")
            host.hold(len(files) - 1)
            held = len(files)
            answers = await asyncio.gather(*(self._answer(host, file, until, options) for file in files))
        finally:
            host.release(held)
            self.bodies.release(length)
        grave = [each for each in answers if isinstance(each, Problem) and (len(files) == 1 or of_server(each))]
        if grave:
            raise grave[0]
        return answers

    async def _answer(self, host: Host, file: bytes, until: float, options: Mapping[str, Any]) -> Answer | Problem:
        """Answers for one image file, or says why not."""
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        loop.run_in_executor(self.decoders, self._look, host, file, future, options)
        try:
            async with asyncio.timeout_at(until):
                return await future
        except TimeoutError:
            return Problem(504, f"no answer within {self.settings.deadline:g} s")
        except Problem as problem:
            return problem

    def _look(self, host: Host, file: bytes, future: "asyncio.Future[Answer]", options: Mapping[str, Any]) -> None:
        """Decodes an image and lets it wait for a worker, in a thread."""
        if future.done():
            return
        job = Job(np.empty((0, 0, 3), np.uint8), future, **options)
        try:
            most = int(self.settings.max_megapixels * 1e6)
            enough = None if job.explain else host.about.enough  # explanations have places in the photograph itself
            job.pixels = np.asarray(decode(file, "image", most, enough=enough))
            host.waiting.put(job)
        except NotAnImage as error:
            deliver([(job, Problem(415, error.reason))])
        except BadImage as error:
            deliver([(job, Problem(422, error.reason))])
        except Problem as problem:
            deliver([(job, problem)])
        except MemoryError:
            deliver([(job, Problem(422, "too large for the memory of the server"))])
        except Exception:
            LOG.exception("decoding failed")
            deliver([(job, Problem(500, "the server failed"))])

    def close(self) -> None:
        """Ends the threads."""
        self.decoders.shutdown(cancel_futures=True)


def of_server(problem: Problem) -> bool:
    """Whether a problem is not the image's own."""
    return problem.status == 429 or problem.status >= 500


def read_topk(request: Request) -> int:
    """Reads how many classes a request wants named."""
    text = request.query_params.get("topk", "5")
    if not (text.isascii() and text.isdigit() and 1 <= len(text) <= 9 and int(text) >= 1):
        raise Problem(422, "topk must be a whole number of at least 1")
    return int(text)


def as_row(answer: Answer | Problem, topk: int) -> dict[str, Any]:
    """Returns an answer for JSON: classes with probabilities, or what was wrong with the image."""
    if isinstance(answer, Problem):
        return {"problem": answer.as_dict()}
    assert answer.probabilities is not None
    labels, probabilities = likeliest(answer.probabilities, answer.about.classes, topk)
    return {"labels": labels, "probabilities": probabilities}
