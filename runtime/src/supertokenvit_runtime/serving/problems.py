"""What a server answers where it cannot answer: RFC 9457, application/problem+json."""

import json
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response


class Problem(Exception):
    """A request, or an image in it, that gets no answer.

    Args:
        status: HTTP status.
        detail: What is wrong, and what to do about it.
        headers: Further headers of the response.
    """

    def __init__(self, status: int, detail: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(status, detail)
        self.status, self.detail, self.headers = status, detail, dict(headers or {})

    def as_dict(self) -> dict[str, Any]:
        """Returns it for JSON."""
        title = HTTPStatus(self.status).phrase
        return {"type": "about:blank", "title": title, "status": self.status, "detail": self.detail}

    def response(self) -> Response:
        """Returns it as a response."""
        text = json.dumps(self.as_dict())
        return Response(text, self.status, self.headers, media_type="application/problem+json")


def busy(detail: str) -> Problem:
    """Makes the problem of a server that has enough to do."""
    return Problem(429, f"{detail}; ask again later", {"Retry-After": "1"})
