"""Routes, and what goes around each request: the token, one line of log, the counters."""

import hmac
import logging
import time
from collections.abc import Sequence
from typing import Any

from starlette.exceptions import HTTPException
from starlette.routing import Route, Router
from starlette.types import Message, Receive, Scope, Send

from .bodies import refuse
from .page import page_routes
from .problems import Problem
from .service import Service

LOG = logging.getLogger("supertokenvit.requests")
OPEN = ("/healthz", "/readyz")  # whoever asks whether the server lives has no token
EARLY = (408, 413)  # refusals that may come before the whole body


def routes_of(service: Service) -> list[Route]:
    """Makes the routes."""
    routes = [
        Route("/v1/predict", service.predict, methods=["POST"]),
        Route("/v1/models", service.models),
        Route("/healthz", service.health),
        Route("/readyz", service.readiness),
        Route("/metrics", service.counters),
        Route("/openapi.json", service.description),
    ]
    explained = [name for name, host in service.hosts.items() if host.about.explains]
    routes += page_routes(list(service.hosts), explained)
    if explained:
        routes.append(Route("/v1/explain", service.explain, methods=["POST"]))
    return routes


def make_app(service: Service) -> "Around":
    """Makes the ASGI application of a service."""
    return Around(service, routes_of(service))


def problem_of(error: Exception) -> Problem:
    """Turns whatever stopped a request into what its sender is told."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, HTTPException):
        detail = {404: "there is nothing here; /openapi.json says what there is", 405: "this needs another method"}
        return Problem(error.status_code, detail.get(error.status_code, error.detail), error.headers)
    LOG.error("the server failed", exc_info=error)
    return Problem(500, "the server failed")


class Around:
    """Checks the token, answers with problems, writes a line and counts.

    Args:
        service: Whose state and settings count.
        routes: What answers. Lines and counters name these paths; others are all one, so that nobody fills them.
    """

    def __init__(self, service: Service, routes: Sequence[Route]) -> None:
        self.service, self.paths = service, frozenset(route.path for route in routes)
        self.router = Router(routes, redirect_slashes=False)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers a request."""
        began, status = time.perf_counter(), 500
        state: dict[str, Any] = scope.setdefault("state", {})
        scope["app"] = self  # or the router answers in plain text where there is no such route or method

        async def sent(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                if self.service.draining:  # so that those who keep connections go elsewhere
                    message["headers"] = [*message["headers"], (b"connection", b"close")]
            await send(message)

        try:
            self._check_token(scope)
            await self.router(scope, receive, sent)
        except Exception as error:
            problem = problem_of(error)
            if problem.status in EARLY:
                await refuse(problem, self.service.bodies.most, scope, receive, sent)
            else:
                await problem.response()(scope, receive, sent)
        finally:
            route = scope["path"] if scope["path"] in self.paths else "other"
            seconds = time.perf_counter() - began
            self.service.metrics.requests.labels(route, str(status)).inc()
            self.service.metrics.latency.labels(route).observe(seconds)
            method = scope["method"] if scope["method"].isalpha() else "?"
            LOG.info("%s %s %d %.1f ms batch %d", method[:7], route, status, 1000 * seconds, state.get("batch", 0))

    def _check_token(self, scope: Scope) -> None:
        """Raises Problem 401 unless a request may be answered."""
        token = self.service.settings.token
        if token is None or scope["path"] in OPEN:
            return
        given = dict(scope["headers"]).get(b"authorization", b"")
        scheme, _, said = given.partition(b" ")
        if scheme.lower() != b"bearer" or not hmac.compare_digest(said.strip(), token.encode()):
            raise Problem(401, "send the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
