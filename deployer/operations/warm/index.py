"""One index of a running server, asked by several threads: pages, what is here, and files that are thrown away."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from urllib.parse import quote, urlsplit

from deployer.clients import netrc
from deployer.errors import NotReadyError
from deployer.protocol import OFFLINE_HEADER, parsed
from deployer.selection.pages import Listed, ProjectPage

PAGE = "application/vnd.pypi.simple.v1+json"
LARGEST_PAGE = 256 << 20
SECONDS = 300.0
"""Timeout of one read: the server waits for an upstream, too."""
TRIES = 5
BLOCK = 1 << 20
_OFFLINE = {OFFLINE_HEADER: "1"}


class NotFetched(Exception):
    """A file that did not come; the text says why."""


class Stopped(Exception):
    """The command was interrupted."""


class Index:
    """The index ``user/name`` of the server at ``url``. A connection is a thread's own, and stays open."""

    def __init__(self, url: str, name: str) -> None:
        self.url, self.name = url, name
        self.stopped = threading.Event()
        """Set: whatever threads are doing here ends."""
        self._own = threading.local()
        self._login = netrc.headers(url)

    @property
    def simple_url(self) -> str:
        return f"{self.url}/{self.name}/+simple/"

    def page(self, project: str, *, offline: bool = False) -> ProjectPage:
        """The project's page; ``offline``: as the server shows it while it is offline. Without files if there is none.

        Raises NotFetched when an upstream does not answer, NotReadyError when the server does not.
        """
        path = f"{urlsplit(self.simple_url).path}{quote(project)}/"
        with self._asked("GET", path, {"Accept": PAGE, **(_OFFLINE if offline else {})}) as answer:
            body = answer.read(LARGEST_PAGE)
            if answer.status == 404 or (offline and answer.status == 502):
                return ProjectPage(project=project)
            if answer.status != 200:
                raise NotFetched(_why(answer, body))
            try:
                return ProjectPage.read(project, parsed(body), path=path)
            except ValueError as error:
                raise NotFetched(f"invalid page: {error}") from None

    def is_here(self, path: str) -> bool:
        """Whether the server has a file. No upstream is asked."""
        with self._asked("HEAD", quote(path, safe="/+%"), _OFFLINE) as answer:
            answer.read()
            return answer.status == 200

    def fetch(self, listed: Listed, *, offline: bool = False) -> int:
        """Read a file, and return its size. ``offline``: only if the server has it.

        Raises NotFetched, also for another hash than the page has, and NotReadyError.
        """
        return self._read(listed, lambda block: None, offline=offline)

    def content(self, listed: Listed, *, most: int) -> bytes:
        """A file that the server has, of at most so many bytes. Raises NotFetched, NotReadyError."""
        content = bytearray()

        def take(block: bytes) -> None:
            if len(content) + len(block) > most:
                raise NotFetched("too large")
            content.extend(block)

        self._read(listed, take, offline=True)
        return bytes(content)

    def _read(self, listed: Listed, take: Callable[[bytes], None], *, offline: bool) -> int:
        size, digest = 0, hashlib.sha256()
        with self._asked("GET", quote(listed.path, safe="/+%"), _OFFLINE if offline else {}) as answer:
            if answer.status != 200:
                raise NotFetched(_why(answer, answer.read(4096)))
            while block := answer.read(BLOCK):
                if self.stopped.is_set():
                    raise Stopped
                size += len(block)
                digest.update(block)
                take(block)
            if answer.length:
                raise NotFetched("the download breaks off")
        if listed.file.sha256 and digest.hexdigest() != listed.file.sha256:
            raise NotFetched("another hash than its page says")
        return size

    @contextmanager
    def _asked(self, method: str, path: str, headers: dict[str, str]) -> Iterator[HTTPResponse]:
        """An answer; a server that is busy is asked again."""
        for number in range(TRIES):
            if self.stopped.is_set():
                raise Stopped
            try:
                answer = self._request(method, path, headers)
            except (OSError, HTTPException) as error:
                self.close()
                raise NotReadyError(f"no answer from {self.url}: {error}", hint="deployer status") from None
            if answer.status != 503 or number == TRIES - 1:
                break
            answer.read()
            time.sleep(1)
        try:
            yield answer
        except (OSError, HTTPException):
            raise NotFetched("the download breaks off") from None
        finally:
            if not answer.isclosed():
                self.close()

    def _request(self, method: str, path: str, headers: dict[str, str]) -> HTTPResponse:
        connection: HTTPConnection | None = getattr(self._own, "connection", None)
        for kept in (True, False):
            if connection is None:
                parts = urlsplit(self.url)
                kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
                connection = self._own.connection = kind(parts.hostname or "", parts.port, timeout=SECONDS)
                kept = False
            try:
                connection.request(method, path, headers={"User-Agent": "pip/deployer", **self._login, **headers})
                return connection.getresponse()
            except (OSError, HTTPException):
                self.close()
                connection = None
                if not kept:  # a connection that was kept may have ended meanwhile
                    raise
        raise AssertionError("unreachable")

    def close(self) -> None:
        """Close this thread's connection."""
        connection = getattr(self._own, "connection", None)
        if connection is not None:
            connection.close()
            self._own.connection = None


def _why(answer: HTTPResponse, body: bytes) -> str:
    is_text = answer.headers.get_content_type() == "text/plain"
    said = body.decode("utf-8", "replace").strip().splitlines() if is_text else []
    if answer.status == 401:
        return "HTTP 401: it can be read with a login only: deployer clients login"
    return f"HTTP {answer.status}" + (f": {said[0][:200]}" if said else "")
