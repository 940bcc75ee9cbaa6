"""A read whose keep-alive connection was closed at that moment is asked once more, whatever it reads."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import BinaryIO

import pytest

from deployer.server.upstream.client import Client, NoAnswer
from deployer.server.upstream.health import Upstreams

PAGE = b"{}"
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/vnd.pypi.simple.v1+json\r\nContent-Length: %d\r\n\r\n"


class Closing:
    """An upstream that closes some connections when a request comes. ``closes``: whether for the one of that number."""

    def __init__(self, closes: Callable[[int], bool]) -> None:
        self._closes = closes
        self.requests: list[bytes] = []
        self._listening = socket.create_server(("127.0.0.1", 0))
        self._connection: socket.socket | None = None
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/simple/one/"
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # the end
            while True:
                self._connection, _ = self._listening.accept()
                with self._connection as connection, connection.makefile("rb") as lines:
                    while (request := lines.readline()) and self._answer(connection, lines, request.split()[0]):
                        pass

    def _answer(self, connection: socket.socket, lines: BinaryIO, method: bytes) -> bool:
        while lines.readline() not in (b"\r\n", b""):
            pass
        self.requests.append(method)
        if self._closes(len(self.requests)):
            return False
        connection.sendall(HEAD % len(PAGE) + PAGE)
        return True

    def close(self) -> None:
        for one in (self._listening, self._connection):
            with contextlib.suppress(OSError, AttributeError):  # closed already, or never opened
                one.shutdown(socket.SHUT_RDWR)  # type: ignore[union-attr]
        self._listening.close()
        self._thread.join()


@pytest.fixture
def upstreams() -> Upstreams:
    return Upstreams()


@pytest.fixture
def client(upstreams: Upstreams) -> Client:
    return Client(
        upstreams,
        timeout=10,
        offline=lambda: False,
        may_get=lambda url, authorization: True,
        may_push=lambda url: True,
        largest_page=lambda url: 1 << 20,
        has_room=lambda: True,
    )


@contextlib.contextmanager
def closing(closes: Callable[[int], bool]) -> Iterator[Closing]:
    serving = Closing(closes)
    try:
        yield serving
    finally:
        serving.close()


def file(client: Client, url: str, method: str = "GET") -> int:
    with contextlib.ExitStack() as stack:
        answer = client.stream(stack, method, url, allow_redirects=True)
        if answer.status_code == 200:
            answer.read()
        return int(answer.status_code)


def page(client: Client, url: str) -> int:
    try:
        return client.page(url, headers={}).status_code
    except NoAnswer:
        return -1


def whole(client: Client, url: str) -> int:
    return int(client.get(url, allow_redirects=True).status_code)


def twice_async(client: Client, url: str) -> list[int]:
    async def ask() -> list[int]:
        return [(await client.async_get(url, allow_redirects=True))[0].status_code for _ in range(2)]

    return asyncio.run(ask())


@pytest.mark.parametrize("read", [file, page, whole])
def test_a_closed_connection_is_no_failure(
    client: Client, upstreams: Upstreams, read: Callable[[Client, str], int]
) -> None:
    with closing(lambda number: number == 2) as serving:
        assert [read(client, serving.url), read(client, serving.url)] == [200, 200]
        assert serving.requests == [b"GET"] * 3
        known = upstreams.of(serving.url)
        assert (known.failures, known.asking) == (0, 0)


def test_a_closed_connection_is_no_failure_for_a_page_of_devpi(client: Client, upstreams: Upstreams) -> None:
    with closing(lambda number: number == 2) as serving:
        assert twice_async(client, serving.url) == [200, 200]
        assert serving.requests == [b"GET"] * 3
        known = upstreams.of(serving.url)
        assert (known.failures, known.asking) == (0, 0)


@pytest.mark.parametrize("read", [file, page, whole])
def test_an_upstream_that_closes_again_and_again_is_asked_twice(
    client: Client, upstreams: Upstreams, read: Callable[[Client, str], int]
) -> None:
    with closing(lambda number: True) as serving:
        assert read(client, serving.url) == -1
        assert serving.requests == [b"GET"] * 2
        assert (upstreams.of(serving.url).failures, upstreams.of(serving.url).asking) == (1, 0)
        assert read(client, serving.url) == -1  # it is not asked for a while
        assert serving.requests == [b"GET"] * 2


def test_what_writes_is_sent_once(client: Client) -> None:
    with closing(lambda number: True) as serving:
        assert file(client, serving.url, "POST") == -1
        assert serving.requests == [b"POST"]
