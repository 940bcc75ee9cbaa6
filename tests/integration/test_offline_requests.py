"""Requests that are answered as if the server was offline, and what was asked for in vain while it is."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from urllib.parse import urljoin

import pytest

from deployer.protocol import OFFLINE_HEADER
from tests.indexed_server import FILE, JSON, get, make_indexes
from tests.integration.test_offline import switch
from tests.server_process import PATIENCE, Server
from tests.upstream import Upstream, make_wheel

pytestmark = pytest.mark.server
OFFLINE = {**JSON, OFFLINE_HEADER: "1"}


@pytest.fixture(scope="module")
def upstream() -> Iterator[Upstream]:
    with Upstream([make_wheel(name, version) for name in ("alpha", "beta") for version in ("1.0", "2.0")]) as running:
        yield running


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, upstream: Upstream) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("data") / "server").start()
    try:
        make_indexes(running.port, running.auth, upstream)
        yield running
    finally:
        running.end()


def files(server: Server, page: str, headers: dict[str, str]) -> dict[str, str]:
    answer = get(server.port, page, headers)
    listed = json.loads(answer.body)["files"] if answer.status == 200 else []
    return {file["filename"]: urljoin(page, file["url"]) for file in listed}


@pytest.mark.parametrize("index", ["root/pypi", "root/dev"])
def test_one_request_is_answered_offline(server: Server, upstream: Upstream, index: str) -> None:
    page = f"/{index}/+simple/alpha/"
    both = files(server, page, JSON)
    here, missing = sorted(both, reverse=True)
    assert get(server.port, both[here], FILE).status == 200
    until_stored(server, both[here])
    upstream.forget()
    for _ in range(2):
        assert list(files(server, page, OFFLINE)) == [here]
        assert list(files(server, f"/{index}/+simple/unknown/", OFFLINE)) == []
        for method in ("HEAD", "GET"):
            assert get(server.port, both[here], {**FILE, OFFLINE_HEADER: "1"}, method=method).status == 200
            assert get(server.port, both[missing], {**FILE, OFFLINE_HEADER: "1"}, method=method).status == 502
        metadata = get(server.port, f"{both[here]}.metadata", {**FILE, OFFLINE_HEADER: "1"})
        assert (metadata.status, b"Name: alpha" in metadata.body) == (200, True)
        # Others are not affected, and get all of it.
        assert sorted(files(server, page, JSON)) == sorted(both)
    assert upstream.requests == ()


def test_what_is_asked_for_in_vain_is_kept(server: Server, upstream: Upstream) -> None:
    page = "/root/dev/+simple/beta/"
    one = files(server, page, JSON)["beta-1.0-py3-none-any.whl"]
    assert switch(server, offline=True) == 200
    try:
        assert files(server, page, JSON) == {}
        assert files(server, "/root/dev/+simple/gamma/", OFFLINE) == {}
        for _ in range(2):
            assert get(server.port, one, FILE).status == 502
            get(server.port, "/root/dev/+simple/gamma/", JSON)
        assert told(server, {"projects": {"beta": 1, "gamma": 2}, "files": {}}, index="root/dev")
        mirror = one.removeprefix("/").partition("/+f/")[0]
        assert told(server, {"projects": {}, "files": {"beta-1.0-py3-none-any.whl": 2}}, index=mirror)
    finally:
        assert switch(server, offline=False) == 200
    assert switch(server, offline=True) == 200
    kept = json.loads((server.private / "missed.json").read_text())
    assert switch(server, offline=False) == 200
    assert kept["indexes"] == {}


def told(server: Server, expected: object, *, index: str) -> bool:
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        path = server.private / "missed.json"
        kept = json.loads(path.read_text()) if path.exists() else {"indexes": {}}
        if kept["indexes"].get(index) == expected:
            return True
        time.sleep(0.1)
    raise AssertionError(kept)


def until_stored(server: Server, path: str) -> None:
    """A client has the file before it is stored."""
    deadline = time.monotonic() + PATIENCE
    while get(server.port, path, {**FILE, OFFLINE_HEADER: "1"}, method="HEAD").status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.05)
