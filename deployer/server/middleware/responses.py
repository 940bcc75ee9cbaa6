"""Responses of the middleware: complete ones that several clients get, and streamed bodies."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any

from pyramid.response import FileIter, Response

from deployer.server.middleware.requests import PageRequest
from deployer.server.mirrors.ranges import Answer, Range

STORED_HEADER = "X-Deployer-Kept"
"""For nginx's access log: the page was stored. nginx does not pass it on to clients."""
BLOCK = 256 * 1024
"""Bytes of a file that are read at once."""


@dataclass(frozen=True)
class SharedResponse:
    """A complete response that several clients may get.

    ``packed``: the body by gzip, empty where it is not. ``reason``: of the status line, empty for the usual one.
    ``ours``: the text of an error is ours, and says nothing of the client that asked.
    """

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes
    packed: bytes = b""
    reason: str = ""
    ours: bool = False

    @classmethod
    def of_text(cls, status: int, text: str) -> SharedResponse:
        return cls(status, (("Content-Type", "text/plain; charset=utf-8"),), f"{text}\n".encode())

    @classmethod
    def no_project(cls, page: PageRequest) -> SharedResponse:
        return cls.of_text(404, f"{page.stage} has no project {page.project}")

    @property
    def shows_nothing(self) -> bool:
        """Whether it is a 404, or a page without a file."""
        empty = b"<a " not in self.body and b'"filename"' not in self.body
        return self.status == 404 or (self.status == 200 and empty)

    @property
    def is_html(self) -> bool:
        return any(name.lower() == "content-type" and value.startswith("text/html") for name, value in self.headers)

    def for_others(self, page: PageRequest) -> SharedResponse:
        """The response for clients that waited: an error text of devpi may name the client that asked."""
        if self.status == 200 or self.ours:
            return self
        if self.status == 404:
            return SharedResponse.no_project(page)
        return SharedResponse.of_text(self.status, f"{page.stage} can't serve {page.project}: see the server's log")

    def to_pyramid(self, *, packed: bool = False, extra: Mapping[str, str] | None = None) -> Any:
        """``packed``: the client takes gzip. ``extra``: more headers."""
        if extra:
            return replace(self, headers=(*self.headers, *extra.items())).to_pyramid(packed=packed)
        if packed and self.packed:
            headers = [*self.headers, ("Content-Encoding", "gzip")]
            return Response(status=self.status, headerlist=headers, body=self.packed)
        status = f"{self.status} {self.reason}" if self.reason else self.status
        return Response(status=status, headerlist=list(self.headers), body=self.body)


def busy() -> Any:
    """503: the client should try again in a second."""
    response = SharedResponse.of_text(503, "the upstream does not answer at present").to_pyramid()
    response.headers["Retry-After"] = "1"
    return response


def send_file(request: Any, response: Any) -> Any:
    """Have waitress send an open file, or a range of it, itself: without a thread, and without a copy in memory."""
    if not response.headers.get("Content-Length", "0").isdecimal():
        _measure(response)
    wrapper = request.environ.get("wsgi.file_wrapper")
    if wrapper is not None and isinstance(response.app_iter, FileIter):
        file = response.app_iter.file
        _reduce(request, response, file)
        length = response.content_length
        response.app_iter = wrapper(_Bounded(file), BLOCK) if length else []
        response.content_length = length
        if not length:
            file.close()
    return response


def _measure(response: Any) -> None:
    """Replace a length that is none: devpi-server 7 forgets the size of a file when it stores its page again."""
    del response.headers["Content-Length"]
    if isinstance(response.app_iter, FileIter):
        response.content_length = os.fstat(response.app_iter.file.fileno()).st_size


def _reduce(request: Any, response: Any, file: Any) -> None:
    """Reduce the answer with a whole file to the range that the client asks for."""
    if response.content_length is None or response.status_code != HTTPStatus.OK or request.method != "GET":
        return
    asked = Range.of(
        request.headers.get("Range", ""),
        if_range=request.headers.get("If-Range", ""),
        validators=[response.headers.get("Last-Modified", "")],
    )
    answer = Answer.of(asked, response.content_length)
    response.status_code = answer.status
    response.headers.update(answer.headers)
    file.seek(answer.start)


class _Bounded:
    """A file of which at most one block is read at once.

    waitress reads as much as the socket's buffer may hold: on loopback 4 MB for each client.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        read: bytes = self._file.read(size if 0 <= size < BLOCK else BLOCK)
        return read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class StreamedBody:
    """The chunks of a body, and the resources to release when the client has it all or disconnects."""

    def __init__(self, chunks: Iterator[bytes], held: contextlib.ExitStack) -> None:
        self._chunks, self._held = chunks, held

    def __iter__(self) -> Iterator[bytes]:
        return self._chunks

    def close(self) -> None:
        self._held.close()
