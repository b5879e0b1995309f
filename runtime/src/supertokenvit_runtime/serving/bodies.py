"""Bodies of requests: read up to a limit, then taken apart into files. None of it is ever written to a disk."""

import asyncio
from dataclasses import dataclass, field
from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from .problems import Problem, busy

LINGER = 1.0  # seconds in which what is left of a refused body is thrown away, so that its sender reads the refusal
FORM = "multipart/form-data"


@dataclass
class Bodies:
    """Reads bodies, and counts what they hold together."""

    most: float
    """Bytes of one body."""
    most_together: float
    """Bytes of all bodies that are being answered."""
    held: int = field(default=0, init=False)

    async def read(self, request: Request, seconds: float) -> bytes:
        """Reads a body; whoever reads it calls `release` with its length later.

        Args:
            request: Whose body is read.
            seconds: In which it must have come.

        Raises:
            Problem: It is too large, too slow, or there are too many others.
        """
        try:
            announced = int(request.headers.get("content-length", "0"))
        except ValueError:
            raise Problem(400, "Content-Length is no number") from None
        if announced > self.most:
            raise self.too_large()
        content = bytearray()
        try:
            async with asyncio.timeout(seconds):
                async for chunk in request.stream():
                    self.held += len(chunk)
                    content += chunk
                    if len(content) > self.most:
                        raise self.too_large()
                    if self.held > self.most_together:
                        raise busy("too many bodies are being read")
            return bytes(content)
        except BaseException as error:
            self.release(len(content))
            if isinstance(error, TimeoutError):
                raise Problem(408, f"the body did not come within {seconds:g} s", {"Connection": "close"}) from None
            if isinstance(error, ClientDisconnect):
                raise Problem(400, "the body broke off") from None
            raise

    def release(self, length: int) -> None:
        """Forgets a body."""
        self.held -= length

    def too_large(self) -> Problem:
        """Makes the problem of a body over the limit."""
        return Problem(413, f"over the limit of {self.most / 1e6:g} MB for a request", {"Connection": "close"})


async def linger(receive: Receive, most: float) -> None:
    """Throws away what is left of a body, for a while."""
    seen = 0
    try:
        async with asyncio.timeout(LINGER):
            while seen < most:
                message = await receive()
                seen += len(message.get("body", b""))
                if not message.get("more_body", False):
                    return
    except TimeoutError:
        return


async def refuse(problem: Problem, most: float, scope: Scope, receive: Receive, send: Send) -> None:
    """Sends a refusal before the body has been read: the connection is closed only when its sender could read it."""
    response = problem.response()
    await send({"type": "http.response.start", "status": response.status_code, "headers": response.raw_headers})
    await send({"type": "http.response.body", "body": response.body, "more_body": True})
    await linger(receive, most)
    await send({"type": "http.response.body", "body": b""})


class Parts:
    """The files of a form: parts with a file name, which is not kept."""

    def __init__(self) -> None:
        self.files: list[bytes] = []
        self.header, self.value, self.is_file, self.content = b"", b"", False, bytearray()

    def parse(self, body: bytes, boundary: bytes) -> list[bytes]:
        """Takes a body apart."""
        callbacks: Any = {
            "on_part_begin": self._begin,
            "on_header_begin": self._begin_header,
            "on_header_field": self._header,
            "on_header_value": self._value,
            "on_header_end": self._end_header,
            "on_part_data": self._data,
            "on_part_end": self._end,
        }
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
        return self.files

    def _begin(self) -> None:
        self.is_file, self.content = False, bytearray()

    def _begin_header(self) -> None:
        self.header, self.value = b"", b""

    def _header(self, data: bytes, start: int, end: int) -> None:
        self.header += data[start:end]

    def _value(self, data: bytes, start: int, end: int) -> None:
        self.value += data[start:end]

    def _end_header(self) -> None:
        if self.header.lower() == b"content-disposition":
            self.is_file = b"filename" in parse_options_header(self.value)[1]

    def _data(self, data: bytes, start: int, end: int) -> None:
        self.content += data[start:end]

    def _end(self) -> None:
        if self.is_file:
            self.files.append(bytes(self.content))


def files_in(body: bytes, content_type: str, most: int) -> list[bytes]:
    """Returns the image files of a body: the body itself, or the files of a form.

    Args:
        body: Of the request.
        content_type: Of the request.
        most: Files of a form, at most.

    Raises:
        Problem: The form cannot be read, or has no files, or too many.
    """
    kind, options = parse_options_header(content_type)
    if kind.decode("latin-1").lower() != FORM:
        return [body]
    try:
        files = Parts().parse(body, options[b"boundary"])
    except (KeyError, FormParserError):
        raise Problem(400, "the form cannot be read; send multipart/form-data with its boundary") from None
    if not files:
        raise Problem(422, "no file in the form")
    if len(files) > most:
        raise Problem(413, f"{len(files)} files: over the limit of {most} for a request")
    return files
