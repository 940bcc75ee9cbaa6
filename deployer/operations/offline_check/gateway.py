"""The only way out of an isolated network: requests for pages and files, which the server answers as if offline."""

from __future__ import annotations

import re
import socket
import threading
from contextlib import suppress
from http.client import HTTPConnection, HTTPException, HTTPResponse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Self
from urllib.parse import unquote, urlsplit

from deployer.clients import netrc
from deployer.protocol import OFFLINE_HEADER

BLOCK = 1 << 18
_PASSED = ("Accept", "Range", "User-Agent", "If-Range")
_RETURNED = ("Content-Type", "Content-Range", "Accept-Ranges", "ETag", "Last-Modified", "Cache-Control")
_PAGE = re.compile(r"/[^/]+/[^/]+/\+simple/([^/]+)/?")
_FILE = re.compile(r"/[^/]+/[^/]+/\+[ef]/(?:.*/)?([^/]+)")


class Gateway:
    """Passes requests on to the server at ``url``, and knows which were answered with nothing."""

    def __init__(self, url: str) -> None:
        self.url, self.login = url, netrc.headers(url)
        self._lock = threading.Lock()
        self._servers: list[ThreadingHTTPServer] = []
        self.forget()

    def forget(self) -> None:
        """Forget what was asked for in vain."""
        self.projects: dict[str, None] = {}
        self.files: dict[str, None] = {}

    def serve(self, listener: socket.socket) -> None:
        """Answer whoever connects to ``listener``, in threads."""
        gateway = self

        class Handler(_Handler):
            through = gateway

        server = _Server(listener, Handler)
        self._servers.append(server)
        threading.Thread(target=server.serve_forever, args=(0.05,), name="gateway", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for server in self._servers:
            server.shutdown()
            server.server_close()

    def note(self, path: str) -> None:
        """The server has nothing at ``path``."""
        page, file = _PAGE.fullmatch(path), _FILE.fullmatch(path)
        with self._lock:
            if page:
                self.projects[unquote(page[1])] = None
            elif file:
                self.files[unquote(file[1]).removesuffix(".metadata")] = None


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, listener: socket.socket, handler: type[BaseHTTPRequestHandler]) -> None:
        super().__init__(listener.getsockname(), handler, bind_and_activate=False)
        self.socket.close()
        self.socket = listener


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    through: Gateway

    def do_GET(self) -> None:
        parts = urlsplit(self.through.url)
        connection = HTTPConnection(parts.hostname or "", parts.port, timeout=300)
        headers = {name: self.headers[name] for name in _PASSED if name in self.headers}
        try:
            headers |= {OFFLINE_HEADER: "1", "Accept-Encoding": "identity", **self.through.login}
            connection.request(self.command, self.path, headers=headers)
            self._answer(connection.getresponse())
        except (OSError, HTTPException):
            self.close_connection = True
            with suppress(OSError):
                self.send_error(502)
        finally:
            connection.close()

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _answer(self, answer: HTTPResponse) -> None:
        path = urlsplit(self.path).path
        if answer.status >= 400:
            self.through.note(path)
        self.send_response(answer.status)
        for name in _RETURNED:
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        length = answer.headers.get("Content-Length")
        if length is not None:
            self.send_header("Content-Length", length)
        else:
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        while self.command == "GET" and (block := answer.read(BLOCK)):
            self.wfile.write(block)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name in http.server
        pass
