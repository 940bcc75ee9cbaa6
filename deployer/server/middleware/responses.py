"""Answers of the gate: whole ones that several get, and bodies that are sent piece by piece."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from pyramid.response import FileIter, Response

from deployer.server.middleware.requests import Wanted

BLOCK = 256 * 1024
"""Bytes of a file that are read at a time."""


@dataclass(frozen=True)
class Answer:
    """A whole answer that may be given to several."""

    status: int
    headers: tuple[tuple[str, str], ...]
    body: bytes

    @classmethod
    def of_text(cls, status: int, text: str) -> Answer:
        return cls(status, (("Content-Type", "text/plain; charset=utf-8"),), f"{text}\n".encode())

    @property
    def shows_nothing(self) -> bool:
        """Whether it says that there is no such project, or lists no file of it."""
        empty = b"<a " not in self.body and b'"filename"' not in self.body
        return self.status == 404 or (self.status == 200 and empty)

    def for_others(self, wanted: Wanted) -> Answer:
        """What those are told who waited: a page says nothing of who asked for it, devpi's words for an error do."""
        if self.status == 200:
            return self
        return Answer.of_text(self.status, f"{wanted.stage} does not give {wanted.project}: see the server's log")

    def response(self) -> Any:
        return Response(status=self.status, headerlist=list(self.headers), body=self.body)


def busy() -> Any:
    """What is told to whoever can't be served now and may come back."""
    answer = Answer.of_text(503, "the upstream does not answer at present")
    response = answer.response()
    response.headers["Retry-After"] = "1"
    return response


def by_file(request: Any, response: Any) -> Any:
    """The same answer, sent from the open file by the web server itself: by no thread, and with no copy in memory."""
    wrapper = request.environ.get("wsgi.file_wrapper")
    if wrapper is not None and isinstance(response.app_iter, FileIter):
        length = response.content_length
        response.app_iter = wrapper(_Bounded(response.app_iter.file), BLOCK)
        response.content_length = length
    return response


class _Bounded:
    """A file of which a block is read at a time, whatever is asked for.

    The web server asks for as much as the socket's buffer may have: on loopback four megabytes, for each client.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def read(self, size: int = -1) -> bytes:
        read: bytes = self._file.read(size if 0 <= size < BLOCK else BLOCK)
        return read

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class Body:
    """The pieces of a body, and what is to be let go of when no more of it is wanted."""

    def __init__(self, pieces: Iterator[bytes], held: contextlib.ExitStack) -> None:
        self._pieces, self._held = pieces, held

    def __iter__(self) -> Iterator[bytes]:
        return self._pieces

    def close(self) -> None:
        self._held.close()
