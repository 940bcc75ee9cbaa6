"""Bounds on what the clients of waitress take: connections, threads, and space for bodies.

waitress accepts no more connections when it has as many as it may, and a thread that sends to a slow client waits for
ever. So a client that has taken nothing for the longest time is cut off when others need its place:

- a connection is needed: one of the address that has most of them;
- a thread is needed, or memory: those that have taken nothing for STALLED seconds.

While there is room, a slow client is cut off only by waitress's own timeout.

Without nginx a body that is not small is read only after its sender is known (:mod:`bodies`).
"""

from __future__ import annotations

import contextlib
import io
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

from pyramid.request import Request
from waitress.buffers import ReadOnlyFileBasedBuffer
from waitress.channel import HTTPChannel
from waitress.server import BaseWSGIServer
from waitress.task import WSGITask
from waitress.utilities import Error

from deployer.protocol import BODY_ROUTE
from deployer.server.hosts import ASKED_HOST
from deployer.server.middleware.bodies import LENGTH, ORIGINAL, REFUSAL, SMALL
from deployer.server.nginx.reverse_proxy import SENT
from deployer.server.outside import Outside

STALLED = 10.0
"""Seconds without progress after which a client may have to give way."""
UNSENT = 128 << 20
"""Bytes of all responses that may wait for slow clients, in memory and in temporary files."""
_SPARE = 8
"""Connections that are kept free."""
SENT_TO_NGINX = 64 << 10
"""Bytes that the kernel keeps for nginx: a container of 256 MiB has to hold hundreds of slow clients."""
_COUNTED = 1.0
_RESET = struct.pack("ii", 1, 0)
_SENDER = ("AUTHORIZATION", "X_DEVPI_AUTH", "COOKIE", "HOST")


class _Unknown(Error):  # type: ignore[misc]
    code, reason = 401, "Unauthorized"


class _Busy(Error):  # type: ignore[misc]
    code, reason = 503, "Service Unavailable"


class _TooLarge(Error):  # type: ignore[misc]
    code, reason = 413, "Request Entity Too Large"


class _Nowhere:
    """The buffer of a body that is refused: read to its end, so that the client reads the answer, and kept nowhere."""

    def __init__(self, length: int) -> None:
        self._length = length

    def __len__(self) -> int:
        return self._length

    def append(self, piece: bytes) -> None:
        self._length += len(piece)

    def getfile(self) -> io.BytesIO:
        return io.BytesIO()

    def close(self) -> None:
        """Nothing is open."""


class Clients:
    """What all connections of this process share. ``waits``: whether requests wait for a thread."""

    def __init__(self, waits: Callable[[], bool]) -> None:
        self._waits = waits
        self._since = float("inf")
        self._counted = float("-inf")
        self._unsent = 0

    def lacks_threads(self, now: float) -> bool:
        """Whether requests have been waiting for a thread for a while, and not just at this moment."""
        self._since = min(self._since, now) if self._waits() else float("inf")
        return now - self._since > _COUNTED

    def lacks_space(self, channels: Iterable[Channel], now: float) -> bool:
        """Whether too much waits for slow clients."""
        if now - self._counted > _COUNTED:
            self._counted = now
            self._unsent = sum(channel.unsent for channel in channels)
        return self._unsent > UNSENT


class _Task(WSGITask):  # type: ignore[misc]
    """A request that keeps its ``Host``, which devpi replaces by that of the outside URL."""

    def get_environment(self) -> dict[str, Any]:
        environ: dict[str, Any] = super().get_environment()
        environ[ASKED_HOST] = environ.get("HTTP_HOST", "")
        self.channel.outside.settle(environ, peer=self.channel.admits)
        return environ


