"""Many clients that ask for the same new page at the same moment: plain devpi-server, and ours."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.indexed_server import HTML, JSON, at_once, get, make_indexes
from tests.plain_devpi import PlainDevpi, init
from tests.server_process import Server, auth_header, login
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server

NAMES = tuple(f"project{number}" for number in range(5))


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel(name, "1.0") for name in NAMES]) as running:
        running.faults.latency = 0.2
        yield running


def test_plain_devpi_tells_some_of_them_that_there_is_no_such_project(tmp_path: Path, upstream: Upstream) -> None:
    """What all this is against: when it fails, devpi has cured it, and our own document of it is old."""
    init(tmp_path / "data")
    plain = PlainDevpi(tmp_path / "data")
    plain.start()
    try:
        _, answer = login(plain.port, plain.password)
        make_indexes(plain.port, auth_header(answer["result"]["password"]), upstream)
        asked = [[(f"/root/pypi/+simple/{name}/", JSON)] * 8 for name in NAMES]
        assert {got.status for some in asked for got in at_once(plain.port, some)} - {200}
    finally:
        plain.stop()


@pytest.mark.parametrize("clients", [8, 32])
def test_ours_answers_all_of_them_by_one_request(tmp_path: Path, upstream: Upstream, clients: int) -> None:
    server = Server(tmp_path / "data").start()
    try:
        make_indexes(server.port, server.auth, upstream)
        kinds = [(index, headers) for index in ("dev", "pypi") for headers in (JSON, HTML)] * (clients // 4)
        for name in NAMES:
            asked = [(f"/root/{index}/+simple/{name}/", headers) for index, headers in kinds]
            answers = at_once(server.port, asked)
            assert [got.status for got in answers] == [200] * clients
            for (path, headers), got in zip(asked, answers, strict=True):
                assert got.body == get(server.port, path, headers).body
                assert name.encode() in got.body
                if headers is JSON:
                    assert len(json.loads(got.body)["files"]) == 1
            assert upstream.pages(name) == 1
    finally:
        server.end()


def test_who_waited_for_a_failure_does_not_ask_again(tmp_path: Path, upstream: Upstream) -> None:
    server = Server(tmp_path / "data").start()
    try:
        make_indexes(server.port, server.auth, upstream)
        upstream.faults.status = 500
        for index in ("pypi", "dev"):
            upstream.forget()
            answers = at_once(server.port, [(f"/root/{index}/+simple/{NAMES[0]}/", JSON)] * 16)
            assert {got.status for got in answers} == {502}
            assert upstream.pages() <= 3
        upstream.faults.status = 0
        answers = at_once(server.port, [(f"/root/dev/+simple/{NAMES[0]}/", JSON)] * 16)
        assert {got.status for got in answers} == {200}
    finally:
        server.end()


def test_who_waits_is_not_told_what_another_ones_headers_make_of_an_answer(tmp_path: Path, upstream: Upstream) -> None:
    """Browsers' pages and devpi's words for an error have the address in them by which they were asked for."""
    server = Server(tmp_path / "data").start()
    try:
        make_indexes(server.port, server.auth, upstream)
        for name, kind in ((NAMES[0], {"Accept": "text/html", "User-Agent": "Mozilla/5.0"}), ("missing", JSON)):
            asked = [(f"/root/dev/+simple/{name}/", {**kind, "Host": f"host{one}-example"}) for one in range(8)]
            for (_, headers), got in zip(asked, at_once(server.port, asked), strict=True):
                others = {other["Host"] for _, other in asked} - {headers["Host"]}
                assert not [host for host in others if host.encode() in got.body]
            assert upstream.pages(name) == 1
    finally:
        server.end()


def test_devpis_own_api_is_told_the_same(tmp_path: Path, upstream: Upstream) -> None:
    server = Server(tmp_path / "data").start()
    try:
        make_indexes(server.port, server.auth, upstream)
        asked = [(f"/root/{index}/{NAMES[0]}", {"Accept": "application/json"}) for index in ("dev", "pypi")] * 4
        answers = at_once(server.port, asked)
        assert {got.status for got in answers} == {200}
        assert all(set(json.loads(got.body)["result"]) == {"1.0"} for got in answers)
        assert upstream.pages() <= 2  # devpi asks twice in one request of this kind, before it has committed
    finally:
        server.end()
