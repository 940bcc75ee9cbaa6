"""One request to a server that may not be up yet, with a bare socket: importing httpx takes 0.2 s."""

from __future__ import annotations

import re
import socket
import time
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import urlsplit

from deployer.protocol import parsed

_MAX_ANSWER = 64 * 1024  # bytes


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer; its status is 0 when it was not HTTP."""

    status: int
    body: bytes

    @property
    def devpi(self) -> bool:
        """Whether this is devpi's answer to ``GET /+api``."""
        try:
            answer = parsed(self.body)
        except ValueError:
            return False
        return self.status == 200 and isinstance(answer, dict) and answer.get("type") == "apiconfig"

    @property
    def text(self) -> str:
        start = " ".join(self.body[:200].decode("utf-8", "replace").split())[:80]
        shown = "".join(char if char.isprintable() else "?" for char in start)
        return f"HTTP {self.status}: {shown}" if self.status else f"not HTTP: {shown}"


def ask(url: str, timeout: float, *, on_connect: Callable[[], None]) -> Answer:
    """``GET /+api`` within ``timeout`` seconds as a whole. Raises OSError, TimeoutError when it took too long.

    HTTP 1.0, so that the end of the answer is the end of the connection.
    """
    parts = urlsplit(url)
    end = time.monotonic() + timeout
    address = (parts.hostname or "", parts.port or 80)
    try:
        connection = socket.create_connection(address, timeout=timeout)
    except TimeoutError as error:
        raise OSError(f"no connection within {timeout:.1f} s") from error
    with connection:
        on_connect()
        request = (
            f"GET {parts.path.rstrip('/')}/+api HTTP/1.0\r\nHost: {parts.netloc}\r\nAccept: application/json\r\n\r\n"
        )
        connection.sendall(request.encode("ascii"))
        received = _receive(connection, end)
    if not received:
        raise OSError("connection closed without an answer")
    return _parse(received)


def _receive(connection: socket.socket, end: float) -> bytes:
    received = bytearray()
    while len(received) < _MAX_ANSWER and not _complete(received):
        left = end - time.monotonic()
        if left <= 0:
            raise TimeoutError
        connection.settimeout(left)
        chunk = connection.recv(65536)
        if not chunk:
            break
        received += chunk
    return bytes(received)


def _complete(received: bytearray) -> bool:
    """Whether all of Content-Length arrived, for a server that keeps the connection open."""
    head, found, body = bytes(received).partition(b"\r\n\r\n")
    if not found:
        return False
    for line in head.lower().split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name == b"content-length" and value.strip().isdigit():
            return len(body) >= int(value.strip()[:12])  # Python refuses numbers of thousands of digits
    return False


def _parse(received: bytes) -> Answer:
    head, _, body = received.partition(b"\r\n\r\n")
    words = head.split(b"\r\n", 1)[0].split(b" ", 2)
    if len(words) < 2 or not words[0].startswith(b"HTTP/") or not re.fullmatch(rb"[1-5]\d\d", words[1]):
        return Answer(status=0, body=received)
    return Answer(status=int(words[1]), body=body)
