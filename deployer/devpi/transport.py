"""An httpx transport with a deadline for the whole request, also against a slow server."""

from __future__ import annotations

import http.client
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from math import inf
from types import MappingProxyType
from typing import Any
from urllib.parse import urlsplit

import httpcore
import httpx

BLOCK = 1 << 20
"""Bytes of a block of a large body."""
NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class Deadline:
    """The deadline of the current request, by the monotonic clock."""

    def __init__(self) -> None:
        self._end = inf

    def start(self, seconds: float) -> None:
        """Start a request that may take ``seconds`` in total."""
        self._end = time.monotonic() + seconds

    def left(self, timeout: float | None, error: type[Exception]) -> float:
        """The time left for one operation: at most ``timeout``. Raises ``error`` when none is left."""
        left = self._end - time.monotonic()
        if left <= 0:
            raise error("timeout of the whole request")
        return left if timeout is None else min(left, timeout)


class _Stream(httpcore.NetworkStream):
    def __init__(self, inner: httpcore.NetworkStream, deadline: Deadline) -> None:
        self._inner = inner
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        return self._inner.read(max_bytes, self._deadline.left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        self._inner.write(buffer, self._deadline.left(timeout, httpcore.WriteTimeout))

    def close(self) -> None:
        self._inner.close()

    def start_tls(
        self, ssl_context: ssl.SSLContext, server_hostname: str | None = None, timeout: float | None = None
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(timeout, httpcore.ConnectTimeout)
        return _Stream(self._inner.start_tls(ssl_context, server_hostname, left), self._deadline)

    def get_extra_info(self, info: str) -> Any:
        return self._inner.get_extra_info(info)


class _Backend(httpcore.NetworkBackend):
    def __init__(self, deadline: Deadline) -> None:
        self._inner = httpcore.SyncBackend()
        self._deadline = deadline

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.NetworkStream:
        left = self._deadline.left(timeout, httpcore.ConnectTimeout)
        stream = self._inner.connect_tcp(host, port, left, local_address, socket_options)
        return _Stream(stream, self._deadline)

    def sleep(self, seconds: float) -> None:
        self._inner.sleep(seconds)


class Blocks:
    """Bodies of plain GET requests in large blocks, on one connection: a third of httpx's work for each byte."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host, self._port, self._tls = parts.hostname or "", parts.port, parts.scheme == "https"
        self._connection: http.client.HTTPConnection | None = None

    def close(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def get(self, target: str, *, timeout: float, headers: Mapping[str, str] = NO_HEADERS) -> Iterator[int | bytes]:
        """The status, then the body. ``target``: path and query. ``timeout``: seconds for each read.

        Raises OSError and http.client.HTTPException, also for a body that breaks off.
        """
        try:
            answer = self._answer(target, timeout, headers)
            yield answer.status
            while block := answer.read(BLOCK):
                yield block
            if answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
        except BaseException:
            self.close()
            raise

    def _answer(self, target: str, timeout: float, more: Mapping[str, str]) -> http.client.HTTPResponse:
        headers = {"Accept": "*/*", "Accept-Encoding": "identity", **more}
        for fresh in (self._connection is None, True):
            connection = self._connection or self._connect(timeout)
            try:
                connection.request("GET", target, headers=headers)
                return connection.getresponse()
            except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
                self.close()  # the server had closed it since the last request
                if fresh:
                    raise
        raise AssertionError("no second try")

    def _connect(self, timeout: float) -> http.client.HTTPConnection:
        made = (
            http.client.HTTPSConnection(self._host, self._port, timeout=timeout, context=ssl.create_default_context())
            if self._tls
            else http.client.HTTPConnection(self._host, self._port, timeout=timeout)
        )
        self._connection = made
        return made


class DeadlineTransport(httpx.HTTPTransport):
    """As httpx's own, without proxies, one connection at a time, and every operation inside ``deadline``.

    httpx limits each single read, so a byte a second keeps a request alive for ever, the headers included.
    Its documented seam for that is a network backend of httpcore, which httpx itself does not hand through.
    """

    def __init__(self, deadline: Deadline, *, tls: bool) -> None:
        # The system's certificates; loading them takes 20 ms, which plain HTTP does not need.
        context = ssl.create_default_context() if tls else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        super().__init__(verify=context, trust_env=False)
        self._pool = httpcore.ConnectionPool(ssl_context=context, max_connections=1, network_backend=_Backend(deadline))
