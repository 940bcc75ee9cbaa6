"""Many clients that ask for the same new page or file at the same moment: plain devpi-server, and ours."""

from __future__ import annotations

import http.client
import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.plain_devpi import PlainDevpi, init
from tests.server_process import Server, auth_header, login, request
from tests.upstream import JSON_TYPE, Upstream, make_wheel

pytestmark = pytest.mark.server

CLIENTS = 8
NAMES = tuple(f"project{number}" for number in range(5))
JSON = {"Accept": JSON_TYPE, "User-Agent": "pip/24.0"}
HTML = {"Accept": "text/html", "User-Agent": "pip/24.0"}


def get(port: int, path: str, headers: dict[str, str]) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    try:
        connection.request("GET", path, headers=headers)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


def at_once(port: int, asked: list[tuple[str, dict[str, str]]]) -> list[tuple[int, bytes]]:
    """All of them at the same moment, each by a client of its own."""
    barrier = threading.Barrier(len(asked))

    def one(path: str, headers: dict[str, str]) -> tuple[int, bytes]:
        barrier.wait()
        return get(port, path, headers)

    with ThreadPoolExecutor(len(asked)) as pool:
        return list(pool.map(lambda pair: one(*pair), asked))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel(name, "1.0") for name in NAMES]) as running:
        running.faults.latency = 0.2
        yield running


def make_indexes(port: int, auth: dict[str, str], upstream: Upstream) -> None:
    mirror = {"type": "mirror", "mirror_url": upstream.simple_url, "mirror_no_project_list": True, "volatile": True}
    assert request(port, "PUT", "/root/pypi", body=mirror, headers=auth)[0] == 200
    stage = {"type": "stage", "bases": ["root/pypi"], "volatile": True}
    assert request(port, "PUT", "/root/dev", body=stage, headers=auth)[0] == 200


@pytest.fixture
def server(tmp_path: Path, upstream: Upstream) -> Iterator[Server]:
    running = Server(tmp_path / "data").start()
    try:
        make_indexes(running.port, running.auth, upstream)
        yield running
    finally:
        running.end()


def test_plain_devpi_tells_some_of_them_that_there_is_no_such_project(tmp_path: Path, upstream: Upstream) -> None:
    """What all this is against: when it fails, devpi has cured it, and our own document of it is old."""
    init(tmp_path / "data")
    plain = PlainDevpi(tmp_path / "data")
    plain.start()
    try:
        _, answer = login(plain.port, plain.password)
        make_indexes(plain.port, auth_header(answer["result"]["password"]), upstream)
        statuses = [
            status
            for name in NAMES
            for status, _ in at_once(plain.port, [(f"/root/pypi/+simple/{name}/", JSON)] * CLIENTS)
        ]
        assert set(statuses) - {200}
    finally:
        plain.stop()


@pytest.mark.parametrize("clients", [8, 32])
def test_ours_answers_all_of_them_by_one_request(server: Server, upstream: Upstream, clients: int) -> None:
    for name in NAMES:
        asked = [
            (f"/root/{index}/+simple/{name}/", headers) for index in ("dev", "pypi") for headers in (JSON, HTML)
        ] * (clients // 4)
        answers = at_once(server.port, asked)
        assert [status for status, _ in answers] == [200] * clients
        for (path, headers), (_, body) in zip(asked, answers, strict=True):
            assert body == get(server.port, path, headers)[1]
            assert name.encode() in body
            if headers is JSON:
                assert len(json.loads(body)["files"]) == 1
        assert upstream.pages(name) == 1