class Channel(HTTPChannel):  # type: ignore[misc]
    """A connection that gives way."""

    task_class = _Task
    clients: Clients
    outside = Outside()
    admits = False
    """Whether bodies are admitted here; otherwise nginx has done so."""
    cut = False
    _taken = 0.0  # when the client last took something, or something began to wait for it
    _asking = False
    _admitted = False

    def __init__(self, server: Any, sock: Any, *more: Any, **named: Any) -> None:
        kept = SENT_TO_NGINX if sock.family == socket.AF_UNIX else SENT
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, kept)
        super().__init__(server, sock, *more, **named)
        if len(self._map) > self.adj.connection_limit - _SPARE:
            self._replace_one()

    def _replace_one(self) -> None:
        """Cut off the one that has made no progress for the longest time, of the address that has most."""
        others = [one for one in self.server.active_channels.values() if one.may_go and one is not self]
        if others:
            of = Counter(one.host for one in others)
            min(others, key=lambda one: (-of[one.host], one.last_activity)).cut_off()

    @property
    def host(self) -> str:
        return str(self.addr[0]) if self.addr else ""

    @property
    def may_go(self) -> bool:
        """Whether it is idle, or its client does not take what is sent. devpi works for no such client."""
        return not self.cut and (not self.requests or self._is_full)

    @property
    def _is_full(self) -> bool:
        return bool(self.total_outbufs_len > self.adj.outbuf_high_watermark)

    @property
    def unsent(self) -> int:
        """Bytes that wait here; a stored file that waitress reads itself takes none."""
        return sum(len(buffer) for buffer in list(self.outbufs) if not isinstance(buffer, ReadOnlyFileBasedBuffer))

    def cut_off(self) -> None:
        """Close the connection. waitress notices that by itself, in its own time and thread."""
        self.cut = True
        with contextlib.suppress(OSError):
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)  # the kernel keeps nothing either
            self.socket.shutdown(socket.SHUT_RDWR)

    def write_soon(self, data: Any) -> int:
        if not self.total_outbufs_len:
            self._taken = time.time()
        return int(super().write_soon(data))

    def send(self, data: bytes, do_close: bool = True) -> int:
        sent = int(super().send(data, do_close=do_close))
        if sent:
            self._taken = time.time()
        return sent

    def writable(self) -> bool:
        if self.total_outbufs_len and not self.cut and self._has_to_go(time.time()):
            self.cut_off()
        return bool(super().writable())

    def _has_to_go(self, now: float) -> bool:
        """Whether its client takes nothing, and what it keeps from others is needed."""
        idle = now - self._taken
        if idle < STALLED:
            return False
        if idle > self.adj.channel_timeout:
            return True
        if self.requests and self.clients.lacks_threads(now):
            return True
        return self.unsent > 0 and self.clients.lacks_space(tuple(self.server.active_channels.values()), now)

    # Bodies

    def readable(self) -> bool:
        return not self._asking and bool(super().readable())

    def received(self, data: bytes) -> bool:
        taken = bool(super().received(data))
        request = self.request
        if request is None:
            self._admitted = False  # the next request of this connection is another one
        elif self.admits and not (self._admitted or self._asking) and _is_large(request):
            self._asking = True
            self.server.add_task(_Admission(self, request))
        return taken

    def decide(self, request: Any, status: int, why: str = "") -> None:
        """Go on with the body of ``request``, or refuse it; ``why``: it is too large. Called in a pool's thread."""
        with self.requests_lock:
            self._asking = False
            self._admitted = True  # decided, one way or the other
            if status >= 300:
                unknown = _Unknown("log in to send a body of this size") if status < 500 else _Busy("try again")
                request.error = _TooLarge(why) if why else unknown
                kept = request.body_rcv.buf
                request.body_rcv.buf = _Nowhere(len(kept))
                kept.close()
        self.server.pull_trigger()


def _is_large(request: Any) -> bool:
    return bool(request.headers_finished and max(request.content_length, request.body_bytes_received) >= SMALL)


class _Admission:
    """A task of waitress's pool: ask whether the sender of a request may send a body."""

    def __init__(self, channel: Channel, request: Any) -> None:
        self._channel, self._request = channel, request

    def service(self) -> None:
        status, why = 503, ""
        try:
            headers = {
                name.replace("_", "-"): self._request.headers[name] for name in _SENDER if name in self._request.headers
            }
            length = str(self._request.content_length)
            asked = Request.blank(
                BODY_ROUTE, headers={**headers, ORIGINAL: self._channel.outside.own(self._request.path), LENGTH: length}
            )
            asked.environ["REMOTE_ADDR"] = self._channel.host
            answer = asked.get_response(self._channel.server.application)
            status, why = answer.status_code, answer.headers.get(REFUSAL, "")
        finally:
            self._channel.decide(self._request, status, why)

    def cancel(self) -> None:
        self._channel.cancel()


def install(clients: Clients, outside: Outside, *, admits: bool) -> None:
    """Have waitress use these connections. ``admits``: whether bodies are admitted here."""
    Channel.clients, Channel.outside, Channel.admits = clients, outside, admits
    BaseWSGIServer.channel_class = Channel
