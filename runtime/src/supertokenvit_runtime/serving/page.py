"""The page at /, which asks this server; `supertokenvit export --format web` makes the same one without a server."""

from collections.abc import Sequence
from functools import partial
from importlib.resources import files
from pathlib import PurePath
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

PAGE = files("supertokenvit_runtime") / "page"
INDEX, LISTING = "index.html", "models.json"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}
POLICY = (
    "default-src 'none'; script-src 'self'; connect-src 'self'; img-src 'self' blob:; style-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff", "Cache-Control": "no-cache"}


def page_routes(models: Sequence[str], explained: Sequence[str] = ()) -> list[Route]:
    """Makes the routes of the page: its files, and the list of models that it reads.

    Args:
        models: Names of the served models, the first of which is shown first.
        explained: Those whose answers can be explained.
    """
    listing = {"answers": "server", "models": list(models), "explained": list(explained), "examples": []}
    routes = [Route(f"/{LISTING}", partial(send_json, content=listing))]
    for file in PAGE.iterdir():
        kind = TYPES.get(PurePath(file.name).suffix)
        if kind is not None:
            path = "/" if file.name == INDEX else f"/{file.name}"
            routes.append(Route(path, partial(send_file, content=file.read_bytes(), kind=kind)))
    return routes


async def send_json(request: Request, content: Any) -> Response:
    """Answers with JSON."""
    return JSONResponse(content, headers=HEADERS)


async def send_file(request: Request, content: bytes, kind: str) -> Response:
    """Answers with a file of the page."""
    return Response(content, media_type=kind, headers=HEADERS)
