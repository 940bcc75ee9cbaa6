"""A loopback server that answers as it is told, byte by byte, and keeps all that it is sent."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Self

Answer = Callable[[bytes], Iterator[bytes]]
"""From the request to the pieces of the answer; the connection is closed after the last."""


def reply(body: bytes, *, status: str = "200 OK", kind: str = "application/json", extra: str = "") -> bytes:
    """A whole HTTP answer."""
    head = f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n{extra}\r\n".encode() + body


def devpi_reply(kind: str, result: object) -> bytes:
    """A whole answer in devpi's form."""
    return reply(json.dumps({"type": kind, "result": result}).encode())


def always(*pieces: bytes) -> Answer:
    """The same answer to every request."""
    return lambda request: iter(pieces)


def drip(start: bytes, pause: float = 0.02) -> Answer:
    """``start`` at once, then a byte at a time for as long as anybody listens."""

    def answer(request: bytes) -> Iterator[bytes]:
        yield start
        while True:
            time.sleep(pause)
            yield b"x"

    return answer


def by_path(answers: dict[str, bytes], *, otherwise: bytes | None = None) -> Answer:
    """An answer for each ``GET /path``; 404 for what is not listed."""
    missing = otherwise or reply(b'{"message": "not here"}', status="404 Not Found")

    def answer(request: bytes) -> Iterator[bytes]:
        method, path = request.split(b" ", 2)[:2]
        yield answers.get(f"{method.decode()} {path.decode()}", missing)

    return answer


@dataclass
class HostileServer:
    """Use it as a context manager. ``received`` has the bytes of each request."""

    answer: Answer
    host: str = "127.0.0.1"
    port: int = 0  # 0 = a free one
    received: list[bytes] = field(default_factory=list)
    sent: int = 0

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self.host else socket.AF_INET
        self._listener = socket.create_server((self.host, self.port), family=family)
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    @property
    def url(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}"

    @property
    def everything(self) -> bytes:
        """All bytes that were ever sent to it."""
        return b"\n".join(self.received)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            request = self._read(connection)
            self.received.append(request)
            for piece in self.answer(request):
                connection.sendall(piece)
                self.sent += len(piece)

    def _read(self, connection: socket.socket) -> bytes:
        data = b""
        while not _complete(data):
            chunk = connection.recv(65536)
            if not chunk:
                break
            data += chunk
        return data


def _complete(data: bytes) -> bool:
    head, found, body = data.partition(b"\r\n\r\n")
    if not found:
        return False
    lengths = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return len(body) >= int(lengths[0]) if lengths else True
